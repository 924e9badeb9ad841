"""The energies that ship, one file each."""

from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.energies.hopfield import Hopfield
from ebmrun.theory.energies.lifted import Lifted
from ebmrun.theory.energies.predictive import Predictive

__all__ = ["Energy", "Hopfield", "Lifted", "Predictive"]
