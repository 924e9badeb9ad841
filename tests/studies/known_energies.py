"""Energies whose limit theory knows, for certificates to be held against.

**Backprop.** Let E >= 0 be 0 where x = f(a), and only there. Then the forward pass is the free equilibrium, and no
layer sends feedback in it. Differentiating dE/dx = 0 along x = f(a) gives E_xx f' + E_xa = 0. A weak message t moves
the state by e = t / E_xx, and the layer sends -dE/da = -E_xa e = E_xx f' e = f' t: backprop's, whatever E_xx is. A
scale of E changes the displacement alone, and with it the bias of a nudge.

**Own equilibrium.** An energy whose least value is 0 at x = h(a) is that of a network with units h: its free
equilibrium is the forward pass of that network, and the gradient there is backprop in that network. An energy that
sends feedback at rest settles elsewhere than any forward pass.
"""

from __future__ import annotations

from ebmrun.theory.energies import ByValue, Energy, Hopfield, Lifted, Predictive


class Twice(ByValue):
    """2 (x - f)^2: four times the curvature."""

    feedforward = True

    def value(self, x, a, f):
        return 2 * (x - f(a)) ** 2


class Half(Predictive):
    """(x - f)^2 / 4, in closed form."""

    def value(self, x, a, f):
        return super().value(x, a, f) / 2

    def respond(self, a, t, f):
        return f(a) + 2 * t

    def feedback(self, x, a, f):
        return super().feedback(x, a, f) / 2

    def error(self, a, rest, t, f):
        return 2 * t

    def error_feedback(self, e, a, rest, f):
        return super().error_feedback(e, a, rest, f) / 2


class Quartic(ByValue):
    """e^2 / 2 + e^4 / 4 for e = x - f."""

    feedforward = True

    def value(self, x, a, f):
        error = x - f(a)
        return error**2 / 2 + error**4 / 4


class Skewed(ByValue):
    """e^2 / 2 + e^3 / 6 + e^4 / 8 for e = x - f: steeper on one side, with a curvature 1 + e + 3 e^2 / 2 > 0."""

    feedforward = True

    def value(self, x, a, f):
        error = x - f(a)
        return error**2 / 2 + error**3 / 6 + error**4 / 8


class Precise(ByValue):
    """(1 + a^2) (x - f)^2 / 2: a precision that the drive sets."""

    feedforward = True

    def value(self, x, a, f):
        return (1 + a**2) * (x - f(a)) ** 2 / 2


class TripleLifted(Lifted):
    """Three times the Fenchel-Young energy, in closed form."""

    def value(self, x, a, f):
        return 3 * super().value(x, a, f)

    def respond(self, a, t, f):
        return f(a + t / 3)

    def feedback(self, x, a, f):
        return 3 * (x - f(a))

    def error(self, a, rest, t, f):
        return f.increment(a, t / 3)

    def error_feedback(self, e, a, rest, f):
        return 3 * e


class Shrunk(ByValue):
    """(x - 0.9 f)^2 / 2: the network of units 0.9 f."""

    def value(self, x, a, f):
        return (x - 0.9 * f(a)) ** 2 / 2


class Moved(Energy):
    """(x - h(f))^2 / 2 for h(y) = slope y + shift, in closed form: the network of units h(f)."""

    slope, shift = 1.0, 0.0

    def value(self, x, a, f):
        return (x - self.respond(a, 0, f)) ** 2 / 2

    def respond(self, a, t, f):
        return self.slope * f(a) + self.shift + t

    def feedback(self, x, a, f):
        return f.pullback(f(a), self.slope * (x - self.respond(a, 0, f)))


class HardlyShrunk(Moved):
    """h(y) = 0.999 y."""

    slope = 0.999


class Shifted(Moved):
    """h(y) = y + 0.1."""

    shift = 0.1


class Decaying(Energy):
    """(x - f)^2 / 2 + x^2 / 20: its states rest at f / 1.1 where no message comes, and send feedback there."""

    def value(self, x, a, f):
        return (x - f(a)) ** 2 / 2 + x**2 / 20

    def respond(self, a, t, f):
        return (f(a) + t) / 1.1

    def feedback(self, x, a, f):
        return f.pullback(f(a), x - f(a))


class Deaf(Predictive):
    """Its feedback leaves out f'."""

    def feedback(self, x, a, f):
        return x - f(a)

    def error_feedback(self, e, a, rest, f):
        return e


class Doubled(Predictive):
    """Its feedback is twice that of its value."""

    def feedback(self, x, a, f):
        return 2 * super().feedback(x, a, f)

    def error_feedback(self, e, a, rest, f):
        return 2 * super().error_feedback(e, a, rest, f)


BACKPROP = (Predictive, Twice, Half, Quartic, Skewed, Precise, Lifted, TripleLifted)
OWN = (Shrunk, HardlyShrunk, Shifted, Decaying, Hopfield)
CONTRADICTORY = (Deaf, Doubled)
