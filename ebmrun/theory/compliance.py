"""By how much the drive of a unit gives way to the unit's own feedback, through all states below it.

A state answers a message one to one and follows its drive by the slope f', so that with r_l for the response of a state
to a message of its own,

    c_l = sum_k gamma^(h_k - h_l) J_lk^2 r_k,      r_l = 1 + f'^2 c_l

with the mean of f'^2 over the batch, as if what comes by different ways were random.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.theory.equilibrium import Drive
from ebmrun.theory.network import Network

Unit = Float[Tensor, "1 ..."]  # a number for each unit of a layer
Batch = Float[Tensor, "_ ..."]


class Compliance:
    """``drives`` c_l, None for a layer that hears the input alone, and ``states`` r_l, at the given states x_l; and
    ``sides``, a layer's drives just below and above its kinks, kept here once they are made."""

    def __init__(self, network: Network, gains: Sequence[Sequence[float]], states: Sequence[Batch]) -> None:
        self.sides: dict[int, list[Drive]] = {}
        self.drives: list[Unit | None] = []
        self.states: list[Unit] = []
        for edges, each, f, x in zip(network.edges, gains, network.activations, states):
            parts = [gain * affine.variance(self.states[source - 1])
                     for (source, affine), gain in zip(edges, each) if source]
            give = sum(parts[1:], parts[0]) if parts else None
            response = torch.ones_like(x[:1])
            if give is not None:
                response = response + f.pullback(x, torch.ones_like(x)).square().mean(0, keepdim=True) * give
            self.drives.append(give)
            self.states.append(response)
