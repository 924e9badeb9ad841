"""Maps of images, whose shape is (channels, height, width)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ebmrun.errors import ConfigError
from ebmrun.theory.affine.abstract import AffineMap, Anchor, In, Map, Out, Piece
from ebmrun.theory.affine.weighted import Weighted

Image = Float[Tensor, "batch channels height width"]
Squares = Float[Tensor, "batch channels _ _ places"]

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


@final
class MaxPool2d(Map):
    """Maxima of the affine map ``inner`` over squares of side ``size``, which do not overlap; a remainder at the border
    is left out.

    A piece is the place of each square's winner. Around x0, with the gaps g_j = inner(x0)_j - max_k inner(x0)_k <= 0
    inside a square as the anchor, A(x0 + dx) - A(x0) = max_j (g_j + (J dx)_j): nothing of the size of inner(x0) is
    subtracted, and a new winner is found. Where winners tie, a mixture of pieces is the share of each place in its
    square's maximum, in the shape of the image.
    """

    def __init__(self, inner: AffineMap, size: int) -> None:
        super().__init__(inner.shape, pooled(inner.output_shape, size))
        self.inner, self.size = inner, size

    def forward(self, x: In) -> Out:
        return F.max_pool2d(self.inner.forward(x), self.size)

    def trace(self, x: In) -> tuple[Out, Piece]:
        return self._winners(self.inner.forward(x))

    def anchor(self, x0: In) -> Anchor:
        image = self.inner.forward(x0)
        return image - spread(F.max_pool2d(image, self.size), image.shape[1:], self.size)

    def increment(self, dx: In, anchor: Anchor = None) -> tuple[Out, Piece]:
        assert anchor is not None, "increments of a maximum need their anchor"
        return self._winners(anchor + self.inner.linear(dx))

    def tangent(self, dx: In, piece: Piece = None) -> Out:
        assert piece is not None, "the linear part of a maximum depends on its piece"
        image = self.inner.linear(dx)
        if piece.is_floating_point():
            return F.avg_pool2d(image * piece, self.size) * self.size**2
        return image.flatten(2).gather(2, piece.flatten(2)).view(len(dx), *self.output_shape)

    def variance(self, v: In) -> Out:
        return F.max_pool2d(self.inner.variance(v), self.size)

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        return self.inner.adjoint(self.unpooled(message, piece))

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        return self.inner.gradient(self.unpooled(message, piece), x, None, constant)

    def unpooled(self, message: Out, piece: Piece) -> Image:
        """The message of each square at its winner, in one kernel; or in shares."""
        if piece is not None and piece.is_floating_point():
            return spread(message, self.inner.output_shape, self.size) * piece
        like = message.new_empty(()).expand(len(message), *self.inner.output_shape)
        unpooled: Image = torch.ops.aten.max_pool2d_with_indices_backward(
            message, like, [self.size] * 2, [self.size] * 2, [0, 0], [1, 1], False, piece)
        return unpooled

    def squares(self, image: Image) -> Squares:
        """The numbers of each square, side by side."""
        channels, height, width = self.output_shape
        whole = image[:, :, : height * self.size, : width * self.size]
        cut = whole.reshape(len(image), channels, height, self.size, width, self.size)
        return cut.transpose(3, 4).flatten(4)

    def joined(self, squares: Squares) -> Float[Tensor, "batch channels _ _"]:
        """The image of such numbers, with zeros on what is left out."""
        whole = squares.unflatten(4, (self.size, self.size)).transpose(3, 4).flatten(4, 5).flatten(2, 3)
        _, height, width = self.inner.output_shape
        return F.pad(whole, (0, width - whole.shape[3], 0, height - whole.shape[2]))

    def _winners(self, image: Image) -> tuple[Out, Piece]:
        return F.max_pool2d(image, self.size, return_indices=True)


def pooled(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """The shape of one number for each square of side ``size``. Raises ConfigError where none fits."""
    if size > min(shape[1:]):
        raise ConfigError(f"a pool of {size} is larger than its input {tuple(shape)}: use a smaller arch.pool")
    return (shape[0], *(n // size for n in shape[1:]))


def spread(image: Image, shape: Sequence[int], size: int) -> Float[Tensor, "batch channels _ _"]:
    """Each number laid over its square of side ``size``, with zeros on what is left of ``shape``."""
    laid = image.repeat_interleave(size, 2).repeat_interleave(size, 3)
    return F.pad(laid, (0, shape[2] - laid.shape[3], 0, shape[1] - laid.shape[2]))
