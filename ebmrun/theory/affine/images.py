"""Maps of images, whose shape is (channels, height, width)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ebmrun.errors import ConfigError
from ebmrun.theory.affine.abstract import AffineMap, In, Out, Piece
from ebmrun.theory.affine.weighted import Weighted

Image = Float[Tensor, "batch channels height width"]

convolution_backward = torch.ops.aten.convolution_backward.default  # for weights and biases at once


@final
class Conv2d(Weighted):
    """A convolution of a square kernel. Raises ConfigError for one larger than its input."""

    def __init__(
        self, shape: Sequence[int], channels: int, kernel: int, stride: int = 1, padding: int = 0, gain: float = 1.0
    ) -> None:
        if kernel > min(shape[1:]) + 2 * padding:
            raise ConfigError(f"a kernel of {kernel} is larger than its input {tuple(shape)}: use a smaller "
                              "arch.kernel")
        super().__init__(shape, (channels, *((n + 2 * padding - kernel) // stride + 1 for n in shape[1:])),
                         (channels, shape[0], kernel, kernel), gain)
        self.stride, self.padding = stride, padding
        self.remainder = [(n + 2 * padding - kernel) % stride for n in shape[1:]]  # what the last stride leaves over

    def forward(self, x: In) -> Out:
        return F.conv2d(x, self.own["weight"], self.own["bias"], self.stride, self.padding)

    def linear(self, dx: In) -> Out:
        return F.conv2d(dx, self.own["weight"], None, self.stride, self.padding)

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        return F.conv_transpose2d(message, self.down["weight"], None, self.stride, self.padding, self.remainder)

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        stride, padding = [self.stride] * 2, [self.padding] * 2
        _, weight, bias = convolution_backward(message, x, self.own["weight"], [message.shape[1]], stride, padding,
                                               [1, 1], False, [0, 0], 1, [False, True, constant])
        return [weight, bias if constant else torch.zeros_like(self.bias)]

    def variance(self, v: In) -> Out:
        return F.conv2d(v, self.weight.square(), None, self.stride, self.padding)


@final
class AvgPool2d(AffineMap):
    """Means over non-overlapping squares of side ``size``; a remainder at the border is left out."""

    def __init__(self, shape: Sequence[int], size: int) -> None:
        super().__init__(shape, pooled(shape, size))
        self.size = size

    def forward(self, x: In) -> Out:
        return F.avg_pool2d(x, self.size)

    def linear(self, dx: In) -> Out:
        return self.forward(dx)

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        return spread(message, self.shape, self.size) / self.size**2

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        return []

    def variance(self, v: In) -> Out:
        return self.forward(v)  # a bound however the inputs of a square depend on each other


def pooled(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """The shape of one number for each square of side ``size``. Raises ConfigError where none fits."""
    if size > min(shape[1:]):
        raise ConfigError(f"a pool of {size} is larger than its input {tuple(shape)}: use a smaller arch.pool")
    return (shape[0], *(n // size for n in shape[1:]))


def spread(image: Image, shape: Sequence[int], size: int) -> Float[Tensor, "batch channels _ _"]:
    """Each number laid over its square of side ``size``, with zeros on what is left of ``shape``."""
    laid = image.repeat_interleave(size, 2).repeat_interleave(size, 3)
    return F.pad(laid, (0, shape[2] - laid.shape[3], 0, shape[1] - laid.shape[2]))
