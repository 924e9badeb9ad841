"""What an energy is: three functions of a state x and a drive a, for a layer of units f.

    value(x, a)    = E(x, a)
    respond(a, t)  = argmin_x  E(x, a) - <x, t>      the state that answers drive a and the message t from above
    feedback(x, a) = -dE/da                          the message that the layer sends down

An energy may supply ``value`` alone: autograd and Newton's method then give the other two. The four functions of small
differences below have plain subtractions as their default. An energy overrides them only to keep its precision when a
nudge is so weak that x and its displacement no longer fit into one floating-point number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.errors import ConfigError, RunError
from ebmrun.theory.units import Unit

Batch = Float[Tensor, "batch *units"]


@dataclass(frozen=True)
class Energy(ABC):
    """An energy with its feedback gain gamma in (0, 1]: layer l of L counts gamma^(l - L) in the internal energy, which
    scales every message to the layer below by gamma (Xie & Seung 2003). Raises ConfigError for another gain."""

    feedback_gain: float = 1.0

    def __post_init__(self) -> None:
        gain = self.feedback_gain
        if isinstance(gain, bool) or not isinstance(gain, (int, float)) or not 0 < gain <= 1:
            raise ConfigError(f"energy.feedback_gain={gain} must be a number in (0, 1]: use 1 for full feedback")

    @abstractmethod
    def value(self, x: Batch, a: Batch, f: Unit) -> Batch:
        """E(x, a): one number a unit, or one an example; whatever follows the batch axis is summed."""

    def respond(self, a: Batch, t: Batch, f: Unit) -> Batch:
        """argmin_x E(x, a) - <x, t> by a safeguarded Newton iteration from f(a), for an energy that is elementwise,
        smooth and strictly convex in x. Raises RunError when that does not reach stationarity."""
        with torch.enable_grad():
            x = f(a).detach()
            for _ in range(100):
                slope, curvature = self._slope(x, a.detach(), t.detach(), f)
                step = slope / curvature
                if bool((step.abs() <= 4 * torch.finfo(x.dtype).eps * (1 + x.abs())).all()):
                    break
                x = self._descend(x, step, slope, a.detach(), t.detach(), f)
            else:
                raise RunError(f"{type(self).__name__}.respond did not reach its minimum in 100 Newton steps: "
                               "supply respond(a, t, f) in closed form")
            if not (a.requires_grad or t.requires_grad):
                return x
            # One Newton step on the graph carries the derivative of the minimum (implicit function theorem).
            slope = torch.autograd.grad(self.value(x.requires_grad_(), a, f).sum(), x, create_graph=True)[0] - t
            return x.detach() - slope / curvature

    def _slope(self, x: Batch, a: Batch, t: Batch, f: Unit) -> tuple[Batch, Batch]:
        x = x.detach().requires_grad_()
        slope = torch.autograd.grad(self.value(x, a, f).sum(), x, create_graph=True)[0]
        return slope.detach() - t, torch.autograd.grad(slope.sum(), x)[0]

    def _descend(self, x: Batch, step: Batch, slope: Batch, a: Batch, t: Batch, f: Unit) -> Batch:
        """A Newton step, halved in every unit where it does not lessen the slope."""
        scale = torch.ones_like(x)
        for _ in range(50):
            trial = x - scale * step
            worse = ~(self._slope(trial, a, t, f)[0].abs() <= slope.abs())
            if not bool(worse.any()):
                break
            scale = torch.where(worse, scale / 2, scale)
        return trial

    def feedback(self, x: Batch, a: Batch, f: Unit) -> Batch:
        """-dE/da by autograd."""
        with torch.enable_grad():
            graph = a.requires_grad or x.requires_grad
            a = a if a.requires_grad else a.detach().requires_grad_()
            return -torch.autograd.grad(self.value(x, a, f).sum(), a, create_graph=graph)[0]

    # The error e = x - rest, where rest = respond(a, 0) moves with the drive.

    def error(self, a: Batch, rest: Batch, t: Batch, f: Unit) -> Batch:
        """respond(a, t) - respond(a, 0)."""
        return self.respond(a, t, f) - rest

    def error_feedback(self, e: Batch, a: Batch, rest: Batch, f: Unit) -> Batch:
        """feedback(rest + e, a)."""
        return self.feedback(rest + e, a, f)

    # The displacement dx = x - x0 from a fixed point x0 = respond(a0, t0).

    def displacement(self, x0: Batch, a0: Batch, t0: Batch, da: Batch, dt: Batch, f: Unit) -> Batch:
        """respond(a0 + da, t0 + dt) - respond(a0, t0)."""
        return self.respond(a0 + da, t0 + dt, f) - x0

    def displacement_feedback(self, x0: Batch, a0: Batch, dx: Batch, da: Batch, f: Unit) -> Batch:
        """feedback(x0 + dx, a0 + da) - feedback(x0, a0)."""
        return self.feedback(x0 + dx, a0 + da, f) - self.feedback(x0, a0, f)

    def layer_gains(self, depth: int) -> list[float]:
        """gamma^(l - L) for l = 1..L. Raises ConfigError when the largest is no floating-point number."""
        if self.feedback_gain < 1 and -(depth - 1) * math.log10(self.feedback_gain) > 300:
            raise ConfigError(f"energy.feedback_gain={self.feedback_gain} over {depth} layers overflows: use at least "
                              f"{10 ** (-300 / (depth - 1)):.1g}")
        return [self.feedback_gain ** (l - depth) for l in range(1, depth + 1)]
