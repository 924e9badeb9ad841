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

    def take(self, rows: Int64[Tensor, " rows"]) -> Winners:
        """Those of some rows, in ascending order."""
        places, image = self.places[rows], self.image[rows]
        if self.ties is None or self.shares is None:
            return Winners(places, image)
        each = self.places[0].numel()
        place = torch.full((len(self.places),), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        row = place[self.ties // each]
        return Winners(places, image, (row * each + self.ties % each)[row >= 0], self.shares[row >= 0])

    def put(self, rows: Int64[Tensor, " rows"], other: Winners) -> Winners:
        """The same with those of some rows, in ascending order, replaced."""
        places, image = self.places.index_copy(0, rows, other.places), self.image.index_copy(0, rows, other.image)
        each = self.places[0].numel()
        parts = []
        if self.ties is not None and self.shares is not None:
            stay = torch.isin(self.ties // each, rows, invert=True)
            parts.append((self.ties[stay], self.shares[stay]))
        if other.ties is not None and other.shares is not None:
            parts.append((rows[other.ties // each] * each + other.ties % each, other.shares))
        if not parts:
            return Winners(places, image)
        ties, shares = map(torch.cat, zip(*parts))
        order = ties.argsort()
        return Winners(places, image, ties[order], shares[order])

    def at(self, squares: Int64[Tensor, " ties"]) -> tuple[Tensor, ...]:
        """Where squares of these numbers are: example, channel, row and column."""
        return torch.unravel_index(squares, self.places.shape)


Piece = Winners | None  # None for an affine map, which has one
