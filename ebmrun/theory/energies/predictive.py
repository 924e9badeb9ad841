"""Predictive coding: E = ||x - f(a)||^2 / 2 (Rao & Ballard 1999; Whittington & Bogacz 2017)."""

from __future__ import annotations

from ebmrun.theory.energies.energy import Batch, Energy
from ebmrun.theory.units import Unit


class Predictive(Energy):
    """Its free equilibrium is the forward pass, exactly; its feedback is the prediction error through f'."""

    def value(self, x: Batch, a: Batch, f: Unit) -> Batch:
        return (x - f(a)).square() / 2

    def respond(self, a: Batch, t: Batch, f: Unit) -> Batch:
        return f(a) + t

    def feedback(self, x: Batch, a: Batch, f: Unit) -> Batch:
        y = f(a)
        return f.pullback(y, x - y)

    def error(self, a: Batch, rest: Batch, t: Batch, f: Unit) -> Batch:
        return t

    def error_feedback(self, e: Batch, a: Batch, rest: Batch, f: Unit) -> Batch:
        return f.pullback(rest, e)
