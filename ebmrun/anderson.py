"""Anderson acceleration of a fixed-point iteration, one example at a time (Anderson 1965; Walker & Ni 2011).

With iterates x_k, their images T(x_k), and g_k = T(x_k) - x_k, the next iterate is the combination of the last few
images whose g, combined with the same weights, is smallest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Flat = Float[Tensor, "batch units"]


def _flat(parts: Sequence[Tensor]) -> Flat:
    return torch.cat([part.flatten(1) for part in parts], 1)


class Anderson:
    """Proposes the next iterate; each example has its own weights, so that no batch changes an example's path.

    Safeguard: the first ``delay`` steps are plain; an example whose residual has grown goes back to the plain image
    that it had before, and stays with plain steps from then on.
    """

    def __init__(self, memory: int = 5, delay: int = 2) -> None:
        self.memory, self.delay = memory, delay
        self.steps = 0
        self.moves: list[Flat] = []  # x_k - x_{k-1}
        self.turns: list[Flat] = []  # g_k - g_{k-1}

    def propose(self, u: Sequence[Tensor], image: Sequence[Tensor]) -> list[Tensor]:
        """The next iterate, after iterate u and its image T(u)."""
        self.steps += 1
        x, fixed = _flat(u), _flat(image)
        g = fixed - x
        size = torch.linalg.vector_norm(g, dim=1, keepdim=True)
        if self.steps == 1:
            self.trusted = torch.ones_like(size, dtype=torch.bool)
        else:
            failed = self.trusted & (self.jumped & (size > self.size))
            self.trusted = self.trusted & ~failed
            # Where the jump failed, the step before it is taken again without one.
            plain = torch.where(failed, self.fixed, fixed)
            self.moves = [*self.moves, x - self.x][-self.memory :]
            self.turns = [*self.turns, g - self.g][-self.memory :]
            fixed_next = plain
        self.jumped = self.trusted & (self.steps > self.delay)
        proposal = fixed if self.steps == 1 else fixed_next
        if self.steps > self.delay:
            moves, turns = torch.stack(self.moves, 2), torch.stack(self.turns, 2)
            scale = torch.linalg.vector_norm(turns, dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
            turns, moves = turns / scale, moves / scale
            gram = turns.mT @ turns
            # A ridge at the level of round-off: it bounds the weights, and no fixed point depends on them.
            ridge = torch.eye(gram.shape[1], dtype=x.dtype, device=x.device) * (10 * torch.finfo(x.dtype).eps)
            weights = torch.linalg.solve(gram + ridge, turns.mT @ g[:, :, None])
            jump = fixed - ((moves + turns) @ weights)[:, :, 0]
            proposal = torch.where(self.jumped & jump.isfinite().all(1, keepdim=True), jump, proposal)
        self.x, self.g, self.fixed, self.size = x, g, fixed, size
        return [part.view_as(like) for part, like in zip(proposal.split([p[0].numel() for p in u], 1), u)]
