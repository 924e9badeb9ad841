"""Maps by weights and biases, whose messages may go down by other weights than signals go up by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ebmrun.theory.affine.abstract import AffineMap

Weight = Float[Tensor, "outputs *inputs"]


@runtime_checkable
class Named(Protocol):
    """Tensors by name."""

    def __getitem__(self, key: str, /) -> Tensor: ...


class Weighted(AffineMap):
    """An affine map by ``weight`` (outputs, ...) and ``bias`` (outputs,). ``gain`` is that of the whole map when it is
    initialised. Its functions read the weight from ``own``, but ``adjoint`` from ``down``: the same one, unless
    ``untie`` puts another in its place."""

    feedback: Weight  # there only where it is untied
    follows = False  # whether feedback takes the steps that the weight takes

    def __init__(self, shape: Sequence[int], output_shape: Sequence[int], weight: Sequence[int], gain: float) -> None:
        super().__init__(shape, output_shape)
        self.weight = nn.Parameter(torch.empty(*weight))
        self.bias = nn.Parameter(torch.empty(weight[0]))
        self.gain = gain
        # A module looks a parameter up at each access, which takes as long as a small product.
        self.own = cast("dict[str, Tensor]", self._parameters)
        self.down: Named = self.own

    def untie(self, feedback: Weight, weight: Callable[[Weight, Weight], Weight], follows: bool) -> None:
        """From here on messages go down by ``weight(W, feedback)`` of the present weight W."""
        self.register_buffer("feedback", feedback)
        self.follows = follows
        self.down = Down(self.own, cast("dict[str, Tensor]", self._buffers), weight)


class Down:
    """The weight of the way down, from that of the way up and from numbers of its own."""

    def __init__(self, up: Named, own: Named, weight: Callable[[Weight, Weight], Weight]) -> None:
        self.up, self.own, self.weight = up, own, weight

    def __getitem__(self, key: str, /) -> Tensor:
        return self.weight(self.up[key], self.own["feedback"])
