"""Schedules: the learning rate as a function of the number of steps taken, counted in epochs.

They hold no state, so that a resumed run goes on where it stopped; each layer's rate moves from its own base.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ebmrun.errors import ConfigError


class Schedule(ABC):
    """A rate from its base and the epochs that have passed."""

    @abstractmethod
    def rate(self, base: float, epoch: float) -> float:
        """The learning rate of the next step, after ``epoch`` epochs (a fraction within one)."""

    def require_fit(self, epochs: int, bases: Sequence[float]) -> None:
        """Raises ConfigError for a run that the schedule is not made for."""


class Constant(Schedule):
    """The base."""

    def rate(self, base: float, epoch: float) -> float:
        return base


class Cosine(Schedule):
    """From the base down to ``floor`` along half a period of a cosine (Loshchilov & Hutter 2017, equation 5):

    floor + (base - floor) (1 + cos(pi t)) / 2,     t = epoch / epochs
    """

    def __init__(self, epochs: int, floor: float) -> None:
        self.epochs, self.floor = _whole("epochs", epochs), _number("floor", floor)

    def rate(self, base: float, epoch: float) -> float:
        return self.floor + (base - self.floor) * (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    def require_fit(self, epochs: int, bases: Sequence[float]) -> None:
        if self.epochs != epochs:
            compared = "longer" if self.epochs > epochs else "shorter"
            raise ConfigError(f"schedule.epochs={self.epochs} is {compared} than the run of trainer.epochs={epochs}: "
                              "use one number for both")
        if self.floor > min(bases):
            raise ConfigError(f"schedule.floor={self.floor} is above optim.lr={min(bases)}, from where the rate falls: "
                              "use a lower one")


class WarmupCosine(Cosine):
    """A line from ``start`` times the base up to the base over the share ``warmup`` of the epochs (Goyal et al. 2017,
    section 2.2), then a cosine over the rest of them down to ``floor``."""

    def __init__(self, epochs: int, floor: float, warmup: float, start: float) -> None:
        super().__init__(epochs, floor)
        self.warmup, self.start = _number("warmup", warmup), _number("start", start)
        if not 0 < self.warmup < 1:
            raise ConfigError(f"schedule.warmup={warmup} is a share of the run: use a number between 0 and 1")
        if self.start > 1:
            raise ConfigError(f"schedule.start={start} is a share of optim.lr: use a number from 0 to 1")

    def rate(self, base: float, epoch: float) -> float:
        t = epoch / self.epochs
        if t < self.warmup:
            return base * (self.start + (1 - self.start) * t / self.warmup)
        return super().rate(base, self.epochs * (t - self.warmup) / (1 - self.warmup))


class Step(Schedule):
    """``factor`` times the rate before, after each of the epochs in ``milestones`` (He et al. 2016, section 4.2)."""

    def __init__(self, milestones: Sequence[int], factor: float) -> None:
        if not isinstance(milestones, (list, tuple)) or not milestones:
            raise ConfigError(f"schedule.milestones={milestones} must be a list of epochs: write [30,60]")
        self.milestones = [_whole("milestones", each) for each in milestones]
        if any(a >= b for a, b in zip(self.milestones, self.milestones[1:])):
            raise ConfigError(f"schedule.milestones={milestones} must ascend: write [30,60]")
        self.factor = _number("factor", factor)
        if not 0 < self.factor < 1:
            raise ConfigError(f"schedule.factor={factor} must lie between 0 and 1: 0.1 is usual")

    def rate(self, base: float, epoch: float) -> float:
        return base * self.factor ** bisect_right(self.milestones, epoch)

    def require_fit(self, epochs: int, bases: Sequence[float]) -> None:
        if self.milestones[-1] >= epochs:
            raise ConfigError(f"schedule.milestones={self.milestones} is longer than the run of trainer.epochs={epochs}"
                              ": use epochs before its end")


def _whole(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"schedule.{key}={value} must be an integer of 1 or more")
    return value


def _number(key: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ConfigError(f"schedule.{key}={value} must be a number of 0 or more")
    return float(value)
