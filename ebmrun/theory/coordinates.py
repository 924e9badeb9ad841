"""Coordinates: what a relaxation moves. Its equilibria are the same in each; the precision at a weak nudge is not.

A nudge of strength lambda displaces the states by about lambda. Kept inside x, that displacement loses all digits that
x does not leave it; kept as a number of its own, it loses none.

    State          u = x
    Error          u = x - f(a), relative to what the present drive alone would give (free equilibrium: u = 0)
    Displacement   u = x - x0, relative to a free equilibrium that had to settle (a file of its own)

In lists, layers count from 0; ``signals`` holds the input first, and so what layer l sends up at l + 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ebmrun.theory.affine import Map, MaxPool2d, Piece
from ebmrun.theory.compliance import Compliance
from ebmrun.theory.energies.energy import Energy, ExactError, Subtraction
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Weights

Batch = Float[Tensor, "_ ..."]  # of any layer, with one row an example, or one a node and example


@dataclass(slots=True)
class Drive:
    """What a layer hears from below: the sum ``a`` of its maps (of their increments, for displacements), for each map
    the piece that its input lies on, and the ``origin`` that u counts from (for states the scalar 0)."""

    a: Batch
    pieces: tuple[Piece, ...]
    origin: Float[Tensor, "..."]


@dataclass(frozen=True)
class FreeEquilibrium:
    """States without a nudge: the inputs, and for each layer the state x_l = respond(a_l, t_l), the drive, and the
    messages t_l that it hears and m_l that it sends; the messages are left out where all are zero."""

    inputs: Batch
    states: list[Batch]
    drives: list[Drive]
    messages: list[Batch]
    feedback: list[Batch]

    def repeat(self, nodes: int) -> FreeEquilibrium:
        """The same for several nodes along the batch axis, but for the inputs and what they alone drive."""
        if nodes == 1:
            return self
        drives = [Drive(stacked(drive.a, nodes), tuple(piece if piece is None else stacked(piece, nodes)
                                                       for piece in drive.pieces), drive.origin)
                  for drive in self.drives]
        states, messages, feedback = ([stacked(each, nodes) for each in part]
                                      for part in (self.states, self.messages, self.feedback))
        return FreeEquilibrium(self.inputs, states, drives, messages, feedback)


def stacked(batch: Tensor, nodes: int) -> Tensor:
    """Copies of a batch, one after another along its first axis."""
    return batch.repeat(nodes, *[1] * (batch.ndim - 1))


Start = tuple[list[Batch], list[Drive], list[Batch]]


class Term(NamedTuple):
    """A part of dI/dtheta of one map: d<message, A(signal)>/dtheta on a piece, with or without the map's constants."""

    message: Batch
    signal: Batch
    piece: Piece
    constant: bool = True


class Coordinates(ABC):
    """The variables u_l around a free equilibrium, and the functions that a relaxation and the learning rule ask for.

    ``exact`` says that a displacement keeps its digits however small it is, ``relative`` that signals count from x0,
    ``kinked`` that feedback may jump; ``mixes`` tells the layers that take maxima of states.
    """

    exact = False
    relative = False

    def __init__(self, network: Network, energy: Energy, free: FreeEquilibrium) -> None:
        self.network, self.energy, self.free = network, energy, free
        self.edges, self.activations = network.edges, network.activations
        nodes = len(free.states[0]) // len(free.inputs) if network.adds_input else 1
        self.input = stacked(free.inputs, nodes) if nodes > 1 else free.inputs
        # gamma^(h_k - h_l) for each edge from layer k to layer l
        # Displacements from an equilibrium that had to settle count from winners, not from mixtures.
        self.mixes = [energy.feedforward and any(source and isinstance(affine, MaxPool2d) for source, affine in edges)
                      for edges in self.edges]
        self.kinked = any(self.mixes) or not self.relative and energy.jumps and any(f.kinks for f in self.activations)
        self.gains = [[energy.feedback_gain**drop for drop in drops] for drops in network.drops]

    @abstractmethod
    def start(self) -> Start:
        """The variables at the free equilibrium, the drives, and the signals that made these."""

    @abstractmethod
    def drive(self, l: int, signals: Sequence[Batch]) -> Drive:
        """The drive of layer l by the signals from below."""

    @abstractmethod
    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        """The value of u_l that answers a drive and a message."""

    @abstractmethod
    def feedback(self, l: int, u: Batch, drive: Drive) -> Batch:
        """The message that layer l sends down."""

    @abstractmethod
    def beside(self, l: int, drive: Drive, a: Batch) -> Drive:
        """The drive with another sum ``a``, at the same variable."""

    @abstractmethod
    def down(self, l: int, edge: int, message: Batch, drive: Drive) -> Batch:
        """What a message of layer l is below one of its maps: J^T message, J being the map's linear part."""

    @abstractmethod
    def terms(
        self, l: int, edge: int, message: Batch, signals: Sequence[Batch], drive: Drive, weights: Weights
    ) -> Iterator[Term]:
        """The learning rule of one map: terms that add up to scale sum_k w_k (dA/dtheta)^T m_l at the nodes k."""

    def rest(self, l: int) -> Batch:
        """The message that u_l answers where it starts."""
        if self.free.messages and not self.relative:
            return self.free.messages[l]
        return torch.zeros_like(self.free.states[l])

    @cached_property
    def compliance(self) -> Compliance:
        """How drives give way to their own feedback."""
        return Compliance(self.network, self.gains, self.free.states)

    def total(self, l: int, drive: Drive) -> Batch:
        """a_l."""
        return drive.a

    def rested(self, l: int, drive: Drive) -> Batch:
        """respond(a_l, 0)."""
        a = self.total(l, drive)
        return self.energy.respond(a, torch.zeros_like(a), self.activations[l])

    def state(self, u: Batch, drive: Drive) -> Batch:
        """x_l."""
        return drive.origin + u if drive.origin.ndim else u

    def from_state(self, x: Batch, drive: Drive) -> Batch:
        """The value of u_l at which the state is x."""
        return x - drive.origin if drive.origin.ndim else x

    def signal(self, u: Batch, drive: Drive) -> Batch:
        """What layer l sends up."""
        return u if self.relative else self.state(u, drive)


