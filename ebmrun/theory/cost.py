"""Costs of one example, seen by the network as one more message from above: t_L = -lambda dcost/dx_L."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Inexact
from torch import Tensor
from torch.nn import functional as F

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import Activation, Identity, Softmax

Output = Inexact[Tensor, "batch classes"]


class Cost(ABC):
    """The loss of an output state x against its target y, for a given output unit."""

    curvature = 0.0  # of the cost in an output that answers messages one to one, where that is a constant

    def __init__(self, output: Activation) -> None:
        self.output = output

    @abstractmethod
    def value(self, x: Output, y: Output) -> Float[Tensor, "batch"]:
        """cost(x, y), one number an example."""

    @abstractmethod
    def gradient(self, x: Output, y: Output) -> Output:
        """dcost/dx."""


class SquaredError(Cost):
    """||x - y||^2 / 2."""

    def __init__(self, output: Activation) -> None:
        super().__init__(output)
        self.curvature = float(isinstance(output, Identity))

    def value(self, x: Output, y: Output) -> Float[Tensor, "batch"]:
        return F.mse_loss(x, y, reduction="none").sum(1) / 2

    def gradient(self, x: Output, y: Output) -> Output:
        return x - y


class CrossEntropy(Cost):
    """-<y, log p>: p is the state x of softmax units, or softmax(x) where x are the logits of identity units.

    Raises ConfigError for other output units, whose states are no probabilities and no logits.
    """

    def __init__(self, output: Activation) -> None:
        super().__init__(output)
        if not isinstance(output, (Identity, Softmax)):
            raise ConfigError(f"cost=cross_entropy cannot read {type(output).__name__} outputs as probabilities or "
                              "logits: set arch.output to identity or softmax, or cost=squared_error")

    def value(self, x: Output, y: Output) -> Float[Tensor, "batch"]:
        if isinstance(self.output, Softmax):
            return -torch.xlogy(y, x).sum(1)
        return -(y * torch.log_softmax(x, 1)).sum(1)

    def gradient(self, x: Output, y: Output) -> Output:
        if isinstance(self.output, Softmax):
            return torch.where(y == 0, 0, -y / x)
        return torch.softmax(x, 1) * y.sum(1, keepdim=True) - y
