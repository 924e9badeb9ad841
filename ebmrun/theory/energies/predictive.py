"""Predictive coding: E = ||x - f(a)||^2 / 2 (Rao & Ballard 1999; Whittington & Bogacz 2017)."""

from __future__ import annotations

from ebmrun.theory.activations import Activation
from ebmrun.theory.energies.differences import ExactError
from ebmrun.theory.energies.energy import Batch, Energy


class Predictive(Energy, ExactError):
    """Its free equilibrium is the forward pass, exactly; its feedback is the prediction error through f'."""

    feedforward = True

    def value(self, x: Batch, a: Batch, f: Activation) -> Batch:
        return (x - f(a)).square() / 2

    def respond(self, a: Batch, t: Batch, f: Activation) -> Batch:
        return f(a) + t

    def feedback(self, x: Batch, a: Batch, f: Activation) -> Batch:
        y = f(a)
        return f.pullback(y, x - y)

    def error(self, a: Batch, rest: Batch, t: Batch, f: Activation) -> Batch:
        return t

    def error_feedback(self, e: Batch, a: Batch, rest: Batch, f: Activation) -> Batch:
        return f.pullback(rest, e)
