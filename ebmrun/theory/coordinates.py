"""Coordinates: what a relaxation moves. Its equilibria are the same in each; the precision at a weak nudge is not.

A nudge of strength lambda displaces the states by about lambda. Kept inside x, that displacement loses all digits that
x does not leave it; kept as a number of its own, it loses none.

    State          u = x
    Error          u = x - f(a), relative to what the present drive alone would give (free equilibrium: u = 0)
    Displacement   u = x - x0, relative to a free equilibrium that had to settle

The displacements from a free equilibrium are states of an energy-based model again: its maps are the linear parts of
A_l, its input and its free equilibrium are 0, and its energy is E less its tangent at (x0, a0).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.theory.energies import Energy
from ebmrun.theory.network import Network

Batch = Float[Tensor, "_ ..."]  # of any layer, with one row an example, or one a node and example
Drive = Any  # what a layer needs to know of the layers below: each kind of coordinates has its own
Term = tuple[Batch, Batch, bool]  # a message, a signal, and whether the map's constant part counts


@dataclass(frozen=True)
class Free:
    """A free equilibrium, or a forward pass: the inputs, and for layers l = 0..L-1 counting from the input the states
    x_l = respond(a_l, t_l), the drives a_l, and the messages t_l received and m_l sent, None where all are zero."""

    inputs: Batch
    states: list[Batch]
    drives: list[Batch]
    received: list[Batch] | None = None
    sent: list[Batch] | None = None
    nodes: int = 1

    def repeat(self, nodes: int) -> Free:
        """The same for several nodes along the batch axis; inputs and messages sent, which only the learning rule asks
        for, once for all nodes, stay as they are."""
        if nodes == 1:
            return self

        def stacked(parts: Any) -> Any:
            return parts and [each.repeat(nodes, *[1] * (each.ndim - 1)) for each in parts]

        return Free(self.inputs, stacked(self.states), stacked(self.drives), stacked(self.received), self.sent, nodes)


class Coordinates(ABC):
    """The variables u_l around a free equilibrium, and the functions that a relaxation asks for."""

    starts_at_zero = True

    def __init__(self, network: Network, energy: Energy, free: Free) -> None:
        self.maps, self.units = network.maps, network.units
        self.energy, self.free = energy, free

    @abstractmethod
    def start(self) -> tuple[list[Batch], list[Drive], list[Batch]]:
        """The variables, the drives, and the signals that made the drives (the first is the input) at ``free``."""

    @abstractmethod
    def drive(self, l: int, signal: Batch) -> Drive:
        """The drive of layer l by the signal of the layer below."""

    @abstractmethod
    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        """The value of u_l that answers a drive and a message."""

    @abstractmethod
    def feedback(self, l: int, u: Batch, drive: Drive) -> Batch:
        """The message that layer l sends down."""

    @abstractmethod
    def signal(self, l: int, u: Batch, drive: Drive) -> Batch:
        """What layer l sends up."""

    @abstractmethod
    def state(self, l: int, u: Batch, drive: Drive) -> Batch:
        """x_l."""

    @abstractmethod
    def place(self, l: int, x: Batch, drive: Drive) -> Batch:
        """The value of u_l at which the state is x."""

    def presynaptic(self, l: int, signal: Batch) -> Batch:
        """x_{l-1}, from the signal of the layer below."""
        return signal

    def free_term(self, l: int, signal: Batch, coefficients: Sequence[float], free_coefficient: float) -> Term | None:
        """What the free equilibrium's own messages add to the learning rule, where it has any."""
        return None


