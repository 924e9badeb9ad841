"""The energies that ship, one file each, and what an energy of one's own is made from."""

from ebmrun.theory.energies.by_value import ByValue
from ebmrun.theory.energies.differences import ExactDisplacement, ExactError
from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.energies.hopfield import Hopfield
from ebmrun.theory.energies.lifted import Lifted
from ebmrun.theory.energies.predictive import Predictive

__all__ = ["ByValue", "Energy", "ExactDisplacement", "ExactError", "Hopfield", "Lifted", "Predictive"]
