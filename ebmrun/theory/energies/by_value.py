"""An energy of which only the value is written down: autograd, Newton's method and quadrature derive the rest.

The difference of two nearly equal slopes loses the digits that they have in common. The same difference is an integral,
which loses none:

    E_x(x + dx, a) - E_x(x, a) = dx int_0^1 E_xx(x + s dx, a) ds

So each difference is taken in both ways: by quadrature, unless subtraction contradicts that beyond its own round-off.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.errors import RunError
from ebmrun.theory.activations import Activation
from ebmrun.theory.energies.differences import ExactDisplacement, ExactError
from ebmrun.theory.energies.energy import Batch, Energy

Numbers = Float[Tensor, "..."]
STEPS = 100
RADAU = 1 / 4  # int_0^1 c ds = 3/4 c(1/3) + 1/4 c(1), exact for quadratic c


class ByValue(Energy, ExactError, ExactDisplacement):
    """``value`` has to be elementwise, smooth and strictly convex in x."""

    @abstractmethod
    def value(self, x: Batch, a: Batch, f: Activation) -> Batch:
        """E(x, a): one number a unit, or one an example; whatever follows the batch axis is summed."""

    def respond(self, a: Batch, t: Batch, f: Activation) -> Batch:
        """argmin_x E(x, a) - <x, t> by Newton's method from f(a). Raises RunError when that finds none."""
        start = f(a).detach()
        before = self._slope(start, a.detach(), f)
        x = start + self._climb(start, a.detach(), t.detach() - before, f, before)
        if not (a.requires_grad or t.requires_grad):
            return x
        # One Newton step on the graph carries the derivative of the minimum (implicit function theorem).
        with torch.enable_grad():
            (slope,) = self._slopes([x.requires_grad_()], x, a, f)
            return x.detach() - (slope - t) / torch.autograd.grad(slope.sum(), x, retain_graph=True)[0]

    def feedback(self, x: Batch, a: Batch, f: Activation) -> Batch:
        """-dE/da by autograd."""
        return derived_feedback(self, x, a, f)

    def error(self, a: Batch, rest: Batch, t: Batch, f: Activation) -> Batch:
        """respond(a, t) - rest by Newton's method from there. Raises RunError when that finds none."""
        return self._climb(rest, a, t, f, rest.new_zeros(()))

    def error_feedback(self, e: Batch, a: Batch, rest: Batch, f: Activation) -> Batch:
        """feedback(rest + e, a)."""
        end = rest + e
        with torch.enable_grad():
            at = [torch.cat((torch.add(rest, e, alpha=1 / 3), end, end)).requires_grad_(),
                  torch.cat((a, a, a)).requires_grad_()]
            slopes, sent = self._slopes(at, at[0], at[1], f)
            ways = torch.cat((e, e, torch.copysign(1 + end.abs(), e)))
            near, last, size = torch.autograd.grad(slopes, at[1], ways)[0].chunk(3)
        noise = _round_off(size.abs().amax(1, keepdim=True))  # f may couple units, whose parts then cancel here
        return _exact(sent.detach().chunk(3)[2], torch.lerp(near, last, RADAU), noise).neg_()

    def displacement(self, x0: Batch, a0: Batch, t0: Batch, da: Batch, dt: Batch, f: Activation) -> Batch:
        """respond(a0 + da, t0 + dt) - respond(a0, t0): the drive moves first, then the state. Raises RunError."""
        by_drive, _ = self._turned(x0, a0, torch.zeros_like(x0), da, f)
        return self._climb(x0, a0 + da, dt - by_drive, f, self._slope(x0, a0 + da, f))

    def displacement_feedback(self, x0: Batch, a0: Batch, dx: Batch, da: Batch, f: Activation) -> Batch:
        """feedback(x0 + dx, a0 + da) - feedback(x0, a0)."""
        return self._turned(x0, a0, dx, da, f)[1].neg_()

    def _climb(self, x: Batch, a: Batch, rise: Batch, f: Activation, before: Numbers) -> Batch:
        """dx with E_x(x + dx, a) - before = rise, where before = E_x(x, a), from the guess that the curvature is 1. A
        Newton step is halved in every unit where it has not brought the slope nearer; once all are there within
        round-off, one more is taken, by what is left."""
        drives, dx, gap = torch.cat((a, a)), rise, rise.abs()
        best: Batch | float = 0.0
        for _ in range(STEPS):
            end = x + dx
            with torch.enable_grad():
                at = torch.cat((torch.add(x, dx, alpha=1 / 3), end)).requires_grad_()
                (slopes,) = self._slopes([at], at, drives, f)
                near, last = torch.autograd.grad(slopes, at, torch.ones_like(at))[0].chunk(2)
            noise = _round_off((1 + end.abs()).mul_(last).add_(before.abs()))
            integral = torch.lerp(near, last, RADAU).mul_(dx)
            miss = _exact(slopes.detach().chunk(2)[1] - before, integral, noise).sub_(rise)
            newton, left = miss / last, miss.abs()
            if float((left - noise).amax()) <= 0:  # and not where it is no number
                return dx - newton
            better = left <= gap
            step = torch.where(better, newton, (best - dx) / 2)
            best, gap = torch.where(better, dx, best), torch.where(better, left, gap)
            dx = best - step
        raise RunError(f"{type(self).__name__}.respond did not reach its minimum in {STEPS} Newton steps: derive from "
                       "Energy and supply respond(a, t, f) and feedback(x, a, f) in closed form")

    def _turned(self, x: Batch, a: Batch, dx: Batch, da: Batch, f: Activation) -> tuple[Batch, Batch]:
        """By how much E_x and E_a differ from (x, a) to (x + dx, a + da), by the midpoint rule."""
        to, zero = (x + dx, a + da), torch.zeros_like(x)
        with torch.enable_grad():
            at = [torch.cat((start, torch.add(start, way, alpha=0.5), end, end)).requires_grad_()
                  for start, way, end in zip((x, a), (dx, da), to)]
            slopes = self._slopes(at, at[0], at[1], f)
            ways = [torch.cat((zero, dx, 1 + to[0].abs(), zero)), torch.cat((zero, da, zero, 1 + to[1].abs()))]
            rates = torch.autograd.grad(slopes, at, ways)
        turned = []
        for slope, rate in zip(slopes, rates):
            (before, _, after, _), (_, integral, by_state, by_drive) = slope.detach().chunk(4), rate.chunk(4)
            turned.append(_exact(after - before, integral, _round_off(by_state.abs() + by_drive.abs() + before.abs())))
        return turned[0], turned[1]

    def _slope(self, x: Batch, a: Batch, f: Activation) -> Batch:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return self._slopes([x], x, a, f)[0].detach()

    def _slopes(self, by: list[Tensor], x: Tensor, a: Tensor, f: Activation) -> tuple[Tensor, ...]:
        """The derivatives of E(x, a) by some of its arguments, on the graph."""
        energy = self.value(x, a, f)
        return torch.autograd.grad(energy, by, torch.ones_like(energy), create_graph=True)


def _round_off(size: Numbers) -> Numbers:
    """What rounding can do to a slope that changes by ``size`` as its arguments change by themselves and by 1, about
    the largest number that a formula for it need contain."""
    return size.mul_(4 * torch.finfo(size.dtype).eps)


def _exact(plain: Batch, integral: Batch, noise: Numbers) -> Batch:
    """A difference by quadrature, as far as its subtraction leaves that open."""
    return torch.clamp(integral, plain - noise, plain + noise)


def derived_feedback(energy: Energy, x: Batch, a: Batch, f: Activation) -> Batch:
    """-dE/da of any energy by autograd of its value."""
    with torch.enable_grad():
        graph = a.requires_grad or x.requires_grad
        a = a if a.requires_grad else a.detach().requires_grad_()
        return -torch.autograd.grad(energy.value(x, a, f).sum(), a, create_graph=graph)[0]
