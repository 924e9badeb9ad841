"""What a machine makes of an optimizer's steps: weights that so many bits hold, and steps up and down of two sizes.

    w  <-  grid(w + (1 + a) max(dw, 0) + (1 - a) min(dw, 0))

A step smaller than one of the grid would never be taken by rounding to the nearest level; so it is rounded at random,
which keeps its mean (Gupta et al. 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ebmrun.theory.draws import Draws, mixed
from ebmrun.theory.grid import Grid
from ebmrun.theory.noise import Noise

COUNT = "written"  # the steps so far, in the optimizer's own state, so that a resumed run draws on


@dataclass
class Writing:
    """Writes what an optimizer did to its parameters again, as the machine would have. The random numbers are a
    function of seed, step and place."""

    noise: Noise
    seed: int
    before: list[Tensor] = field(default_factory=list)

    @property
    def grid(self) -> Grid:
        """The levels of a weight."""
        return Grid(self.noise.weight_range, self.noise.weight_bits)

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Follows each step of an optimizer from now on."""
        optimizer.param_groups[0].setdefault(COUNT, 0)
        optimizer.register_step_pre_hook(self._remember)
        optimizer.register_step_post_hook(self._write)

    @torch.no_grad()
    def _remember(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.before = [weight.clone() for weight in _weights(optimizer)]

    @torch.no_grad()
    def _write(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        count = optimizer.param_groups[0][COUNT] = optimizer.param_groups[0].get(COUNT, 0) + 1
        weights = _weights(optimizer)
        draws = Draws(mixed(torch.tensor([[count]], device=weights[0].device)) + self.seed)
        for weight, old in zip(weights, self.before):
            weight.copy_(self.written(old, weight - old, draws))

    def written(self, old: Tensor, step: Tensor, draws: Draws) -> Tensor:
        """The weights after a step from old ones."""
        a = self.noise.asymmetry
        new = old + torch.where(step > 0, 1 + a, 1 - a) * step
        return self.grid.stochastic(new, draws.uniform(new[None])[0]) if self.grid.bits else new


def _weights(optimizer: torch.optim.Optimizer) -> Sequence[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
