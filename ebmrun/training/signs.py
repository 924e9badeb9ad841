"""The signs that examples draw for a nudge with ``random_sign``."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def signs(seed: int, epoch: int, examples: int) -> Int64[Tensor, "examples 1"]:
    """1 or -1 with equal chance for each example of the training set, on the CPU: a pure function of seed, epoch and
    example, so that a resumed run and every process of a job draw the same, in whatever batches they come."""
    return torch.from_numpy(np.random.default_rng([seed, epoch, 2]).integers(2, size=(examples, 1)) * 2 - 1)
