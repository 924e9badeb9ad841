"""What the nodes of a nudge do: weights that sum over them, and the pull of one strength on the output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Inexact
from torch import Tensor

from ebmrun.theory.cost import Cost

Output = Inexact[Tensor, "batch classes"]
Batch = Inexact[Tensor, "_ ..."]


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
        return message * self.beside(message, self.scales[l])

    def sum(self, weighted: Batch) -> Batch:
        """Over nodes."""
        nodes = len(self.nodes)
        return weighted if nodes == 1 else weighted.view(nodes, -1, *weighted.shape[1:]).sum(0)

    def shift(self, displacement: Batch) -> Batch:
        """sum_k w_k dx_k."""
        return self.sum(displacement * self.beside(displacement, 1.0))

    def beside(self, rows: Batch, scale: float) -> Batch:
        """scale w_k for each row of node k."""
        numbers = column(tuple(scale * w for w in self.nodes), len(rows) // len(self.nodes), rows.dtype, rows.device)
        return numbers if rows.ndim == 2 else numbers.view(-1, *[1] * (rows.ndim - 1))


@lru_cache(maxsize=64)
def column(numbers: Sequence[complex], rows: int, dtype: torch.dtype, device: torch.device) -> Batch:
    """Each number for so many rows, one below another; kept, since batch after batch asks for the same."""
    dtype = dtype.to_complex() if any(isinstance(number, complex) for number in numbers) else dtype
    return torch.cat([torch.full((rows, 1), number, dtype=dtype, device=device) for number in numbers])


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
        rows = column(tuple(strengths), len(targets), targets.dtype, targets.device)
        return cls(cost, torch.cat([targets] * len(strengths)), rows)

    @property
    def clamps(self) -> bool:
        """Whether the output is held at its target."""
        return isinstance(self.strength, float) and math.isinf(self.strength)

    @property
    def rests(self) -> bool:
        """Whether there is none: a free phase."""
        return isinstance(self.strength, float) and self.strength == 0

    @cached_property
    def force(self) -> float | Inexact[Tensor, "batch 1"]:
        """-lambda."""
        return -self.strength

    @cached_property
    def step(self) -> float | Inexact[Tensor, "batch 1"]:
        """The part of the way to its answer that an output has to go: the answer x = z - lambda c x contains the state
        itself where the cost has a constant curvature c, and 1 / (1 + lambda c) of the way solves that."""
        return 1 / (1 + self.strength * self.cost.curvature) if self.cost.curvature else 1.0

    def message(self, x: Output) -> Output:
        """t_L = -lambda dcost/dx at x."""
        return torch.zeros_like(x) if self.rests else self.cost.gradient(x, self.targets) * self.force
