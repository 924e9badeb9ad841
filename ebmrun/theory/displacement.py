"""Displacement coordinates: the distance from a free equilibrium that had to settle, as a number of its own.

The displacements are states of an energy-based model again: its maps are the increments of A from x0, its input and its
free equilibrium are 0, and its energy is E less its tangent at (x0, a0).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ebmrun.theory.affine import MaxPool2d, Piece
from ebmrun.theory.coordinates import Coordinates, Start, Term
from ebmrun.theory.energies.differences import ExactDisplacement, Subtraction
from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.equilibrium import Batch, Drive, FreeEquilibrium, first
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Weights


def zeros_like(states: Sequence[Batch]) -> list[Batch]:
    """Zeros for each layer, one tensor for all of one shape."""
    zeros: dict[torch.Size, Batch] = {}
    return [zeros[x.shape] if x.shape in zeros else zeros.setdefault(x.shape, torch.zeros_like(x)) for x in states]


class Increments:
    """The increments of drives, around a free equilibrium."""

    def __init__(self, network: Network, free: FreeEquilibrium) -> None:
        self.edges, self.free = network.edges, free
        self.anchors = [
            [affine.anchor(piece) if source else None for (source, affine), piece in zip(edges, drive.pieces)]
            for edges, drive in zip(self.edges, free.drives)]

    def __call__(self, l: int, dx: Sequence[Batch]) -> tuple[Batch, tuple[Piece, ...]]:
        """sum_k A_lk(x_k + dx_k) - A_lk(x_k), and the pieces that x + dx lies on."""
        pieces, parts = list(self.free.drives[l].pieces), []
        for edge, ((source, affine), anchor) in enumerate(zip(self.edges[l], self.anchors[l])):
            if source:  # the input does not move
                increment, pieces[edge] = affine.increment(dx[source], anchor)
                parts.append(increment)
        return sum(parts[1:], parts[0]), tuple(pieces)


class Displacement(Coordinates):
    """u = x - x0; a drive is the increment a - a0, and messages are those beyond the free ones."""

    relative = True
    balances = False

    def __init__(self, network: Network, energy: Energy, free: FreeEquilibrium) -> None:
        super().__init__(network, energy, free)
        self.form = energy if isinstance(energy, ExactDisplacement) else Subtraction(energy)
        self.exact = self.form is energy
        self.increments = [self.form.around(x0, drive.a, t0, f) for x0, drive, t0, f in zip(
            free.states, free.drives, free.messages, self.activations)]
        self.increment = Increments(network, free)

    def start(self) -> Start:
        free, zeros = self.free, zeros_like(self.free.states)
        drives = [Drive(torch.zeros_like(drive.a), drive.pieces, x) for drive, x in zip(free.drives, free.states)]
        return zeros, drives, [self.input, *zeros[:-1]]

    def drive(self, l: int, signals: Sequence[Batch]) -> Drive:
        return self.driven(l, *self.increment(l, signals))

    def driven(self, l: int, a: Batch, pieces: tuple[Piece, ...]) -> Drive:
        return Drive(a, pieces, self.free.states[l])

    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        return self.increments[l](drive.a, t)

    def feedback(self, l: int, u: Batch, drive: Drive) -> Batch:
        x0, a0 = self.free.states[l], self.free.drives[l].a
        return self.form.displacement_feedback(x0, a0, u, drive.a, self.activations[l])

    def signal(self, u: Batch, drive: Drive) -> Batch:
        return u

    def down(self, l: int, edge: int, message: Batch, drive: Drive) -> Batch:
        """J^T (m0 + dm) - J0^T m0, where the map has changed its piece; elsewhere J^T dm."""
        affine, piece, before = self.edges[l][edge][1], drive.pieces[edge], self.free.drives[l].pieces[edge]
        if piece is None or before is None:
            return affine.adjoint(message)
        assert isinstance(affine, MaxPool2d), "pieces are those of maxima"
        switched = torch.where(piece.places == before.places, 0, self.free.feedback[l])
        return affine.inner.adjoint(affine.unpooled(message + switched, piece) - affine.unpooled(switched, before))

    def terms(
        self, l: int, edge: int, message: Batch, signals: Sequence[Batch], drive: Drive, weights: Weights
    ) -> list[Term]:
        """m_k x_k - m0 x0 = (m_k - m0) x_k + m0 (x_k - x0), for weights that sum to 0 with that of the free node."""
        source, piece, n = self.edges[l][edge][0], drive.pieces[edge], self.free.inputs.shape[0]
        if not source:
            return super().terms(l, edge, message, signals, drive, weights)
        below = self.free.states[source - 1] + signals[source]
        m0, before = self.free.feedback[l][:n], self.free.drives[l].pieces[edge]
        if piece is None or before is None:
            terms = [Term(message, below, None)]
        else:
            switched = weights.of(l, torch.where(piece.places == before.places, 0, self.free.feedback[l]))
            terms = [Term(message + switched, below, piece), Term(-switched, below, before)]
        shifted = weights.shift(signals[source])
        return [*terms, Term(weights.scales[l] * m0, shifted, first(before, n), constant=False)]