class State(Coordinates):
    """u = x, and drives a = A(x)."""

    starts_at_zero = False

    def start(self) -> tuple[list[Batch], list[Drive], list[Batch]]:
        return self.free.states, self.free.drives, [self.free.inputs, *self.free.states[:-1]]

    def drive(self, l: int, signal: Batch) -> Batch:
        return self.maps[l](signal)

    def respond(self, l: int, drive: Batch, t: Batch) -> Batch:
        return self.energy.respond(drive, t, self.units[l])

    def feedback(self, l: int, u: Batch, drive: Batch) -> Batch:
        return self.energy.feedback(u, drive, self.units[l])

    def signal(self, l: int, u: Batch, drive: Batch) -> Batch:
        return u

    def state(self, l: int, u: Batch, drive: Batch) -> Batch:
        return u

    def place(self, l: int, x: Batch, drive: Batch) -> Batch:
        return x

    def free_term(self, l: int, signal: Batch, coefficients: Sequence[float], free_coefficient: float) -> Term | None:
        """w_0 m0 x0 of the node at strength 0."""
        if self.free.sent is None or free_coefficient == 0:
            return None
        below = self.free.states[l - 1][: len(self.free.inputs)] if l else self.free.inputs
        return free_coefficient * self.free.sent[l], below, True


class Error(Coordinates):
    """u = x - f(a) for an energy whose free equilibrium is the forward pass; a drive is the pair (a, f(a))."""

    def start(self) -> tuple[list[Batch], list[Drive], list[Batch]]:
        zeros = [torch.zeros_like(x) for x in self.free.states]
        return zeros, list(zip(self.free.drives, self.free.states)), [self.free.inputs, *self.free.states[:-1]]

    def drive(self, l: int, signal: Batch) -> tuple[Batch, Batch]:
        a = self.maps[l](signal)
        return a, self.units[l](a)

    def respond(self, l: int, drive: tuple[Batch, Batch], t: Batch) -> Batch:
        return self.energy.error(*drive, t, self.units[l])

    def feedback(self, l: int, u: Batch, drive: tuple[Batch, Batch]) -> Batch:
        return self.energy.error_feedback(u, *drive, self.units[l])

    def signal(self, l: int, u: Batch, drive: tuple[Batch, Batch]) -> Batch:
        return drive[1] + u

    def state(self, l: int, u: Batch, drive: tuple[Batch, Batch]) -> Batch:
        return drive[1] + u

    def place(self, l: int, x: Batch, drive: tuple[Batch, Batch]) -> Batch:
        return x - drive[1]


class Displacement(Coordinates):
    """u = x - x0; a drive is the increment a - a0, and messages are those beyond the free ones."""

    def start(self) -> tuple[list[Batch], list[Drive], list[Batch]]:
        zeros = [torch.zeros_like(x) for x in self.free.states]
        unmoved = self.free.inputs.new_zeros(()).expand_as(self.free.inputs)
        return zeros, [torch.zeros_like(a) for a in self.free.drives], [unmoved, *zeros[:-1]]

    def drive(self, l: int, signal: Batch) -> Batch:
        return self.maps[l].linear(signal)

    def respond(self, l: int, drive: Batch, t: Batch) -> Batch:
        x, a, received = self.free.states[l], self.free.drives[l], cast("list[Batch]", self.free.received)[l]
        return self.energy.displacement(x, a, received, drive, t, self.units[l])

    def feedback(self, l: int, u: Batch, drive: Batch) -> Batch:
        return self.energy.displacement_feedback(
            self.free.states[l], self.free.drives[l], u, drive, self.units[l])

    def signal(self, l: int, u: Batch, drive: Batch) -> Batch:
        return u

    def state(self, l: int, u: Batch, drive: Batch) -> Batch:
        return self.free.states[l] + u

    def place(self, l: int, x: Batch, drive: Batch) -> Batch:
        return x - self.free.states[l]

    def presynaptic(self, l: int, signal: Batch) -> Batch:
        return self.free.states[l - 1] + signal if l else self.free.inputs

    def free_term(self, l: int, signal: Batch, coefficients: Sequence[float], free_coefficient: float) -> Term | None:
        """sum_k w_k m0 (x_k - x0): with m_k x_k = (m_k - m0) x_k + m0 (x_k - x0) + m0 x0 and weights that sum to 0."""
        if l == 0:
            return None
        shifts = signal.unflatten(0, (self.free.nodes, -1))
        shift = sum(w * each for w, each in zip(coefficients, shifts))
        return cast("list[Batch]", self.free.sent)[l], shift, False
