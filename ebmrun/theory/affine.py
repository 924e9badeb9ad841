"""Affine maps a = A(x), each with its adjoint and its parameter gradient.

Relaxation sends states up through A and messages down through its adjoint; learning asks for d<m, A(x)>/dtheta. The
base class answers all of it by autograd, so that any affine module of torch can be a layer's map; the maps below it
give closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from ebmrun.errors import ConfigError

In = Float[Tensor, "batch *inputs"]
Out = Float[Tensor, "batch *outputs"]


class AffineMap(nn.Module):
    """Any affine torch module from inputs of a fixed shape (without the batch axis)."""

    def __init__(self, shape: Sequence[int], module: nn.Module | None = None) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.module = module

    @property
    def output_shape(self) -> tuple[int, ...]:
        like = next(self.parameters(), torch.empty(()))
        with torch.no_grad():
            return tuple(self(like.new_zeros(1, *self.shape)).shape[1:])

    def __call__(self, x: In) -> Out:
        """A(x), without what a module does around its ``forward``: relaxation calls it thousands of times a second."""
        return self.forward(x)

    def forward(self, x: In) -> Out:
        """A(x), as ``module`` has it."""
        assert self.module is not None, "a map without a module has a forward of its own"
        return self.module(x)

    def linear(self, dx: In) -> Out:
        """A(x + dx) - A(x), which no x changes."""
        return self(dx) - self(torch.zeros_like(dx))

    def adjoint(self, message: Out) -> In:
        """A^T message, the transpose of the linear part."""
        zero = torch.zeros(len(message), *self.shape, dtype=message.dtype, device=message.device)
        return torch.func.vjp(self.forward, zero)[1](message)[0]

    def gradient(self, message: Out, x: In, constant: bool = True) -> list[Tensor]:
        """sum over the batch of d<message, A(x)>/dtheta, in the order of ``parameters()``.

        With ``constant=False`` the map is taken without its constant part: what the increment of x contributes.
        """
        parameters = list(self.parameters())
        if not parameters:
            return []
        with torch.enable_grad():
            value = (message * (self(x) if constant else self.linear(x))).sum()
            return list(torch.autograd.grad(value, parameters, materialize_grads=True))


class Linear(AffineMap):
    """a = W vec(x) + b with W of shape (outputs, inputs); inputs of any shape are laid out in one row."""

    def __init__(self, shape: Sequence[int], outputs: int) -> None:
        super().__init__(shape)
        self.weight = nn.Parameter(torch.empty(outputs, math.prod(shape)))
        self.bias = nn.Parameter(torch.empty(outputs))
        # A module looks a parameter up at each access, which takes as long as a small product.
        self.own = cast("dict[str, Tensor]", self._parameters)

    def forward(self, x: In) -> Out:
        return F.linear(x.flatten(1), self.own["weight"], self.own["bias"])

    def linear(self, dx: In) -> Out:
        return F.linear(dx.flatten(1), self.own["weight"])

    def adjoint(self, message: Out) -> In:
        down = torch.mm(message, self.own["weight"])
        return down if len(self.shape) == 1 else down.view(down.shape[0], *self.shape)

    def gradient(self, message: Out, x: In, constant: bool = True) -> list[Tensor]:
        bias = message.sum(0) if constant else torch.zeros_like(self.bias)
        return [torch.mm(message.t(), x.flatten(1)), bias]


class Conv2d(AffineMap):
    """A convolution with bias over inputs of shape (channels, height, width)."""

    def __init__(self, shape: Sequence[int], channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(shape)
        if kernel > min(shape[1:]) + 2 * padding:
            raise ConfigError(f"a kernel of {kernel} is larger than its input {tuple(shape)}: use a smaller one")
        self.weight = nn.Parameter(torch.empty(channels, shape[0], kernel, kernel))
        self.bias = nn.Parameter(torch.empty(channels))
        self.stride, self.padding = stride, padding

    def forward(self, x: In) -> Out:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def linear(self, dx: In) -> Out:
        return F.conv2d(dx, self.weight, None, self.stride, self.padding)

    def adjoint(self, message: Out) -> In:
        return conv2d_input((len(message), *self.shape), self.weight, message, self.stride, self.padding)

    def gradient(self, message: Out, x: In, constant: bool = True) -> list[Tensor]:
        weight = conv2d_weight(x, self.weight.shape, message, self.stride, self.padding)
        return [weight, message.sum((0, 2, 3)) if constant else torch.zeros_like(self.bias)]


class AvgPool2d(AffineMap):
    """Means over non-overlapping squares of side ``size``; a remainder at the border is left out."""

    def __init__(self, shape: Sequence[int], size: int) -> None:
        super().__init__(shape)
        if size > min(shape[1:]):
            raise ConfigError(f"a pool of {size} is larger than its input {tuple(shape)}: use a smaller one")
        self.size = size

    def forward(self, x: In) -> Out:
        return F.avg_pool2d(x, self.size)

    def linear(self, dx: In) -> Out:
        return self(dx)

    def adjoint(self, message: Out) -> In:
        spread = message.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3) / self.size**2
        height, width = self.shape[1:]
        return F.pad(spread, (0, width - spread.shape[3], 0, height - spread.shape[2]))

    def gradient(self, message: Out, x: In, constant: bool = True) -> list[Tensor]:
        return []


class Chain(AffineMap):
    """Affine maps one after another, which is an affine map again."""

    def __init__(self, *maps: AffineMap) -> None:
        super().__init__(maps[0].shape)
        self.registered = nn.ModuleList(maps)
        self.maps = maps  # the same, without what a ModuleList costs at each access
        self.learned = [i for i, each in enumerate(maps) if next(each.parameters(), None) is not None]

    def forward(self, x: In) -> Out:
        for each in self.maps:
            x = each(x)
        return x

    def linear(self, dx: In) -> Out:
        for each in self.maps:
            dx = each.linear(dx)
        return dx

    def adjoint(self, message: Out) -> In:
        for each in reversed(self.maps):
            message = each.adjoint(message)
        return message

    def gradient(self, message: Out, x: In, constant: bool = True) -> list[Tensor]:
        learned, inputs = self.learned, [x]
        for each in self.maps[: learned[-1] if learned else 0]:  # nothing after the last learned map is needed
            inputs.append(each(inputs[-1]) if constant else each.linear(inputs[-1]))
        gradients: list[Tensor] = []
        for i in range(len(self.maps) - 1, learned[0] - 1 if learned else len(self.maps), -1):
            if i in learned:
                gradients = self.maps[i].gradient(message, inputs[i], constant) + gradients
            if i > learned[0]:
                message = self.maps[i].adjoint(message)
        return gradients
