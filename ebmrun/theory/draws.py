"""Random numbers that are a function of a key, a count and a place, and of nothing else.

A generator's numbers depend on all that were drawn before. These depend on an example's own key, on how many draws the
example has had, and on the unit: so batches, processes, devices and resumption change none of them. 64 bits are mixed
as by Steele, Lea & Flood (2014), and make a pair of normal numbers (Box & Muller 1958).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Inexact, Int64
from torch import Tensor

Keys = Int64[Tensor, "rows 1"]
GOLDEN, FIRST, SECOND = (bits - 2**64 for bits in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
HALF = 2**32


def shifted(bits: Int64[Tensor, "..."], by: int) -> Int64[Tensor, "..."]:
    """To the right, with zeros from the left."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def mixed(bits: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """64 bits of which each depends on each of the given ones."""
    bits = (bits ^ shifted(bits, 30)) * FIRST
    bits = (bits ^ shifted(bits, 27)) * SECOND
    return bits ^ shifted(bits, 31)


class Draws:
    """The draws of some examples, one after another. Where several copies of the batch are stacked, as for the nodes of
    a nudge, each copy has numbers of its own."""

    def __init__(self, keys: Keys) -> None:
        self.keys, self.count = keys, 0

    def _bits(self, rows: int, numbers: int) -> Int64[Tensor, "rows numbers"]:
        self.count += 1
        copies = rows // len(self.keys)
        place = torch.arange(copies * numbers, device=self.keys.device).view(copies, 1, numbers)
        keys = mixed(mixed(self.keys) + self.count)
        return mixed(keys + (place + 1) * GOLDEN).view(rows, numbers)

    def uniform(self, like: Float[Tensor, "_ ..."]) -> Float[Tensor, "_ ..."]:
        """In [0, 1), with 24 bits that float32 holds."""
        return (shifted(self._bits(len(like), like[0].numel()), 40).to(like.dtype) / 2**24).view_as(like)

    def normal(self, like: Inexact[Tensor, "_ ..."]) -> Inexact[Tensor, "_ ..."]:
        """Of mean 0 and variance 1; of complex numbers each part."""
        if like.is_complex():
            return torch.complex(self.normal(like.real), self.normal(like.imag))
        numbers = like[0].numel()
        bits = self._bits(len(like), (numbers + 1) // 2)
        radius = (-2 * ((shifted(bits, 32).double() + 1) / HALF).log()).sqrt()
        angle = (bits & (HALF - 1)).double() * (2 * math.pi / HALF)
        pairs = torch.cat((radius * angle.cos(), radius * angle.sin()), 1)
        return pairs[:, :numbers].to(like.dtype).view_as(like)
