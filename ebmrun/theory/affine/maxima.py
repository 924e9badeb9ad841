"""Maxima of images."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Inexact
from torch import Tensor
from torch.nn import functional as F

from ebmrun.theory.affine.abstract import AffineMap, Anchor, In, Map, Out
from ebmrun.theory.affine.images import Image, pooled, spread
from ebmrun.theory.affine.piece import Piece, Rows, Winners

Squares = Inexact[Tensor, "batch channels _ _ _ _"]


@final
class MaxPool2d(Map):
    """Maxima of the affine map ``inner`` over squares of side ``size``, which do not overlap; a remainder at the border
    is left out.

    A piece is the place of each square's winner. Around x0, with the gaps g_j = inner(x0)_j - max_k inner(x0)_k <= 0
    inside a square as the anchor, A(x0 + dx) - A(x0) = max_j (g_j + (J dx)_j): nothing of the size of inner(x0) is
    subtracted, and a new winner is found. Where winners tie, a mixture of pieces has each place's share in its square's
    maximum.
    """

    def __init__(self, inner: AffineMap, size: int) -> None:
        super().__init__(inner.shape, pooled(inner.output_shape, size))
        self.inner, self.size = inner, size

    def forward(self, x: In) -> Out:
        return F.max_pool2d(self.inner.forward(x), self.size)

    def trace(self, x: In) -> tuple[Out, Winners]:
        return self._maxima(self.inner.forward(x))

    def anchor(self, piece: Piece) -> Anchor:
        assert piece is not None, "increments of a maximum count from a piece"
        maxima = piece.image.flatten(2).gather(2, piece.places.flatten(2)).view_as(piece.places)
        return piece.image - spread(maxima, piece.image.shape[1:], self.size)

    def increment(self, dx: In, anchor: Anchor = None) -> tuple[Out, Winners]:
        assert anchor is not None, "increments of a maximum need their anchor"
        return self._maxima(anchor + self.inner.linear(dx))

    def tangent(self, dx: In, piece: Piece = None) -> Out:
        assert piece is not None, "the linear part of a maximum depends on its piece"
        image = self.inner.linear(dx)
        found = image.flatten(2).gather(2, piece.places.flatten(2)).view(len(dx), *self.output_shape)
        if piece.ties is not None and piece.shares is not None:
            at = piece.at(piece.ties)
            found[at] = (self.squares(image)[at].flatten(1) * piece.shares).sum(1)
        return found

    def variance(self, v: In) -> Out:
        return F.max_pool2d(self.inner.variance(v), self.size)

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        return self.inner.adjoint(self.unpooled(message, piece))

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        return self.inner.gradient(self.unpooled(message, piece), x, None, constant)

    def unpooled(self, message: Out, piece: Piece) -> Image:
        """The message of each square at its winner, or in shares."""
        assert piece is not None, "the adjoint of a maximum depends on its piece"
        like = message.new_empty(()).expand(len(message), *self.inner.output_shape)
        image: Image = torch.ops.aten.max_pool2d_with_indices_backward(
            message, like, [self.size] * 2, [self.size] * 2, [0, 0], [1, 1], False, piece.places)
        if piece.ties is not None and piece.shares is not None:
            at = piece.at(piece.ties)
            self.squares(image)[at] = (message[at][:, None] * piece.shares).unflatten(1, (self.size, self.size))
        return image

    def squares(self, image: Image) -> Squares:
        """The numbers of each square, in rows and columns of its own: a view."""
        return image.unfold(2, self.size, self.size).unfold(3, self.size, self.size)

    def alone(self, piece: Winners, at: tuple[Tensor, ...]) -> Rows:
        """The shares of the places of some squares where the winner takes all."""
        row, column = piece.places[at] // piece.image.shape[3], piece.places[at] % piece.image.shape[3]
        place = (row - at[2] * self.size) * self.size + column - at[3] * self.size
        return F.one_hot(place, self.size**2).to(piece.image.dtype)

    def _maxima(self, image: Image) -> tuple[Out, Winners]:
        apart = image.contiguous(memory_format=torch.channels_last)  # in which a CPU finds them three times as fast
        maxima, places = F.max_pool2d(apart, self.size, return_indices=True)
        return maxima.contiguous(), Winners(places.contiguous(), image)
