"""Anderson acceleration of a fixed-point iteration, one example at a time (Anderson 1965; Walker & Ni 2011).

With iterates x_k, images T(x_k) and g_k = T(x_k) - x_k, the next iterate is T(x_k) - sum_j w_j dT_j, where the weights
minimise ||g_k - sum_j w_j dg_j|| over the last few differences dT_j = T(x_j) - T(x_{j-1}) and dg_j = g_j - g_{j-1}.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Flat = Float[Tensor, "batch units"]


class Anderson:
    """Proposes the next iterate; each example has its own weights, so that no other example changes its path.

    Safeguard: the first ``delay`` steps are plain; an example whose g grows after an accelerated step takes the plain
    step instead that it had then, and only plain steps from there on.
    """

    def __init__(self, memory: int = 2, delay: int = 2) -> None:
        self.memory, self.delay, self.steps = memory, delay, 0

    def propose(self, u: Sequence[Tensor], image: Sequence[Tensor]) -> list[Tensor]:
        """The next iterate, after iterate u and its image T(u)."""
        fixed = torch.cat([part.flatten(1) for part in image], 1)
        g = fixed - torch.cat([part.flatten(1) for part in u], 1)
        if self.steps == 0:
            self._begin(u, g)
        size = torch.linalg.vector_norm(g, dim=1, keepdim=True)
        proposal = self._accelerate(fixed, g, size) if self.steps else fixed
        self.steps += 1
        self.fixed, self.g, self.size = fixed, g, size
        return [part.view_as(like) for part, like in zip(proposal.split(self.widths, 1), u)]

    def _begin(self, u: Sequence[Tensor], g: Flat) -> None:
        self.widths = [part[0].numel() for part in u]
        self.images = g.new_zeros(len(g), self.memory, g.shape[1])  # dT_j, and zeros until there are so many
        self.turns = torch.zeros_like(self.images)  # dg_j
        self.trusted = torch.ones(len(g), 1, dtype=torch.bool, device=g.device)
        # At the level of round-off: it keeps the weights finite, and no fixed point depends on them.
        self.ridge = torch.eye(self.memory, dtype=g.dtype, device=g.device) * (10 * torch.finfo(g.dtype).eps)

    def _accelerate(self, fixed: Flat, g: Flat, size: Flat) -> Flat:
        slot = (self.steps - 1) % self.memory
        torch.sub(fixed, self.fixed, out=self.images[:, slot])
        torch.sub(g, self.g, out=self.turns[:, slot])
        gram = self.turns @ self.turns.mT
        largest = gram.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
        gram = gram + self.ridge * torch.where(largest > 0, largest, 1)
        weights = torch.linalg.solve_ex(gram, self.turns @ g[:, :, None])[0]
        jump = fixed - (weights.mT @ self.images)[:, 0]
        if self.steps < self.delay:
            return fixed
        grown = (size > self.size) & (self.steps > self.delay)
        failed = grown & self.trusted
        self.trusted = self.trusted & ~grown
        return torch.where(self.trusted & jump.isfinite().all(1, keepdim=True), jump,
                           torch.where(failed, self.fixed, fixed))
