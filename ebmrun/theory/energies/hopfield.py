"""The continuous Hopfield energy: E = G(x) - <x, a> (Hopfield 1984; Scellier & Bengio 2017 for EP)."""

from __future__ import annotations

from collections.abc import Callable

from ebmrun.theory.activations import Activation
from ebmrun.theory.energies.differences import ExactDisplacement
from ebmrun.theory.energies.energy import Batch, Energy


class Hopfield(Energy, ExactDisplacement):
    """It sends its state down as it is, so that a free phase has to settle; that equilibrium tends to the forward pass
    as the feedback gain tends to 0 (Xie & Seung 2003)."""

    jumps = False

    def value(self, x: Batch, a: Batch, f: Activation) -> Batch:
        return f.primal(x) - x * a

    def respond(self, a: Batch, t: Batch, f: Activation) -> Batch:
        return f(a + t)

    def feedback(self, x: Batch, a: Batch, f: Activation) -> Batch:
        return x

    def displacement(self, x0: Batch, a0: Batch, t0: Batch, da: Batch, dt: Batch, f: Activation) -> Batch:
        return f.increment(a0 + t0, da + dt)

    def around(self, x0: Batch, a0: Batch, t0: Batch, f: Activation) -> Callable[[Batch, Batch], Batch]:
        increment = f.around(a0 + t0)
        return lambda da, dt: increment(da + dt)

    def displacement_feedback(self, x0: Batch, a0: Batch, dx: Batch, da: Batch, f: Activation) -> Batch:
        return dx
