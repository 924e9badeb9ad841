"""The energies that ship, one file each."""

from ebmrun.energies.energy import Energy
from ebmrun.energies.hopfield import Hopfield
from ebmrun.energies.lifted import Lifted
from ebmrun.energies.predictive import Predictive

__all__ = ["Energy", "Hopfield", "Lifted", "Predictive"]
