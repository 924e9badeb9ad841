"""What a map is: a = A(x), from the state of one layer to the drive of another, affine or piecewise affine.

Relaxation sends states up through A and messages down through its adjoint; learning asks for d<m, A(x)>/dtheta. A class
is abstract or final.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Inexact
from torch import Tensor, nn

from ebmrun.theory.affine.piece import Piece

In = Inexact[Tensor, "batch *inputs"]
Out = Inexact[Tensor, "batch *outputs"]
Anchor = Inexact[Tensor, "batch ..."] | None

PROBES = 64  # which leave a sixth of a variance uncertain


class Map(nn.Module, ABC):
    """A map from inputs of ``shape`` to outputs of ``output_shape`` (both without the batch axis), affine on pieces:
    with J and b of the piece that x lies on, A(x) = J x + b."""

    def __init__(self, shape: Sequence[int], output_shape: Sequence[int]) -> None:
        super().__init__()
        self.shape, self.output_shape = tuple(shape), tuple(output_shape)

    def __call__(self, x: In) -> Out:
        """A(x), without what a module does around its ``forward``: relaxation calls it thousands of times a second."""
        return self.forward(x)

    @abstractmethod
    def forward(self, x: In) -> Out:
        """A(x)."""

    @abstractmethod
    def trace(self, x: In) -> tuple[Out, Piece]:
        """A(x), and the piece that each example lies on."""

    @abstractmethod
    def adjoint(self, message: Out, piece: Piece = None) -> In:
        """J^T message, with J of ``piece``."""

    @abstractmethod
    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        """sum over the batch of d<message, J x + b>/dtheta with J and b of ``piece``, in the order of ``parameters()``.

        With ``constant=False`` without b: what an increment x contributes.
        """

    @abstractmethod
    def anchor(self, piece: Piece) -> Anchor:
        """What increments from x0 need to know of it, from its piece; None for an affine map."""

    @abstractmethod
    def increment(self, dx: In, anchor: Anchor = None) -> tuple[Out, Piece]:
        """A(x0 + dx) - A(x0) to within round-off of dx, however small dx is, and the piece of x0 + dx."""

    @abstractmethod
    def tangent(self, dx: In, piece: Piece = None) -> Out:
        """J dx, with J of ``piece``."""

    @abstractmethod
    def variance(self, v: In) -> Out:
        """sum_j J_ij^2 v_j, the variance of outputs for independent inputs of variance v; or a bound on it."""


class AffineMap(Map):
    """A map of one piece, whose increments no x0 changes."""

    @final
    def trace(self, x: In) -> tuple[Out, Piece]:
        return self.forward(x), None

    @final
    def anchor(self, piece: Piece) -> Anchor:
        return None

    @final
    def increment(self, dx: In, anchor: Anchor = None) -> tuple[Out, Piece]:
        return self.linear(dx), None

    @final
    def tangent(self, dx: In, piece: Piece = None) -> Out:
        return self.linear(dx)

    @abstractmethod
    def linear(self, dx: In) -> Out:
        """J dx."""

    def variance(self, v: In) -> Out:
        """By the mean of (J z)^2 for random signs z of sqrt(v), where a map does not know its entries."""
        draw = torch.Generator().manual_seed(0)
        signs = torch.randint(2, (len(v), PROBES, *self.shape), generator=draw).to(v) * 2 - 1
        z = (signs * v.sqrt()[:, None]).flatten(0, 1)
        return self.linear(z).square().view(len(v), PROBES, *self.output_shape).mean(1)
