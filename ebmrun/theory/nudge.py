"""What the nodes of a nudge do: weights that sum over them, and the pull of one strength on the output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Inexact
from torch import Tensor

from ebmrun.theory.columns import column
from ebmrun.theory.cost import Cost, Output
from ebmrun.theory.equilibrium import Batch


@dataclass(slots=True)
class Weights:
    """w_k of the nodes, which are stacked along the batch axis, and of the free one; scales of the layers."""

    nodes: Sequence[complex]
    free: float
    scales: Sequence[float]

    def of_layers(self, messages: Sequence[Batch]) -> Sequence[Batch]:
        """``of`` for all layers."""
        if len(self.nodes) == 1:
            return torch._foreach_mul(list(messages), [scale * self.nodes[0] for scale in self.scales])
        return [self.of(l, message) for l, message in enumerate(messages)]

    def of(self, l: int, message: Batch) -> Batch:
        """scale_l w_k m_k, node by node."""
        return message * column([self.scales[l] * w for w in self.nodes], message)

    def sum(self, weighted: Batch) -> Batch:
        """Over nodes."""
        return weighted if (n := len(self.nodes)) == 1 else weighted.view(n, -1, *weighted.shape[1:]).sum(0)

    def shift(self, displacement: Batch) -> Batch:
        """sum_k w_k dx_k."""
        return self.sum(displacement * column(self.nodes, displacement))


@dataclass(frozen=True)
class Pull:
    """How the target pulls on the output: not at all, by a message -lambda dcost/dx_L, or by a clamp (lambda infinite).

    ``strength`` is lambda: one number, or one a row (batch, 1) where nodes are stacked along the batch axis.
    """

    cost: Cost
    targets: Output
    strength: float | Inexact[Tensor, "batch 1"]

    @classmethod
    def stacked(cls, cost: Cost, targets: Output, strengths: Sequence[float]) -> Pull:
        """The pulls of several nodes on copies of one batch, node by node."""
        if len(strengths) == 1:
            return cls(cost, targets, strengths[0])
        targets = torch.cat([targets] * len(strengths))
        return cls(cost, targets, column(strengths, targets))

    @property
    def clamps(self) -> bool:
        """Whether the output is held at its target."""
        return isinstance(self.strength, float) and math.isinf(self.strength)

    @property
    def rests(self) -> bool:
        """Whether there is none: a free phase."""
        return isinstance(self.strength, float) and self.strength == 0

    @cached_property
    def step(self) -> float | Inexact[Tensor, "batch 1"]:
        """The part of the way to its answer that an output has to go: the answer x = z - lambda c x contains the state
        itself where the cost has a constant curvature c, and 1 / (1 + lambda c) of the way solves that."""
        return 1 / (1 + self.strength * self.cost.curvature) if self.cost.curvature else 1.0

    def message(self, x: Output) -> Output:
        """t_L = -lambda dcost/dx at x."""
        return torch.zeros_like(x) if self.rests else self.cost.gradient(x, self.targets) * -self.strength
