"""On which of its affine pieces a map is, example by example."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Inexact, Int64
from torch import Tensor

Rows = Float[Tensor, "ties places"]


class Winners(NamedTuple):
    """The piece that the maxima of squares lie on: the ``places`` of their winners in the ``image`` that they are taken
    of, as PyTorch counts them; where winners tie, the numbers of these squares (``ties``, in order), and the ``shares``
    that their places have in the maximum, in a row for each."""

    places: Int64[Tensor, "batch channels _ _"]
    image: Inexact[Tensor, "batch channels height width"]
    ties: Int64[Tensor, " ties"] | None = None
    shares: Rows | None = None

    def repeat(self, nodes: int) -> Winners:
        """The same for several nodes along the batch axis, without ties."""
        return Winners(self.places.repeat(nodes, 1, 1, 1), self.image.repeat(nodes, 1, 1, 1))

    def first(self, examples: int) -> Winners:
        """Those of the first examples, without ties."""
        return Winners(self.places[:examples], self.image[:examples])

    def at(self, squares: Int64[Tensor, " ties"]) -> tuple[Tensor, ...]:
        """Where squares of these numbers are: example, channel, row and column."""
        return torch.unravel_index(squares, self.places.shape)


Piece = Winners | None  # None for an affine map, which has one
