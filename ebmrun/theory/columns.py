"""Numbers of nodes, one beside each row of a batch in which the nodes are stacked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Inexact
from torch import Tensor

Column = Inexact[Tensor, "rows 1 ..."]


def column(numbers: Sequence[complex], like: Inexact[Tensor, "rows ..."]) -> Column:
    """The number of its node beside each row of ``like``."""
    kept = _kept(tuple(numbers), len(like) // len(numbers), like.dtype, like.device)
    return kept if like.ndim == 2 else kept.view(-1, *[1] * (like.ndim - 1))


@lru_cache(maxsize=64)
def _kept(numbers: Sequence[complex], rows: int, dtype: torch.dtype, device: torch.device) -> Column:
    """Made on the device, and kept, since batch after batch asks for the same."""
    dtype = dtype.to_complex() if any(isinstance(number, complex) for number in numbers) else dtype
    return torch.cat([torch.full((rows, 1), number, dtype=dtype, device=device) for number in numbers])
