"""Maps made of others: a chain of affine maps, and any affine module of torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from ebmrun.errors import ConfigError
from ebmrun.theory.affine.abstract import AffineMap, In, Out, Piece


@final
class Chain(AffineMap):
    """Affine maps one after another, which is an affine map again. Raises ConfigError where they do not fit, and where
    two of them share parameters."""

    def __init__(self, *maps: AffineMap) -> None:
        if not maps:
            raise ConfigError("a chain needs a map or more: give it one")
        for below, above in pairwise(maps):
            if above.shape != below.output_shape:
                raise ConfigError(f"{type(above).__name__} takes shape {above.shape} from {type(below).__name__}, "
                                  f"whose shape is {below.output_shape}: use maps that fit")
        super().__init__(maps[0].shape, maps[-1].output_shape)
        self.registered = nn.ModuleList(maps)
        self.maps = maps  # the same, without what a ModuleList costs at each access
        self.learned = [i for i, each in enumerate(maps) if next(each.parameters(), None) is not None]
        if sum(len(list(each.parameters())) for each in maps) > len(list(self.parameters())):
            raise ConfigError("two maps of a chain share parameters: use a map of its own for each")

    def forward(self, x: In) -> Out:
        for each in self.maps:
            x = each.forward(x)
        return x

    def linear(self, dx: In) -> Out:
        for each in self.maps:
            dx = each.linear(dx)
        return dx

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        for each in reversed(self.maps):
            message = each.adjoint(message)
        return message

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        learned, inputs = self.learned, [x]
        for each in self.maps[: learned[-1] if learned else 0]:  # nothing after the last learned map is needed
            inputs.append(each.forward(inputs[-1]) if constant else each.linear(inputs[-1]))
        gradients: list[Tensor] = []
        for i in range(len(self.maps) - 1, learned[0] - 1 if learned else len(self.maps), -1):
            if i in learned:
                gradients = self.maps[i].gradient(message, inputs[i], None, constant) + gradients
            if i > learned[0]:
                message = self.maps[i].adjoint(message)
        return gradients

    def variance(self, v: In) -> Out:
        if len(self.learned) > 1:  # whose product has entries that those of the maps do not tell
            return super().variance(v)
        for each in self.maps:
            v = each.variance(v)
        return v


@final
class Wrapped(AffineMap):
    """Any affine module of torch, by autograd. Raises ConfigError for one that does not take inputs of ``shape``."""

    def __init__(self, shape: Sequence[int], module: nn.Module) -> None:
        like = next(module.parameters(), torch.empty(()))
        try:
            with torch.no_grad():
                outputs = module(like.new_zeros(2, *shape))  # two, since a BatchNorm takes no single example
        except (RuntimeError, ValueError, IndexError) as error:
            reason = str(error).splitlines()[0]
            name = type(module).__name__
            raise ConfigError(f"{name} does not take inputs of shape {tuple(shape)}: {reason}") from None
        if outputs.shape[:1] != (2,):
            raise ConfigError(f"{type(module).__name__} makes {tuple(outputs.shape)} of a batch of 2: let it keep the "
                              "batch axis")
        super().__init__(shape, outputs.shape[1:])
        self.module = module

    def forward(self, x: In) -> Out:
        return self.module(x)

    def linear(self, dx: In) -> Out:
        # The transpose of the adjoint: in A(dx) - A(0) a small dx would lose its digits to the constant.
        zero = dx.new_zeros(len(dx), *self.output_shape)
        return torch.func.vjp(self.adjoint, zero)[1](dx)[0]

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        zero = message.new_zeros(len(message), *self.shape)
        return torch.func.vjp(self.forward, zero)[1](message)[0]

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        parameters = list(self.parameters())
        if not parameters:
            return []
        with torch.enable_grad():
            value = (message * (self.forward(x) if constant else self.linear(x))).sum()
            return list(torch.autograd.grad(value, parameters, materialize_grads=True))
