"""Coordinates: what a relaxation moves. Its equilibria are the same in each; the precision at a weak nudge is not.

A nudge of strength lambda displaces the states by about lambda. Kept inside x, that displacement loses all digits that
x does not leave it; kept as a number of its own, it loses none.

    State          u = x
    Error          u = x - f(a), relative to what the present drive alone would give (a file of its own)
    Displacement   u = x - x0, relative to a free equilibrium that had to settle (a file of its own)

In lists, layers count from 0; ``signals`` holds the input first, and so what layer l sends up at l + 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from ebmrun.theory.affine import Map, Piece
from ebmrun.theory.compliance import Compliance
from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.equilibrium import Batch, Drive, FreeEquilibrium, first, stacked
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Weights

Start = tuple[list[Batch], list[Drive], list[Batch]]


class Term(NamedTuple):
    """A part of dI/dtheta of one map: d<message, A(signal)>/dtheta on a piece, with or without the map's constants."""

    message: Batch
    signal: Batch
    piece: Piece
    constant: bool = True


class Coordinates(ABC):
    """The variables u_l around a free equilibrium, and the functions that a relaxation and the learning rule ask for.

    ``exact``: a displacement keeps its digits however small it is; ``relative``: signals count from x0; ``balances``:
    units may rest on kinks; ``kinked``: some may; ``descends``: equilibria are minima; ``independent``: rows relax by
    themselves; ``mixes``: layers that take maxima of states; ``gains``: gamma^(h_k - h_l) of edges from k to l."""

    exact = relative = False
    balances = independent = True

    def __init__(self, network: Network, energy: Energy, free: FreeEquilibrium) -> None:
        self.network, self.energy, self.free = network, energy, free
        self.edges, self.activations = network.edges, network.activations
        self.gains = network.feedback_gains(energy.feedback_gain)
        self.descends = network.tied and not free.states[-1].is_complex()
        nodes = free.states[0].shape[0] // free.inputs.shape[0] if network.adds_input else 1
        self.input = stacked(free.inputs, nodes) if nodes > 1 else free.inputs
        # Displacements from an equilibrium that had to settle count from winners, not from mixtures.
        self.mixes = network.pools if energy.feedforward else [False] * network.depth
        self.kinked = True in self.mixes or (self.balances and energy.jumps and network.kinked)

    @abstractmethod
    def start(self) -> Start:
        """The variables at the free equilibrium, the drives, and the signals that made these."""

    def drive(self, l: int, signals: Sequence[Batch]) -> Drive:
        """The drive of layer l by the signals from below."""
        a, pieces = summed(self.edges[l], signals)
        return self.driven(l, a, pieces)

    @abstractmethod
    def driven(self, l: int, a: Batch, pieces: tuple[Piece, ...]) -> Drive:
        """The drive whose sum is ``a``, on pieces."""

    @abstractmethod
    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        """The value of u_l that answers a drive and a message."""

    @abstractmethod
    def feedback(self, l: int, u: Batch, drive: Drive) -> Batch:
        """The message that layer l sends down."""

    def down(self, l: int, edge: int, message: Batch, drive: Drive) -> Batch:
        """What a message of layer l is below one of its maps: J^T message, J being the map's linear part."""
        return self.edges[l][edge][1].adjoint(message, drive.pieces[edge])

    def terms(
        self, l: int, edge: int, message: Batch, signals: Sequence[Batch], drive: Drive, weights: Weights
    ) -> list[Term]:
        """The learning rule of one map: terms that add up to scale sum_k w_k (dA/dtheta)^T m_l at the nodes k, from the
        message scale w_k m_l. The input is the same at every node: there one product serves them all."""
        source, piece = self.edges[l][edge][0], drive.pieces[edge]
        if source:
            return [Term(message, signals[source], piece)]
        return [Term(weights.sum(message), self.free.inputs, first(piece, self.free.inputs.shape[0]))]

    def state(self, u: Batch, drive: Drive) -> Batch:
        """x_l."""
        return drive.origin + u if drive.origin.ndim else u

    def from_state(self, x: Batch, drive: Drive) -> Batch:
        """The value of u_l at which the state is x."""
        return x - drive.origin if drive.origin.ndim else x

    def signal(self, u: Batch, drive: Drive) -> Batch:
        """What layer l sends up."""
        return drive.origin + u if drive.origin.ndim else u

    @cached_property
    def compliance(self) -> Compliance:
        """How drives give way to their own feedback."""
        return Compliance(self.network, self.gains, self.free.states)


def summed(edges: list[tuple[int, Map]], signals: Sequence[Batch]) -> tuple[Batch, tuple[Piece, ...]]:
    """The sum of maps at their signals, and the pieces that these lie on."""
    if len(edges) == 1:
        a, piece = edges[0][1].trace(signals[edges[0][0]])
        return a, (piece,)
    parts, pieces = zip(*(affine.trace(signals[source]) for source, affine in edges))
    return sum(parts[1:], parts[0]), pieces


def forward_pass(network: Network, x: Batch) -> FreeEquilibrium:
    """x_l = f_l(a_l), layer by layer."""
    signals, drives = [x], []
    for edges, f in zip(network.edges, network.activations):
        drives.append(Drive(*summed(edges, signals)))
        signals.append(f(drives[-1].a))
    return FreeEquilibrium(x, signals[1:], drives, [], [])


class State(Coordinates):
    """u = x, and drives a = sum_k A_k(x_k)."""

    def start(self) -> Start:
        return self.free.states, self.free.drives, [self.input, *self.free.states[:-1]]

    def driven(self, l: int, a: Batch, pieces: tuple[Piece, ...]) -> Drive:
        return Drive(a, pieces)

    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        return self.energy.respond(drive.a, t, self.activations[l])

    def feedback(self, l: int, u: Batch, drive: Drive) -> Batch:
        return self.energy.feedback(u, drive.a, self.activations[l])

    def terms(
        self, l: int, edge: int, message: Batch, signals: Sequence[Batch], drive: Drive, weights: Weights
    ) -> list[Term]:
        terms, free = super().terms(l, edge, message, signals, drive, weights), self.free
        if free.feedback and weights.free:  # w_0 m0 x0 of the node at strength 0
            source, n = self.edges[l][edge][0], free.inputs.shape[0]
            below = free.states[source - 1][:n] if source else free.inputs
            m0, piece = free.feedback[l][:n], first(free.drives[l].pieces[edge], n)
            terms.append(Term(weights.scales[l] * (weights.free * m0), below, piece))
        return terms
