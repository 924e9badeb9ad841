"""How the target pulls on the output: not at all, by a message -lambda dcost/dx_L, or by a clamp (lambda infinite)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.theory.cost import Cost

Output = Float[Tensor, "batch classes"]


@dataclass(frozen=True)
class Pull:
    """A pull of strength lambda: one number, or one a row (batch, 1) where nodes are stacked along the batch axis."""

    cost: Cost
    targets: Output
    strength: float | Float[Tensor, "batch 1"]
    held: Output | None = None

    @classmethod
    def stacked(cls, cost: Cost, targets: Output, strengths: Sequence[float]) -> Pull:
        """The pulls of several nodes on copies of one batch, node by node."""
        if len(strengths) == 1:
            return cls(cost, targets, strengths[0])
        rows = [targets.new_full((len(targets), 1), strength) for strength in strengths]  # made on the device
        return cls(cost, targets.repeat(len(strengths), 1), torch.cat(rows))

    @property
    def clamps(self) -> bool:
        """Whether the output is held at its target."""
        return isinstance(self.strength, float) and math.isinf(self.strength)

    @property
    def step(self) -> float | Float[Tensor, "batch 1"]:
        """The step with which an output that sweeps to its answer solves for itself: its answer x = z - lambda c x
        contains its own state where the cost has a constant curvature c, and 1 / (1 + lambda c) of the way is exact."""
        if self.held is not None or not self.cost.curvature:
            return 1.0
        return 1 / (1 + self.strength * self.cost.curvature)

    def message(self, x: Output) -> Output:
        """t_L = -lambda dcost/dx at x, or at the state that the message is held at."""
        if self.held is not None:
            return self.held
        if isinstance(self.strength, float) and self.strength == 0:
            return torch.zeros_like(x)
        return self.cost.gradient(x, self.targets) * -self.strength

    def held_at(self, x: Output) -> Pull:
        """The same pull with its message kept as it is at x."""
        return self if self.clamps else replace(self, held=self.message(x))
