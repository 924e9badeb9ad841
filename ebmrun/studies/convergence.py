"""The order p at which an error falls with a strength h: error = c h^p as h tends to 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from ebmrun.theory.learning import EnergyLearning

FEWEST = 4  # points of a fit; with two parameters they leave two degrees of freedom
ABOVE_NOISE = 20.0  # an error this many times the round-off in it shows its law


def at(learning: EnergyLearning, knob: str, value: float) -> EnergyLearning:
    """The member with h, its ``nudge.strength`` or its ``energy.feedback_gain``, at a value."""
    part, key = knob.split(".")
    return replace(learning, **{part: replace(getattr(learning, part), **{key: value})})


@dataclass(frozen=True)
class Fit:
    """A fitted order with its 95% confidence interval, the strengths that it rests on, and the smallest error of all.
    ``reaches_floor`` says that the law still makes up a third of the error two strengths above the smallest one, so
    that round-off ends the fall and no other limit."""

    order: float
    low: float
    high: float
    points: tuple[float, ...]
    floor: float
    reaches_floor: bool

    def confirms(self, predicted: float, margin: float = 0.25) -> bool:
        """Whether the whole interval lies within ``margin`` of a predicted order (two one-sided tests). Orders are
        whole numbers: an interval within a quarter of one excludes all others."""
        return predicted - margin < self.low and self.high < predicted + margin


def fit_order(strengths: Sequence[float] | np.ndarray, errors: Sequence[float] | np.ndarray) -> Fit | None:
    """The slope of log error over log strength by least squares, on the branch on which the error falls with the
    strength; None where fewer than four points lie on it.

    Left out are, at the small end, strengths below that of the smallest error, where round-off makes the error rise
    again or keeps it where it is, and errors within twenty times the round-off in them (unless all but a few are: a
    curve that never falls is fitted whole); at the large end, as many strengths as makes the interval narrowest, for
    there higher orders bend the line and kinks break it; the interval does not count that choice. An error of exactly
    0 has no logarithm and is left out. Raises ValueError for strengths and errors that have different lengths, for
    strengths that are not positive and finite, and for errors that are negative or not finite.
    """
    if len(strengths) != len(errors):
        raise ValueError(f"strengths and errors have different lengths ({len(strengths)} and {len(errors)})")
    if not all(0 < h < math.inf and 0 <= e < math.inf for h, e in zip(strengths, errors)):
        raise ValueError("strengths must be positive and finite, errors 0 or more and finite")
    h, e = (np.asarray(each, dtype=float)[np.argsort(strengths)] for each in (strengths, errors))
    h, e = h[e > 0], e[e > 0]
    if len(h) < FEWEST:
        return None
    least = int(e.argmin())
    # Errors below that rise by so much show how round-off falls with the strength; flat ones may be of any kind.
    rise = e[0] / e[least]
    power = math.log(rise) / math.log(h[least] / h[0]) if rise > ABOVE_NOISE else 0.0
    h, e = h[least:], e[least:]
    clear = e > ABOVE_NOISE * e[0] * (h[0] / h) ** power
    first = int(np.argmax(clear)) if clear.any() else 0
    if len(h) - first < FEWEST:
        first = 0
    fits = [_line(h, e, slice(first, last)) for last in range(first + FEWEST, len(h) + 1)]
    return min(fits, key=lambda fit: fit.high - fit.low, default=None)


def _line(h: np.ndarray, e: np.ndarray, window: slice) -> Fit:
    """The fit of a window of a branch that begins with its smallest error."""
    x, y = np.log(h[window]), np.log(e[window])
    centre, height = x.mean(), y.mean()
    x, y = x - centre, y - height
    order = float(x @ y / (x @ x))
    freedom = len(x) - 2
    half = float(student.ppf(0.975, freedom) * np.sqrt(np.square(y - order * x).sum() / freedom / (x @ x)))
    low = height + order * (math.log(h[2]) - centre)
    return Fit(order, order - half, order + half, tuple(h[window].tolist()), float(e[0]),
               bool(low >= math.log(e[2] / 3)))
