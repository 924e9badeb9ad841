"""Maps whose products are of bfloat16 numbers, which have the range of float32 and 8 bits.

Both factors are rounded to them, and sums of products again, as torch has it. A bias, a mean, and the choice of a
winner are no products, and keep all digits.
"""

from __future__ import annotations

from copy import copy
from typing import final

import torch
from torch import Tensor, nn

from ebmrun.errors import ConfigError
from ebmrun.theory.affine.abstract import AffineMap, In, Map, Out, Piece
from ebmrun.theory.affine.composed import Chain, Wrapped
from ebmrun.theory.affine.dense import Linear, Skip
from ebmrun.theory.affine.images import AvgPool2d, Conv2d
from ebmrun.theory.affine.maxima import MaxPool2d


@final
class Bfloat16(AffineMap):
    """A full matrix or a convolution, of whose weights it takes the present values."""

    def __init__(self, whole: Linear | Conv2d) -> None:
        super().__init__(whole.shape, whole.output_shape)
        low = copy(whole)
        low.own = {"weight": whole.weight.bfloat16()}
        low.down = low.own if whole.down is whole.own else {"weight": whole.down["weight"].bfloat16()}
        self.whole, self.product = whole, (low,)  # in a tuple, so that parameters are registered once
        self.bias = whole.bias.view(-1, *[1] * (len(whole.output_shape) - 1))

    def forward(self, x: In) -> Out:
        return self.linear(x) + self.bias

    def linear(self, dx: In) -> Out:
        return self.product[0].linear(dx.bfloat16()).to(dx.dtype)

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        return self.product[0].adjoint(message.bfloat16()).to(message.dtype)

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        weight, bias = self.product[0].gradient(message.bfloat16(), x.bfloat16(), None, False)
        if constant:
            bias = message.sum([axis for axis in range(message.ndim) if axis != 1])
        return [weight.to(message.dtype), bias]

    def variance(self, v: In) -> Out:
        return self.whole.variance(v)


@final
class Autocast(nn.Module):
    """A module with those products in bfloat16 that ``torch.autocast`` takes for safe."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            outputs: Tensor = self.module(x)
        return outputs.to(x.dtype)


def in_bfloat16(affine: Map) -> Map:
    """The same map with its products in bfloat16. Raises ConfigError for one whose products are not known."""
    if isinstance(affine, MaxPool2d):
        return MaxPool2d(_affine_in_bfloat16(affine.inner), affine.size)
    if isinstance(affine, AffineMap):
        return _affine_in_bfloat16(affine)
    raise unknown(affine)


def _affine_in_bfloat16(affine: AffineMap) -> AffineMap:
    if isinstance(affine, (Skip, AvgPool2d)):
        return affine
    if isinstance(affine, (Linear, Conv2d)):
        return Bfloat16(affine)
    if isinstance(affine, Chain):
        return Chain(*map(_affine_in_bfloat16, affine.maps))
    if isinstance(affine, Wrapped):
        return Wrapped(affine.shape, Autocast(affine.module))
    raise unknown(affine)


def unknown(affine: Map) -> ConfigError:
    return ConfigError(f"precision=bf16 does not know the products of {type(affine).__name__}, a map of your own: use "
                       "precision=float32, or maps of ebmrun (Wrapped takes any affine module)")
