"""What an activation is: a function f with its convex pair G and G*, where G*' = f and G' is the inverse of f.

Every function takes a batch of drives ``a`` or states ``x`` of shape (batch, ...) and works elementwise, except the
softmax, which couples the units of an example and so belongs at the output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Inexact
from torch import Tensor

Batch = Inexact[Tensor, "batch *units"]


class Activation(ABC):
    """An activation and what the energies need to know of it. ``kinks`` are the drives at which the slope jumps."""

    kinks: tuple[float, ...] = ()

    @abstractmethod
    def __call__(self, a: Batch) -> Batch:
        """f(a)."""

    @abstractmethod
    def pullback(self, y: Batch, v: Batch) -> Batch:
        """f'(a) v, written in y = f(a) so that the activation is not computed twice (f' is symmetric)."""

    @abstractmethod
    def increment(self, a: Batch, d: Batch) -> Batch:
        """f(a + d) - f(a) to within round-off of d, however small d is."""

    def around(self, a: Batch) -> Callable[[Batch], Batch]:
        """``increment`` at a, for many d."""
        return lambda d: self.increment(a, d)

    @abstractmethod
    def primal(self, x: Batch) -> Batch:
        """G(x); outside the range of f, where G is infinite, infinity or NaN."""

    @abstractmethod
    def dual(self, a: Batch) -> Batch:
        """G*(a) = max_x <x, a> - G(x)."""
