"""Backpropagation by the weights of the way down: feedback alignment (Lillicrap et al. 2016), where these are others.

It is what is left of a limit where no energy is: predictive and lifted members tend to it as the nudge vanishes, and
every clamped member as the feedback gain does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ebmrun.theory.affine import Map
from ebmrun.theory.algorithm import Estimate, Output
from ebmrun.theory.cost import Cost
from ebmrun.theory.equilibrium import Batch
from ebmrun.theory.network import Network
from ebmrun.theory.references import Backprop


class ByAdjoint(torch.autograd.Function):
    """A map whose derivative is what it says of itself: messages go by its ``adjoint``, parameters by ``gradient``."""

    @staticmethod
    def forward(ctx, x: Tensor, affine: Map, *parameters: Tensor) -> Tensor:
        a, ctx.piece = affine.trace(x)
        ctx.affine, ctx.hears = affine, x.requires_grad
        ctx.save_for_backward(x)
        return a

    @staticmethod
    def backward(ctx, message: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        below = ctx.affine.adjoint(message, ctx.piece) if ctx.hears else None
        return below, None, *ctx.affine.gradient(message, x, ctx.piece)


@dataclass(frozen=True)
class FeedbackAlignment(Backprop):
    """The gradient of the mean cost of the forward pass, with the maps' own adjoints in place of their transposes."""

    def estimate(self, network: Network, x: Batch, y: Output) -> Estimate:
        states = [x]
        with torch.enable_grad():
            for edges, f in zip(network.edges, network.activations):
                parts = [ByAdjoint.apply(states[source], affine, *affine.parameters()) for source, affine in edges]
                states.append(f(sum(parts[1:], parts[0])))
            gradients = torch.autograd.grad(self.cost.value(states[-1], y).mean(), network.weights)
        return Estimate(list(gradients), states[-1].detach())


def backprop_of(network: Network, cost: Cost) -> Backprop:
    """Backpropagation by the network's own way down."""
    return Backprop(cost) if network.tied else FeedbackAlignment(cost)
