"""The step size of sweeps, from how fast they settle (Young 1954; Hageman & Young 1981).

Layers that hear only the layers beside them can be coloured by two colours. Sweeps of step size w over such a system
shrink its changes by a ratio r, and with mu the spectral radius of synchronous steps,

    mu^2 = (r + w - 1)^2 / (r w^2),        w* = 2 / (1 + sqrt(1 - mu^2))

where w* is the step size that settles fastest, at the ratio w* - 1. Any larger w has the ratio w - 1, whatever mu is,
which tells nothing of w*: the step size goes back to where a ratio does. Other graphs come close to it.
"""

from __future__ import annotations

import math

FIRST_STEP_SIZE = 1.1
UNREAD = 4  # first sweeps that may go by before a step size is followed
DAMPING = 0.65  # of the way to a new step size, for a ratio is not yet its limit
BACK = 0.65  # of w - 1, where w is too large
SLOW = 1.5  # the step size at which each sweep leaves half, where conjugate gradients are faster


class OverRelaxation:
    """Follows the changes ||moved - before|| of successive sweeps, and keeps the step size for the next."""

    def __init__(self, step_size: float = 1.0) -> None:
        self.step_size, self.change, self.ratio = step_size, 0.0, 1.0

    def follow(self, change: float) -> None:
        """Take the change of one more sweep into account."""
        if self.change > 0:
            self.ratio = change / self.change
            if self.ratio <= self.step_size - 1:
                self.step_size = 1 + BACK * (self.step_size - 1)
            else:
                self.step_size += DAMPING * (best(self.ratio, self.step_size) - self.step_size)
        self.change = change

    def unread(self, tol: float) -> int:
        """How many first sweeps of another relaxation of the same network cannot meet a tolerance at this ratio."""
        if not (0 < tol < 1 and 0 < self.ratio < 1):
            return 1
        return max(1, min(UNREAD, math.floor(math.log(tol, self.ratio)) - 1))

    @property
    def slow(self) -> bool:
        """Whether even the best step size settles slowly."""
        return self.step_size > SLOW


def best(ratio: float, step_size: float) -> float:
    """w* for changes that shrink by ``ratio`` a sweep at a step size; 2 where they do not shrink, or too slowly."""
    if not 0 < ratio < 1:
        return 2.0 if ratio >= 1 else step_size
    square = (ratio + step_size - 1) ** 2 / (ratio * step_size**2)
    return 2 / (1 + math.sqrt(1 - square)) if square < 1 else 2.0
