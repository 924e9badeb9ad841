"""What a user of plain PyTorch would write: the yardstick of the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebmrun.data.sets import Split
from ebmrun.errors import ConfigError
from ebmrun.theory.activations import Activation, Clip, Elu, Identity, LeakyRelu, Relu, Sigmoid, Softmax, Softplus, Tanh
from ebmrun.theory.affine import AvgPool2d, Chain, Conv2d, Linear, Map, MaxPool2d, Skip, Wrapped
from ebmrun.theory.cost import Cost, CrossEntropy, SquaredError
from ebmrun.theory.network import Network

Loss = Callable[[Tensor, Tensor], Tensor]

MODULES: dict[type[Activation], Callable[[], nn.Module]] = {
    Identity: nn.Identity,
    Relu: nn.ReLU,
    Elu: nn.ELU,
    Softplus: nn.Softplus,
    Tanh: nn.Tanh,
    Sigmoid: nn.Sigmoid,
    Softmax: lambda: nn.Softmax(1),
}


class Clamp(nn.Module):
    """clip(a, low, high), as most would write it."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, a: Tensor) -> Tensor:
        return a.clamp(self.low, self.high)


class Graph(nn.Module):
    """Layers with skips, each with the modules of its edges by their sources (0 for the input) and its activation."""

    def __init__(self, layers: Sequence[Sequence[tuple[int, nn.Module]]], activations: Sequence[nn.Module]) -> None:
        super().__init__()
        self.registered = nn.ModuleList(module for edges in layers for _, module in edges)
        self.layers, self.activations = layers, activations

    def forward(self, x: Tensor) -> Tensor:
        states = [x]
        for edges, activation in zip(self.layers, self.activations):
            (source, module), *rest = edges
            a = module(states[source])
            for source, module in rest:
                a = a + module(states[source])
            states.append(activation(a))
        return states[-1]


def model(network: Network) -> nn.Module:
    """The network as modules of torch.nn that hold the very same parameters, in the same order.

    Raises ConfigError for a map or an activation that has no such module.
    """
    activations = [_activation(f) for f in network.activations]
    if [[source for source, _ in edges] for edges in network.edges] == [[l] for l in range(network.depth)]:
        parts = [[*_modules(edges[0][1]), f] for edges, f in zip(network.edges, activations)]
        return nn.Sequential(*(module for part in parts for module in part))
    return Graph([[(source, _module(affine)) for source, affine in edges] for edges in network.edges], activations)


def _module(affine: Map) -> nn.Module:
    parts = _modules(affine)
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def _modules(affine: Map) -> list[nn.Module]:
    """Modules that make up a map, one after another; none for the identity."""
    if isinstance(affine, Skip):
        return []
    if isinstance(affine, Wrapped):
        return [affine.module]
    if isinstance(affine, Chain):
        return [module for each in affine.maps for module in _modules(each)]
    if isinstance(affine, MaxPool2d):
        return [*_modules(affine.inner), nn.MaxPool2d(affine.size)]
    if isinstance(affine, AvgPool2d):
        return [nn.AvgPool2d(affine.size)]
    if isinstance(affine, Linear):
        outputs, inputs = affine.weight.shape
        linear = nn.Linear(inputs, outputs, device="meta")
        linear.weight, linear.bias = affine.weight, affine.bias
        return [linear] if len(affine.shape) == 1 else [nn.Flatten(), linear]
    if isinstance(affine, Conv2d):
        outputs, inputs, kernel, _ = affine.weight.shape
        convolution = nn.Conv2d(inputs, outputs, kernel, affine.stride, affine.padding, device="meta")
        convolution.weight, convolution.bias = affine.weight, affine.bias
        return [convolution]
    raise ConfigError(f"study=benchmark knows no plain module for {type(affine).__name__}: use the maps of ebmrun")


def _activation(f: Activation) -> nn.Module:
    if isinstance(f, LeakyRelu):
        return nn.LeakyReLU(f.slope)
    if isinstance(f, Clip):
        return Clamp(f.low, f.high)
    if type(f) in MODULES:
        return MODULES[type(f)]()
    raise ConfigError(f"study=benchmark knows no plain module for {type(f).__name__}: use an activation of ebmrun")


def loss(cost: Cost) -> Loss:
    """The mean cost of a batch by a function of torch. Raises ConfigError for a cost that has none."""
    if isinstance(cost, SquaredError):
        return lambda output, y: F.mse_loss(output, y, reduction="sum") / (2 * len(y))
    if isinstance(cost, CrossEntropy) and isinstance(cost.output, Identity):
        return F.cross_entropy
    pair = f"{type(cost).__name__} of {type(cost.output).__name__} outputs"
    raise ConfigError(f"study=benchmark knows no plain loss for {pair}: use cost=squared_error, or "
                      "cost=cross_entropy with arch.output=identity")


def gradient(model: nn.Module, mean_cost: Loss, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward pass of one batch."""
    return torch.autograd.grad(mean_cost(model(x), y), list(model.parameters()))


def epoch(
    model: nn.Module, mean_cost: Loss, optimizer: torch.optim.Optimizer, train: Split, size: int
) -> None:
    """One epoch over tensors in memory, with nothing measured."""
    for index in torch.randperm(len(train), device=train.inputs.device).split(size):
        optimizer.zero_grad()
        mean_cost(model(train.inputs[index]), train.targets[index]).backward()
        optimizer.step()
