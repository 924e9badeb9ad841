"""Error coordinates: what is left of a state beyond the answer to its present drive alone, as a number of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ebmrun.theory.affine import Piece
from ebmrun.theory.coordinates import Coordinates, Start, Term
from ebmrun.theory.displacement import Increments, zeros_like
from ebmrun.theory.energies.differences import ExactError, Subtraction
from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.equilibrium import Batch, Drive, FreeEquilibrium
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Weights


class Error(Coordinates):
    """u = x - f(a), for an energy whose free equilibrium is the forward pass (u = 0)."""

    def __init__(self, network: Network, energy: Energy, free: FreeEquilibrium) -> None:
        super().__init__(network, energy, free)
        self.form = energy if isinstance(energy, ExactError) else Subtraction(energy)
        self.exact = self.form is energy

    def start(self) -> Start:
        drives = [Drive(drive.a, drive.pieces, x) for drive, x in zip(self.free.drives, self.free.states)]
        return zeros_like(self.free.states), drives, [self.input, *self.free.states[:-1]]

    def driven(self, l: int, a: Batch, pieces: tuple[Piece, ...]) -> Drive:
        return Drive(a, pieces, self.activations[l](a))

    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        return self.form.error(drive.a, drive.origin, t, self.activations[l])

    def feedback(self, l: int, u: Batch, drive: Drive) -> Batch:
        return self.form.error_feedback(u, drive.a, drive.origin, self.activations[l])


class RelativeError(Error):
    """The same with signals dx = f(a) - f(a0) + u and increments of drives, which have the digits to tell the winner of
    a maximum whose inputs tie but for what a weak nudge adds; x itself has not."""

    relative = True

    def __init__(self, network: Network, energy: Energy, free: FreeEquilibrium) -> None:
        super().__init__(network, energy, free)
        self.increment = Increments(network, free)

    def start(self) -> Start:
        zeros, drives, _ = super().start()
        risen = [replace(drive, risen=zero) for drive, zero in zip(drives, zeros)]
        return zeros, risen, [self.input, *zeros[:-1]]

    def drive(self, l: int, signals: Sequence[Batch]) -> Drive:
        da, pieces = self.increment(l, signals)
        drive, a0 = self.driven(l, self.free.drives[l].a + da, pieces), self.free.drives[l].a
        return replace(drive, risen=self.activations[l].increment(a0, da))

    def signal(self, u: Batch, drive: Drive) -> Batch:
        return drive.risen + u

    def terms(
        self, l: int, edge: int, message: Batch, signals: Sequence[Batch], drive: Drive, weights: Weights
    ) -> list[Term]:
        source = self.edges[l][edge][0]
        if not source:
            return super().terms(l, edge, message, signals, drive, weights)
        return [Term(message, self.free.states[source - 1] + signals[source], drive.pieces[edge])]
