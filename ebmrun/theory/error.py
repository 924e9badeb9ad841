"""Error coordinates: what is left of a state beyond the answer to its present drive alone, as a number of its own."""

from __future__ import annotations

from ebmrun.theory.affine import Piece
from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.energies.differences import ExactError, Subtraction
from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.equilibrium import Batch, Drive, FreeEquilibrium
from ebmrun.theory.network import Network


class Error(Coordinates):
    """u = x - f(a), for an energy whose free equilibrium is the forward pass (u = 0)."""

    def __init__(self, network: Network, energy: Energy, free: FreeEquilibrium) -> None:
        super().__init__(network, energy, free)
        self.form = energy if isinstance(energy, ExactError) else Subtraction(energy)
        self.exact = self.form is energy

    def driven(self, l: int, a: Batch, pieces: tuple[Piece, ...]) -> Drive:
        return Drive(a, pieces, self.activations[l](a))

    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        return self.form.error(drive.a, drive.origin, t, self.activations[l])

    def feedback(self, l: int, u: Batch, drive: Drive) -> Batch:
        return self.form.error_feedback(u, drive.a, drive.origin, self.activations[l])
