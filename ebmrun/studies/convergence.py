"""The order p at which an error falls with a strength h: error = c h^p as h tends to 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from ebmrun.theory.algorithm import EnergyLearning

FEWEST = 4  # points of a fit; with two parameters they leave two degrees of freedom
ABOVE_FLOOR = 20.0  # an error this many times the smallest is no longer round-off


def at(learning: EnergyLearning, knob: str, value: float) -> EnergyLearning:
    """The member with h, its ``nudge.strength`` or its ``energy.feedback_gain``, at a value."""
    part, key = knob.split(".")
    return replace(learning, **{part: replace(getattr(learning, part), **{key: value})})


@dataclass(frozen=True)
class Fit:
    """A fitted order with its 95% confidence interval, the strengths that it rests on, and the smallest error of all:
    the floor, if the errors reached it."""

    order: float
    low: float
    high: float
    points: tuple[float, ...]
    floor: float

    def confirms(self, predicted: float, margin: float = 0.25) -> bool:
        """Whether the whole interval lies within ``margin`` of a predicted order (two one-sided tests). Orders are
        whole numbers: an interval within a quarter of one excludes all others."""
        return predicted - margin < self.low and self.high < predicted + margin


def fit_order(strengths: Sequence[float] | np.ndarray, errors: Sequence[float] | np.ndarray) -> Fit:
    """The slope of log error over log strength by least squares.

    Left out are, at the small end, errors within twenty times the smallest one, where round-off takes part (unless all
    but a few are: a curve that never falls is fitted whole); at the large end, as many strengths as makes the interval
    narrowest, for there the higher orders bend the line; the interval does not count that choice. Raises ValueError for
    fewer than four points, and for strengths or errors that are not positive and finite: an error of exactly 0 has no
    logarithm.
    """
    if len(strengths) != len(errors) or len(strengths) < FEWEST:
        raise ValueError(f"{len(strengths)} strengths and {len(errors)} errors: give as many, and {FEWEST} or more")
    if not all(0 < value < math.inf for value in (*strengths, *errors)):
        raise ValueError("strengths and errors must be positive and finite")
    h, e = (np.asarray(each, dtype=float)[np.argsort(strengths)] for each in (strengths, errors))
    floor = float(e.min())
    falling = int(np.argmax(e > ABOVE_FLOOR * floor)) if (e > ABOVE_FLOOR * floor).any() else 0
    if len(h) - falling < FEWEST:
        falling = 0
    windows = [slice(falling, last) for last in range(falling + FEWEST, len(h) + 1)]
    fits = [_line(h[window], e[window], floor) for window in windows]
    return min(fits, key=lambda fit: fit.high - fit.low)


def _line(h: np.ndarray, e: np.ndarray, floor: float) -> Fit:
    x, y = np.log(h) - np.log(h).mean(), np.log(e) - np.log(e).mean()
    order = float(x @ y / (x @ x))
    freedom = len(x) - 2
    half = float(student.ppf(0.975, freedom) * np.sqrt(np.square(y - order * x).sum() / freedom / (x @ x)))
    return Fit(order, order - half, order + half, tuple(h.tolist()), floor)
