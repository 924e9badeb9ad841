"""The weights that a network starts from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ebmrun.theory.affine import Weighted
from ebmrun.theory.network import Network


def initialise(network: Network, seed: int) -> Network:
    """Weights uniform in +-gain/sqrt(fan-in) (Glorot & Bengio 2010, equation 1), biases in +-1/sqrt(fan-in), drawn on
    the CPU so that every device and every precision starts from the same numbers for the same seed. A gain of sqrt(3)
    gives weights the variance 1/fan-in, with which linear units keep the size of a signal through any depth (LeCun et
    al. 1998). Maps that wrap a module keep the weights that it was made with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer, gain in zip(network.layers, network.gains):
            for module in layer.modules():
                if isinstance(module, Weighted):
                    for parameter, scale in ((module.weight, gain), (module.bias, 1.0)):
                        draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                        parameter.copy_(uniform(draw, module, scale))
    return network


def uniform(draw: Tensor, affine: Weighted, gain: float) -> Tensor:
    """Numbers in +-gain/sqrt(fan-in), times the gain of the map itself, from some in [0, 1)."""
    return (2 * draw - 1) * (1 / math.sqrt(affine.weight[0].numel())) * (gain * affine.gain)
