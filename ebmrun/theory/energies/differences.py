"""Small differences between responses and between messages, as functions of small differences.

An energy that loses no digits under a weak nudge gives them itself: those of ``ExactError`` or ``ExactDisplacement``.
For others, ``Subtraction`` takes them by difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from ebmrun.theory.activations import Activation
from ebmrun.theory.energies.energy import Batch, Energy


class ExactError(ABC):
    """Differences in the error e = x - rest, where rest = respond(a, 0) moves with the drive."""

    @abstractmethod
    def error(self, a: Batch, rest: Batch, t: Batch, f: Activation) -> Batch:
        """respond(a, t) - respond(a, 0)."""

    @abstractmethod
    def error_feedback(self, e: Batch, a: Batch, rest: Batch, f: Activation) -> Batch:
        """feedback(rest + e, a)."""


class ExactDisplacement(ABC):
    """Differences in the displacement dx = x - x0 from a fixed point x0 = respond(a0, t0)."""

    @abstractmethod
    def displacement(self, x0: Batch, a0: Batch, t0: Batch, da: Batch, dt: Batch, f: Activation) -> Batch:
        """respond(a0 + da, t0 + dt) - respond(a0, t0)."""

    def around(self, x0: Batch, a0: Batch, t0: Batch, f: Activation) -> Callable[[Batch, Batch], Batch]:
        """``displacement`` at a fixed point, for many da and dt."""
        return lambda da, dt: self.displacement(x0, a0, t0, da, dt, f)

    @abstractmethod
    def displacement_feedback(self, x0: Batch, a0: Batch, dx: Batch, da: Batch, f: Activation) -> Batch:
        """feedback(x0 + dx, a0 + da) - feedback(x0, a0)."""


@dataclass(frozen=True)
class Subtraction(ExactError, ExactDisplacement):
    """The same for any energy by subtracting states, at the price of the digits that they have in common."""

    energy: Energy

    def error(self, a: Batch, rest: Batch, t: Batch, f: Activation) -> Batch:
        return self.energy.respond(a, t, f) - rest

    def error_feedback(self, e: Batch, a: Batch, rest: Batch, f: Activation) -> Batch:
        return self.energy.feedback(rest + e, a, f)

    def displacement(self, x0: Batch, a0: Batch, t0: Batch, da: Batch, dt: Batch, f: Activation) -> Batch:
        return self.energy.respond(a0 + da, t0 + dt, f) - x0

    def displacement_feedback(self, x0: Batch, a0: Batch, dx: Batch, da: Batch, f: Activation) -> Batch:
        return self.energy.feedback(x0 + dx, a0 + da, f) - self.energy.feedback(x0, a0, f)
