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
Each = Float[Tensor, "batch 1"]

MEMORY = 2  # differences dT_j and dg_j that are kept
PATIENCE = 2


class Anderson:
    """Proposes the next iterate; each example has its own weights, so that no other example changes its path.

    Safeguard: an example is accelerated once ``PATIENCE`` plain steps in a row have shrunk its g to 0.9 of itself or
    less, and not before as many steps as the iterate has parts: until then a change has not crossed all layers, and g
    does not yet shrink at the rate of the slowest. The last ratio, less a tenth that a jump has to gain, forecasts what
    plain steps would reach. When g exceeds the forecast, the example takes the plain step instead that it had then, and
    only plain steps from there on. A forecast is no bound: plain steps that speed up later, or that would have settled
    in another equilibrium, may still arrive first; and so may those that hold units on kinks, whose feedback is a
    variable that is not extrapolated.
    """

    def __init__(self) -> None:
        self.steps = 0

    def propose(self, u: Sequence[Tensor], image: Sequence[Tensor]) -> list[Tensor]:
        """The next iterate, after iterate u and its image T(u)."""
        fixed = torch.cat([part.flatten(1) for part in image], 1)
        g = fixed - torch.cat([part.flatten(1) for part in u], 1)
        size = torch.linalg.vector_norm(g, dim=1, keepdim=True)
        if self.steps == 0:
            self._begin(g, len(u))
            proposal = fixed
        else:
            proposal = self._safeguard(self._jump(fixed, g), fixed, size)
        self.steps += 1
        self.fixed, self.g, self.size = fixed, g, size
        widths = [part[0].numel() for part in u]
        return [part.view_as(like) for part, like in zip(proposal.split(widths, 1), u)]

    def _begin(self, g: Flat, parts: int) -> None:
        self.parts = parts
        self.images = g.new_zeros(len(g), MEMORY, g.shape[1])  # dT_j, and zeros until there are so many
        self.turns = torch.zeros_like(self.images)  # dg_j
        # At the level of round-off: it keeps the weights finite, and no fixed point depends on them.
        self.ridge = torch.eye(MEMORY, dtype=g.dtype, device=g.device) * (10 * torch.finfo(g.dtype).eps)
        self.shrinking, self.forecast, self.rate = g.new_zeros(3, len(g), 1)
        self.begun = torch.zeros(len(g), 1, dtype=torch.bool, device=g.device)
        self.trusted = torch.ones_like(self.begun)

    def _jump(self, fixed: Flat, g: Flat) -> Flat:
        """The accelerated iterate."""
        slot = (self.steps - 1) % MEMORY
        torch.sub(fixed, self.fixed, out=self.images[:, slot])
        torch.sub(g, self.g, out=self.turns[:, slot])
        gram = self.turns @ self.turns.mT
        largest = gram.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
        gram = gram + self.ridge * torch.where(largest > 0, largest, 1)
        weights = torch.linalg.solve_ex(gram, self.turns @ g[:, :, None])[0]
        return fixed - (weights.mT @ self.images)[:, 0]

    def _safeguard(self, jump: Flat, fixed: Flat, size: Each) -> Flat:
        """The accelerated iterate for the examples that may have it, and the plain one for the others."""
        self.shrinking = torch.where(size <= 0.9 * self.size, self.shrinking + 1, 0)
        begins = ~self.begun & (self.shrinking >= PATIENCE) & (self.steps >= self.parts)
        self.rate = torch.where(begins, 0.9 * size / self.size, self.rate)
        self.forecast = torch.where(begins, size, self.forecast * self.rate)
        failed = self.begun & self.trusted & (size > self.forecast)
        self.begun = self.begun | begins
        self.trusted = self.trusted & ~failed
        jumps = self.begun & self.trusted & jump.isfinite().all(1, keepdim=True)
        return torch.where(jumps, jump, torch.where(failed, self.fixed, fixed))
