"""The lifted (Fenchel-Young) energy: E = G(x) + G*(a) - <x, a>, zero where x = f(a) and positive elsewhere
(Gu, Askari & El Ghaoui 2020)."""

from __future__ import annotations

from ebmrun.theory.activations import Activation
from ebmrun.theory.energies.differences import ExactError
from ebmrun.theory.energies.energy import Batch, Energy


class Lifted(Energy, ExactError):
    """Its free equilibrium is the forward pass, exactly; its feedback is the plain error x - f(a)."""

    feedforward = True
    jumps = False

    def value(self, x: Batch, a: Batch, f: Activation) -> Batch:
        return f.primal(x) + f.dual(a) - x * a

    def respond(self, a: Batch, t: Batch, f: Activation) -> Batch:
        return f(a + t)

    def feedback(self, x: Batch, a: Batch, f: Activation) -> Batch:
        return x - f(a)

    def error(self, a: Batch, rest: Batch, t: Batch, f: Activation) -> Batch:
        return f.increment(a, t)

    def error_feedback(self, e: Batch, a: Batch, rest: Batch, f: Activation) -> Batch:
        return e
