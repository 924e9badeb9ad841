"""The keys to the noise of examples."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def noise_keys(seed: int, epoch: int, examples: int) -> Int64[Tensor, "examples 1"]:
    """A number for each example of a set, on the CPU: a pure function of seed, epoch and example, as their signs are.
    Epoch 0 is that of every evaluation, whose noise so is the same each time."""
    stream = 3 if epoch else 4  # 3 at epoch 0 is that of weights of the way down
    return torch.from_numpy(np.random.default_rng([seed, epoch, stream]).integers(2**63, size=(examples, 1)))
