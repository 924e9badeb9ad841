"""The numbers that so many bits can hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Inexact
from torch import Tensor

Numbers = Inexact[Tensor, "..."]


@dataclass(frozen=True)
class Grid:
    """2^bits - 1 levels from -``span`` to ``span``, of which one is 0; none of ``bits`` stands for all numbers."""

    span: float
    bits: int | None

    @property
    def step(self) -> float:
        """From one level to the next; 0 where there are all."""
        return 0.0 if self.bits is None else self.span / (2 ** (self.bits - 1) - 1)

    def nearest(self, x: Numbers) -> Numbers:
        """The level next to each number, of complex ones to each part: half a step off at most, within the span."""
        if x.is_complex():
            return torch.complex(self.nearest(x.real), self.nearest(x.imag))
        return self._level((x / self.step).round()) if self.step else x

    def stochastic(self, x: Numbers, uniform: Numbers) -> Numbers:
        """One of the two levels beside each number, given others in [0, 1), so that the mean is the number itself
        (Gupta et al. 2015)."""
        return self._level((x / self.step + uniform).floor()) if self.step else x

    def _level(self, number: Numbers) -> Numbers:
        top = round(self.span / self.step)
        return number.clamp(-top, top) * self.step