def summed(edges: list[tuple[int, Map]], signals: Sequence[Batch]) -> tuple[Batch, tuple[Piece, ...]]:
    """The sum of maps at their signals, and the pieces that these lie on."""
    if len(edges) == 1:
        source, affine = edges[0]
        a, piece = affine.trace(signals[source])
        return a, (piece,)
    parts, pieces = zip(*(affine.trace(signals[source]) for source, affine in edges))
    return sum(parts[1:], parts[0]), pieces


def first(piece: Int64[Tensor, "rows ..."] | None, examples: int) -> Piece:
    """The piece of one node, for what hears the input alone."""
    return piece if piece is None else piece[:examples]


def learned(free: FreeEquilibrium, source: int, message: Batch, signals: Sequence[Batch], piece: Piece,
            weights: Weights) -> Term:
    """sum_k w_k m_k x_k. The input is the same at every node: there one product serves them all."""
    if source:
        return Term(weights.rows(message), signals[source], piece)
    return Term(weights.sum(message), free.inputs, first(piece, len(free.inputs)))


class State(Coordinates):
    """u = x, and drives a = sum_k A_k(x_k)."""

    def start(self) -> Start:
        return self.free.states, self.free.drives, [self.input, *self.free.states[:-1]]

    def drive(self, l: int, signals: Sequence[Batch]) -> Drive:
        return Drive(*summed(self.edges[l], signals), self.free.drives[l].origin)

    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        return self.energy.respond(drive.a, t, self.activations[l])

    def feedback(self, l: int, u: Batch, drive: Drive) -> Batch:
        return self.energy.feedback(u, drive.a, self.activations[l])

    def beside(self, l: int, drive: Drive, a: Batch) -> Drive:
        return Drive(a, drive.pieces, drive.origin)

    def down(self, l: int, edge: int, message: Batch, drive: Drive) -> Batch:
        return self.edges[l][edge][1].adjoint(message, drive.pieces[edge])

    def terms(
        self, l: int, edge: int, message: Batch, signals: Sequence[Batch], drive: Drive, weights: Weights
    ) -> Iterator[Term]:
        source, free, n = self.edges[l][edge][0], self.free, len(self.free.inputs)
        yield learned(free, source, message, signals, drive.pieces[edge], weights)
        if free.feedback and weights.free:  # w_0 m0 x0 of the node at strength 0
            below = free.states[source - 1][:n] if source else free.inputs
            m0, piece = free.feedback[l][:n], first(free.drives[l].pieces[edge], n)
            yield Term(weights.scale * (weights.free * m0), below, piece)


class Error(Coordinates):
    """u = x - f(a), for an energy whose free equilibrium is the forward pass."""

    def __init__(self, network: Network, energy: Energy, free: FreeEquilibrium) -> None:
        super().__init__(network, energy, free)
        self.exact = isinstance(energy, ExactError)
        self.form = energy if isinstance(energy, ExactError) else Subtraction(energy)

    def start(self) -> Start:
        free, zeros = self.free, [torch.zeros_like(x) for x in self.free.states]
        drives = [Drive(drive.a, drive.pieces, x) for drive, x in zip(free.drives, free.states)]
        return zeros, drives, [self.input, *free.states[:-1]]

    def drive(self, l: int, signals: Sequence[Batch]) -> Drive:
        a, pieces = summed(self.edges[l], signals)
        return Drive(a, pieces, self.activations[l](a))

    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        return self.form.error(drive.a, drive.origin, t, self.activations[l])

    def feedback(self, l: int, u: Batch, drive: Drive) -> Batch:
        return self.form.error_feedback(u, drive.a, drive.origin, self.activations[l])

    def beside(self, l: int, drive: Drive, a: Batch) -> Drive:
        return Drive(a, drive.pieces, self.activations[l](a))

    def rested(self, l: int, drive: Drive) -> Batch:
        return drive.origin

    def down(self, l: int, edge: int, message: Batch, drive: Drive) -> Batch:
        return self.edges[l][edge][1].adjoint(message, drive.pieces[edge])

    def terms(
        self, l: int, edge: int, message: Batch, signals: Sequence[Batch], drive: Drive, weights: Weights
    ) -> Iterator[Term]:
        yield learned(self.free, self.edges[l][edge][0], message, signals, drive.pieces[edge], weights)
