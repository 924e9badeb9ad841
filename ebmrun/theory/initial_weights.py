"""The weights that a network starts from."""

from __future__ import annotations

import math

import torch

from ebmrun.theory.affine import Conv2d, Linear
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
                if isinstance(module, (Linear, Conv2d)):
                    bound = 1 / math.sqrt(module.weight[0].numel())
                    for parameter, scale in ((module.weight, gain * module.gain), (module.bias, module.gain)):
                        draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                        parameter.copy_((2 * draw - 1) * bound * scale)
    return network
