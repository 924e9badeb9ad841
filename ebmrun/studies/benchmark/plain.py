"""What a user of plain PyTorch would write: the yardstick of the benchmark."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ebmrun.data.sets import Split
from ebmrun.errors import ConfigError
from ebmrun.theory.affine import AvgPool2d, Chain, Conv2d, Linear
from ebmrun.theory.cost import Cost, CrossEntropy, SquaredError
from ebmrun.theory.network import Network
from ebmrun.theory.units import HardSigmoid, Identity, Relu, Sigmoid, Softmax, Tanh, Unit

Loss = Callable[[Tensor, Tensor], Tensor]


class HardClip(nn.Module):
    """clip(a, 0, 1), for which torch.nn has no module that bounds there."""

    def forward(self, a: Tensor) -> Tensor:
        return a.clamp(0, 1)


ACTIVATIONS: dict[type[Unit], Callable[[], nn.Module]] = {
    Identity: nn.Identity,
    Relu: nn.ReLU,
    Tanh: nn.Tanh,
    Sigmoid: nn.Sigmoid,
    HardSigmoid: HardClip,
    Softmax: lambda: nn.Softmax(1),
}


def sequential(network: Network) -> nn.Sequential:
    """The network as modules of torch.nn that hold the very same parameters, in the same order.

    Raises ConfigError for an affine map that has no such module.
    """
    modules: list[nn.Module] = []
    for layer in network.layers:
        maps = layer.affine.maps if isinstance(layer.affine, Chain) else [layer.affine]
        for affine in maps:
            if isinstance(affine, Linear) and len(affine.shape) > 1:
                modules.append(nn.Flatten())
            modules.append(_module(affine))
        modules.append(ACTIVATIONS[type(layer.unit)]())
    return nn.Sequential(*modules)


def _module(affine: nn.Module) -> nn.Module:
    if isinstance(affine, AvgPool2d):
        return nn.AvgPool2d(affine.size)
    if isinstance(affine, Linear):
        outputs, inputs = affine.weight.shape
        module: nn.Module = nn.Linear(inputs, outputs, device="meta")
    elif isinstance(affine, Conv2d):
        outputs, inputs, kernel, _ = affine.weight.shape
        module = nn.Conv2d(inputs, outputs, kernel, affine.stride, affine.padding, device="meta")
    else:
        kind = type(affine).__name__
        raise ConfigError(f"study=benchmark knows no plain module for {kind}: choose arch=mlp or cnn")
    module.weight, module.bias = affine.weight, affine.bias
    return module


def loss(cost: Cost) -> Loss:
    """The mean cost of a batch by a function of torch. Raises ConfigError for a cost that has none."""
    if isinstance(cost, SquaredError):
        return lambda output, y: F.mse_loss(output, y, reduction="sum") / (2 * len(y))
    if isinstance(cost, CrossEntropy) and isinstance(cost.output, Identity):
        return F.cross_entropy
    pair = f"{type(cost).__name__} of {type(cost.output).__name__} outputs"
    raise ConfigError(f"study=benchmark knows no plain loss for {pair}: use cost=squared_error, or "
                      "cost=cross_entropy with arch.output=identity")


def gradient(model: nn.Sequential, mean_cost: Loss, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Forward and backward pass of one batch."""
    return torch.autograd.grad(mean_cost(model(x), y), list(model.parameters()))


def epoch(
    model: nn.Sequential, mean_cost: Loss, optimizer: torch.optim.Optimizer, train: Split, size: int
) -> None:
    """One epoch over tensors in memory, with nothing measured."""
    for index in torch.randperm(len(train), device=train.inputs.device).split(size):
        optimizer.zero_grad()
        mean_cost(model(train.inputs[index]), train.targets[index]).backward()
        optimizer.step()
