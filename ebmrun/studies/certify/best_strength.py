"""The strength at which the bias of a nudge and the noise of a machine together are least.

    error = b lambda^p + sigma / lambda,      lambda* = (sigma / (p b))^(1 / (p + 1)),      p + 1 times b lambda*^p

The bias is what it is and noise has a mean of 0, so that over many draws it is their squares that add up:

    error^2 = (b lambda^p)^2 + (sigma / lambda)^2,      lambda* times p^(1 / (2 (p + 1))),

which is never more than 1.15 times the same strength. The sum is what the two can come to in the worst case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ebmrun.studies.certify.error_parts import Point
from ebmrun.studies.certify.verdict import fitted, power
from ebmrun.studies.convergence import FEWEST

INVERSE = 0.1  # how far from -1 the exponent of noise in the strength may lie


@dataclass(frozen=True)
class Best:
    """``bias`` b, ``order`` p and ``noise`` sigma, relative to the gradient."""

    bias: float
    order: float
    noise: float

    @property
    def strength(self) -> float:
        """Where their sum is least."""
        return float((self.noise / (self.order * self.bias)) ** (1 / (self.order + 1)))

    @property
    def error(self) -> float:
        """The least sum."""
        return self.bias * self.strength**self.order + self.noise / self.strength

    @property
    def strength_in_square(self) -> float:
        """Where the sum of their squares is least."""
        return float(self.strength * self.order ** (1 / (2 * (self.order + 1))))

    @property
    def error_in_square(self) -> float:
        """The root of the least sum of squares."""
        return self.at(self.strength_in_square)

    def at(self, strength: float) -> float:
        """The root of the sum of squares at a strength."""
        return math.hypot(self.bias * strength**self.order, self.noise / strength)


def best(points: Sequence[Point]) -> Best | None:
    """From points at falling strengths: b on the branch on which the order is fitted, sigma from all. None where there
    is no noise, or where either is no power law: noise, of -1."""
    fit = fitted(points, "bias")
    noisy = [p for p in points if p.settled and p.noise > 0]
    if fit is None or fit.order <= 0 or len(noisy) < FEWEST:
        return None
    x, y = (np.log([getattr(p, key) for p in noisy]) for key in ("value", "noise"))
    if abs(np.polyfit(x, y, 1)[0] + 1) > INVERSE:
        return None
    order = float(power(fit) or fit.order)
    branch = [math.log(p.bias) - order * math.log(p.value) for p in points if p.value in fit.points]
    return Best(math.exp(sum(branch) / len(branch)), order, float(np.exp(np.mean(x + y))))
