"""Maps of vectors: the identity, and a full matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from ebmrun.theory.affine.abstract import AffineMap, In, Out, Piece
from ebmrun.theory.affine.weighted import Weighted


@final
class Skip(AffineMap):
    """a = x: the identity, which costs no product."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, shape)

    def forward(self, x: In) -> Out:
        return x

    def linear(self, dx: In) -> Out:
        return dx

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        return message

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        return []

    def variance(self, v: In) -> Out:
        return v


@final
class Linear(Weighted):
    """a = W vec(x) + b with W of shape (outputs, inputs); inputs of any shape are laid out in one row."""

    def __init__(self, shape: Sequence[int], outputs: int, gain: float = 1.0) -> None:
        super().__init__(shape, (outputs,), (outputs, math.prod(shape)), gain)

    def forward(self, x: In) -> Out:
        return F.linear(x if x.ndim == 2 else x.flatten(1), self.own["weight"], self.own["bias"])

    def linear(self, dx: In) -> Out:
        return F.linear(dx if dx.ndim == 2 else dx.flatten(1), self.own["weight"])

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        down = torch.mm(message, self.down["weight"])
        return down if len(self.shape) == 1 else down.view(down.shape[0], *self.shape)

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        bias = message.sum(0) if constant else torch.zeros_like(self.bias)
        return [torch.mm(message.t(), x if x.ndim == 2 else x.flatten(1)), bias]

    def variance(self, v: In) -> Out:
        return F.linear(v.flatten(1), self.weight.square())
