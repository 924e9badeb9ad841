"""A network: layers l = 1..L, each an affine map A_l and a unit f_l, and the two architectures that ship.

    a_l = A_l(x_{l-1}),      forward pass: x_l = f_l(a_l)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ebmrun.errors import ConfigError
from ebmrun.theory.affine import AffineMap, AvgPool2d, Chain, Conv2d, Linear
from ebmrun.theory.units import UNITS, Softmax, Unit, unit


class Layer(nn.Module):
    """One affine map followed by one unit."""

    def __init__(self, affine: AffineMap, activation: Unit) -> None:
        super().__init__()
        self.affine, self.unit = affine, activation


class Network(nn.Module):
    """Layers from inputs to output, and the gain of their initial weights.

    Raises ConfigError for softmax units below the output, and for a gain that is not positive."""

    def __init__(self, layers: Sequence[Layer], gain: float = 1.0) -> None:
        super().__init__()
        if isinstance(gain, bool) or not isinstance(gain, (int, float)) or not 0 < gain < math.inf:
            raise ConfigError(f"arch.gain={gain} must be a positive number: 1 is usual, 1.7 keeps signals in deep nets")
        self.gain = gain
        self.layers = cast(Sequence[Layer], nn.ModuleList(layers))
        self.maps = [layer.affine for layer in layers]  # as lists, without what modules cost at each access
        self.units = [layer.unit for layer in layers]
        for l, layer in enumerate(layers[:-1], 1):
            if isinstance(layer.unit, Softmax):
                raise ConfigError(f"layer {l} has softmax units: they belong at the output, choose another activation")

    def forward(self, x: Float[Tensor, "batch *inputs"]) -> Float[Tensor, "batch outputs"]:
        for affine, f in zip(self.maps, self.units):
            x = f(affine(x))
        return x

    @cached_property
    def weights(self) -> list[nn.Parameter]:
        """``parameters()`` as a list, which costs a walk through the modules only once."""
        return list(self.parameters())

    @property
    def named_units(self) -> dict[str, Unit]:
        """The units of the layers, each once, by their name in ``arch.activation`` or else that of their class."""
        names = {id(f): name for name, f in UNITS.items()}
        return {names.get(id(layer.unit), type(layer.unit).__name__): layer.unit for layer in self.layers}

    @property
    def output(self) -> Unit:
        return self.layers[-1].unit

    def by_layer(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Tensors in the order of ``parameters()``, grouped by the layer that they belong to."""
        rest = iter(tensors)
        return [[next(rest) for _ in layer.parameters()] for layer in self.layers]


def initialise(network: Network, seed: int) -> Network:
    """Weights uniform in +-gain/sqrt(fan-in) (Glorot & Bengio 2010, equation 1), biases in +-1/sqrt(fan-in), drawn on
    the CPU so that every device and every precision starts from the same numbers for the same seed. A gain of sqrt(3)
    gives weights the variance 1/fan-in, with which linear units keep the size of a signal through any depth (LeCun et
    al. 1998)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (Linear, Conv2d)):
                bound = 1 / math.sqrt(module.weight[0].numel())
                for parameter, gain in ((module.weight, network.gain), (module.bias, 1.0)):
                    draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_((2 * draw - 1) * bound * gain)
    return network


def require_affine(network: Network) -> None:
    """Checks each layer's map on random inputs: one example must not change another's drive, and the map must be
    affine. Raises ConfigError naming the layer, as for BatchNorm, whose energy is not a sum over examples."""
    generator = torch.Generator().manual_seed(0)
    for l, layer in enumerate(network.layers, 1):
        like = next(layer.parameters(), torch.empty(()))
        x, y = torch.randn(2, 3, *layer.affine.shape, generator=generator, dtype=torch.float64).to(like)
        with torch.no_grad():
            # A map that cannot take one example at all (BatchNorm over units) couples examples too.
            try:
                alone = torch.cat([layer.affine(x[:1]), layer.affine(x[1:])])
            except ValueError:
                alone = None
            together = layer.affine(x)
            scale = (together - layer.affine(torch.zeros_like(x))).abs().max()
            tolerance = 100 * torch.finfo(like.dtype).eps ** 0.75
            if alone is None or (alone - together).abs().max() > tolerance * scale:
                raise ConfigError(f"layer {l} couples the examples of a batch (as BatchNorm does), so that no energy "
                                  "of one example exists: remove that layer, or use a map that acts on each example")
            bend = layer.affine(x + y) - layer.affine(y) - (together - layer.affine(torch.zeros_like(x)))
            if bend.abs().max() > tolerance * scale:
                raise ConfigError(f"layer {l} has a map that is not affine: move its nonlinearity into arch.activation")


def _positive(name: str, values: Sequence[int]) -> None:
    if not isinstance(values, (list, tuple)):
        one = values if isinstance(values, int) else 128
        raise ConfigError(f"{name}={values} must be a list: write {name}=[{one}] for one entry, {name}=[] for none")
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name}={list(values)} holds {value}: every entry must be an integer of 1 or more")


def mlp(
    shape: Sequence[int], classes: int, hidden: Sequence[int], activation: str, output: str, gain: float = 1.0
) -> Network:
    """A fully connected network of any depth and width; ``hidden=[]`` is a single layer."""
    _positive("arch.hidden", hidden)
    layers = []
    for width in hidden:
        layers.append(Layer(Linear(shape, width), unit(activation)))
        shape = (width,)
    return Network([*layers, Layer(Linear(shape, classes), unit(output))], gain)


def cnn(
    shape: Sequence[int],
    classes: int,
    channels: Sequence[int],
    kernel: int,
    stride: int,
    pool: int,
    hidden: Sequence[int],
    activation: str,
    output: str,
    gain: float = 1.0,
) -> Network:
    """Convolutions, each followed by average pooling inside the same affine map, then fully connected layers."""
    _positive("arch.channels", channels)
    _positive("arch.hidden", hidden)
    for name, value in (("arch.kernel", kernel), ("arch.stride", stride), ("arch.pool", pool)):
        _positive(name, [value])
    if not channels:
        raise ConfigError("arch.channels=[] has no convolution: give one number of channels or more, or use arch=mlp")
    layers = []
    for width in channels:
        if len(shape) != 3:
            raise ConfigError(f"inputs of shape {tuple(shape)} are no images: arch=cnn needs (channels, height, width)")
        convolution = Conv2d(shape, width, kernel, stride, padding=kernel // 2)
        affine = Chain(convolution, AvgPool2d(convolution.output_shape, pool)) if pool > 1 else convolution
        layers.append(Layer(affine, unit(activation)))
        shape = affine.output_shape
    dense = mlp(shape, classes, hidden, activation, output)
    return Network([*layers, *dense.layers], gain)
