"""The architectures that ship: chains of dense or convolutional layers, and residual networks of either kind.

A residual block adds a branch of two maps to the states s that run past it,

    h = f(A_1 s),      s <- g(s + A_2 h)

with g the identity by default: states and messages then pass any number of blocks unchanged but for what the branches
add, and no kink lies on their way. No normalisation is needed: the branches' initial weights have the variance 1/fan-in
(LeCun et al. 1998), and those of A_2, with B blocks, are 1/sqrt(B) as large, so that over all blocks the variance of s
grows by a factor that depth does not change (De & Smith 2020; Hayou et al. 2021), about sqrt(e) with ReLU units. The
output layer starts at 0.3 of its size (Zhang, Dauphin & Ma 2019 start it at 0), without which the curvature of the
cost, a sum over blocks, exceeds what a learning rate for shallow networks can bear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import activation as activation_of
from ebmrun.theory.affine import AffineMap, AvgPool2d, Chain, Conv2d, Linear, Map, MaxPool2d, Skip
from ebmrun.theory.network import Layer, Network

Shape = Sequence[int]
Gain = float | Sequence[float]
Each = int | Sequence[int]  # one number for all convolutions, or a list of one for each

LECUN = math.sqrt(3)  # the gain with which weights have the variance 1/fan-in
OUTPUT = 0.3  # the gain of a residual network's output layer


def mlp(
    shape: Shape, classes: int, hidden: Sequence[int], activation: str, output: str, gain: Gain = 1.0
) -> Network:
    """A fully connected network of any depth and width; ``hidden=[]`` is a single layer."""
    return Network(_dense([], shape, classes, hidden, activation, output), gain)


def cnn(
    shape: Shape,
    classes: int,
    channels: Sequence[int],
    kernel: Each,
    stride: Each,
    pool: Each,
    hidden: Sequence[int],
    activation: str,
    output: str,
    gain: Gain = 1.0,
    pooling: str = "avg",
    padding: Each | None = None,
) -> Network:
    """Convolutions, each followed by pooling inside the same map (``pooling``: the mean or the maximum of squares of
    side ``pool``; 1 for none), then fully connected layers. ``padding=null`` is half the kernel."""
    _channels(channels)
    if pooling not in ("avg", "max"):
        raise ConfigError(f"arch.pooling={pooling} is unknown: use avg or max")
    kernels, strides, pools = (_each(f"arch.{name}", value, len(channels), 1) for name, value in (
        ("kernel", kernel), ("stride", stride), ("pool", pool)))
    halves = [each // 2 for each in kernels]
    paddings = halves if padding is None else _each("arch.padding", padding, len(channels), 0)
    layers: list[Layer] = []
    for width, *window, size in zip(channels, kernels, strides, paddings, pools):
        affine = _pooled(Conv2d(_image(shape, "cnn"), width, *window), size, pooling)
        layers.append(Layer([(len(layers), affine)], activation_of(activation)))
        shape = affine.output_shape
    return Network(_dense(layers, shape, classes, hidden, activation, output), gain)


def resmlp(
    shape: Shape, classes: int, width: int, depth: int, activation: str, stream: str, output: str, gain: Gain = 1.0
) -> Network:
    """``depth`` dense layers: one in, blocks of two with a skip around them, one out. ``stream`` is the activation g
    where a skip ends; a Hopfield energy with full feedback needs a bounded one, such as hard_sigmoid."""
    _integer("arch.width", width)
    _integer("arch.depth", depth)
    if depth % 2:
        raise ConfigError(f"arch.depth={depth} must be an even number of 2 or more: a layer in, blocks of two, one out")
    layers, blocks = [Layer([(0, Linear(shape, width))], activation_of(stream), "in")], (depth - 2) // 2
    for block in range(1, blocks + 1):
        branch = Linear((width,), width, LECUN), Linear((width,), width, LECUN / math.sqrt(blocks))
        layers = _residual(layers, f"block{block}", branch, Skip((width,)), activation, stream)
    out = Layer([(len(layers), Linear((width,), classes, OUTPUT))], activation_of(output), "out")
    return Network([*layers, out], gain)


def resnet(
    shape: Shape,
    classes: int,
    channels: Sequence[int],
    blocks: int,
    kernel: int,
    activation: str,
    stream: str,
    output: str,
    gain: Gain = 1.0,
) -> Network:
    """A convolution, for each number of ``channels`` that many ``blocks`` of two convolutions with a skip around them,
    and a dense layer over means of each channel in a grid of 4 x 4. Every number of channels but the first halves the
    image, by a stride of 2 in its first convolution and in a 1x1 convolution on the skip (He et al. 2016). ``stream``
    is as in ``resmlp``."""
    _channels(channels)
    _integer("arch.blocks", blocks)
    _integer("arch.kernel", kernel)
    if kernel % 2 == 0:
        raise ConfigError(f"arch.kernel={kernel} must be odd, so that a skip fits around it: use {kernel + 1}")
    first = Conv2d(_image(shape, "resnet"), channels[0], kernel, 1, kernel // 2)
    layers, here = [Layer([(0, first)], activation_of(stream), "in")], first.output_shape
    for stage, width in enumerate(channels, 1):
        for block in range(1, blocks + 1):
            halves = 2 if stage > 1 and block == 1 else 1
            inner = Conv2d(here, width, kernel, halves, kernel // 2, LECUN)
            outer = Conv2d(inner.output_shape, width, kernel, 1, kernel // 2, LECUN / math.sqrt(blocks * len(channels)))
            skip: Map = Skip(here) if here == outer.output_shape else Conv2d(here, width, 1, halves, gain=LECUN)
            layers = _residual(layers, f"stage{stage}.block{block}", (inner, outer), skip, activation, stream)
            here = outer.output_shape
    means = AvgPool2d(here, max(1, min(here[1:]) // 4))
    head = Chain(means, Linear(means.output_shape, classes, OUTPUT))
    return Network([*layers, Layer([(len(layers), head)], activation_of(output), "out")], gain)


def _dense(
    layers: Sequence[Layer], shape: Shape, classes: int, hidden: Sequence[int], activation: str, output: str
) -> list[Layer]:
    """``layers``, whose last has states of ``shape``, and fully connected ones above them."""
    _integers("arch.hidden", hidden)
    layers = list(layers)
    for width in hidden:
        layers.append(Layer([(len(layers), Linear(shape, width))], activation_of(activation)))
        shape = (width,)
    return [*layers, Layer([(len(layers), Linear(shape, classes))], activation_of(output))]


def _residual(
    layers: Sequence[Layer], name: str, branch: tuple[Map, Map], skip: Map, activation: str, stream: str
) -> list[Layer]:
    """``layers``, and a block above the last of them: the inner layer, and the sum with the skip around it."""
    below, (inner, outer) = len(layers), branch
    return [*layers, Layer([(below, inner)], activation_of(activation), f"{name}.inner"),
            Layer([(below + 1, outer), (below, skip)], activation_of(stream), f"{name}.sum")]


def _pooled(affine: AffineMap, size: int, pooling: str) -> Map:
    if size == 1:
        return affine
    return MaxPool2d(affine, size) if pooling == "max" else Chain(affine, AvgPool2d(affine.output_shape, size))


def _image(shape: Shape, arch: str) -> Shape:
    if len(shape) != 3:
        raise ConfigError(f"inputs of shape {tuple(shape)} are no images: arch={arch} needs (channels, height, width)")
    return shape


def _channels(channels: Sequence[int]) -> None:
    _integers("arch.channels", channels)
    if not channels:
        raise ConfigError("arch.channels=[] has no convolution: give one number of channels or more, or use arch=mlp")


def _each(name: str, value: Each, count: int, least: int) -> list[int]:
    """One number for each of ``count`` convolutions. Raises ConfigError for others than integers from ``least`` on."""
    if not isinstance(value, Sequence):
        _integer(name, value, least)
        return [value] * count
    _integers(name, value, least)
    if len(value) != count:
        raise ConfigError(f"{name}={value} and arch.channels have different lengths ({len(value)} and {count}): use "
                          "one number, or one for each convolution")
    return list(value)


def _integers(name: str, values: Sequence[int], least: int = 1) -> None:
    if not isinstance(values, (list, tuple)):
        one = values if isinstance(values, int) else 128
        raise ConfigError(f"{name}={values} must be a list: write {name}=[{one}] for one entry, {name}=[] for none")
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name}={list(values)} holds {value}: every entry must be an integer of {least} or more")


def _integer(name: str, value: int, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}={value} must be an integer of {least} or more")
