"""Units: an activation f with its convex pair G and G*, where G*' = f and G' is the inverse of f.

Every function takes a batch of drives ``a`` or states ``x`` of shape (batch, ...) and works elementwise, except the
softmax, which couples the units of an example and so belongs at the output.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.errors import ConfigError

Batch = Float[Tensor, "batch *units"]


class Unit(ABC):
    """An activation and what the energies need to know of it."""

    @abstractmethod
    def __call__(self, a: Batch) -> Batch:
        """f(a)."""

    @abstractmethod
    def pullback(self, y: Batch, v: Batch) -> Batch:
        """f'(a) v, written in y = f(a) so that the activation is not computed twice (f' is symmetric)."""

    @abstractmethod
    def increment(self, a: Batch, d: Batch) -> Batch:
        """f(a + d) - f(a) to within round-off of d, however small d is."""

    @abstractmethod
    def primal(self, x: Batch) -> Batch:
        """G(x); outside the range of f, where G is infinite, infinity or NaN."""

    @abstractmethod
    def dual(self, a: Batch) -> Batch:
        """G*(a) = max_x <x, a> - G(x)."""


class Identity(Unit):
    """f(a) = a."""

    def __call__(self, a: Batch) -> Batch:
        return a

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return v

    def increment(self, a: Batch, d: Batch) -> Batch:
        return d

    def primal(self, x: Batch) -> Batch:
        return x.square() / 2

    def dual(self, a: Batch) -> Batch:
        return a.square() / 2


class Relu(Unit):
    """f(a) = max(a, 0)."""

    def __call__(self, a: Batch) -> Batch:
        return torch.relu(a)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return torch.ops.aten.threshold_backward(v, y, 0)  # one kernel; v * (y > 0) is two

    def increment(self, a: Batch, d: Batch) -> Batch:
        return torch.maximum(d, -a) + a.clamp(max=0)

    def primal(self, x: Batch) -> Batch:
        return torch.where(x >= 0, x.square() / 2, math.inf)

    def dual(self, a: Batch) -> Batch:
        return torch.relu(a).square() / 2


class Tanh(Unit):
    """f(a) = tanh(a); G is the negative entropy of a spin, G*(a) = log cosh a."""

    def __call__(self, a: Batch) -> Batch:
        return torch.tanh(a)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return torch.ops.aten.tanh_backward(v, y)

    def increment(self, a: Batch, d: Batch) -> Batch:
        return torch.tanh(d) * (1 - torch.tanh(a) * torch.tanh(a + d))

    def primal(self, x: Batch) -> Batch:
        return (torch.xlogy(1 + x, 1 + x) + torch.xlogy(1 - x, 1 - x)) / 2

    def dual(self, a: Batch) -> Batch:
        return torch.logaddexp(a, -a) - math.log(2)


class Sigmoid(Unit):
    """f(a) = 1 / (1 + exp(-a)); G is the negative entropy of a bit, G*(a) = log(1 + exp a)."""

    def __call__(self, a: Batch) -> Batch:
        return torch.sigmoid(a)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return torch.ops.aten.sigmoid_backward(v, y)

    def increment(self, a: Batch, d: Batch) -> Batch:
        return torch.tanh(d / 2) * (1 - torch.tanh(a / 2) * torch.tanh((a + d) / 2)) / 2

    def primal(self, x: Batch) -> Batch:
        return torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)

    def dual(self, a: Batch) -> Batch:
        return torch.logaddexp(a, torch.zeros_like(a))


class HardSigmoid(Unit):
    """f(a) = clip(a, 0, 1), the usual unit of equilibrium propagation (Scellier & Bengio 2017)."""

    def __call__(self, a: Batch) -> Batch:
        return a.clamp(0, 1)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return torch.ops.aten.hardtanh_backward(v, y, 0, 1)

    def increment(self, a: Batch, d: Batch) -> Batch:
        return d.clamp(-a, torch.rsub(a, 1)) + (a - a.clamp(0, 1))

    def primal(self, x: Batch) -> Batch:
        return torch.where((x >= 0) & (x <= 1), x.square() / 2, math.inf)

    def dual(self, a: Batch) -> Batch:
        return a * a.clamp(0, 1) - a.clamp(0, 1).square() / 2


class Softmax(Unit):
    """f(a)_i = exp a_i / sum_j exp a_j, with G the negative entropy on the simplex and G* = logsumexp.

    ``primal`` and ``dual`` share one number an example among its units, so that summing over units gives it back.
    ``primal`` sees negative states, but not whether those of an example sum to 1.
    """

    def __call__(self, a: Batch) -> Batch:
        return torch.softmax(a, 1)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return y * (v - (y * v).sum(1, keepdim=True))

    def increment(self, a: Batch, d: Batch) -> Batch:
        p, growth = torch.softmax(a, 1), torch.expm1(d)
        mean = (p * growth).sum(1, keepdim=True)
        # A large d would cancel in 1 + mean, or overflow; there the plain difference has digits enough.
        small = d.abs().amax(1, keepdim=True) < 1
        return torch.where(small, p * (growth - mean) / (1 + mean), torch.softmax(a + d, 1) - p)

    def primal(self, x: Batch) -> Batch:
        return torch.xlogy(x, x)

    def dual(self, a: Batch) -> Batch:
        return (torch.logsumexp(a, 1, keepdim=True) / a.shape[1]).expand_as(a)


UNITS: dict[str, Unit] = {
    "identity": Identity(),
    "relu": Relu(),
    "tanh": Tanh(),
    "sigmoid": Sigmoid(),
    "hard_sigmoid": HardSigmoid(),
    "softmax": Softmax(),
}


def unit(name: str) -> Unit:
    """The unit of that name. Raises ConfigError when there is none."""
    if not isinstance(name, str) or name not in UNITS:
        raise ConfigError(f"activation '{name}' is unknown: choose one of {', '.join(UNITS)}")
    return UNITS[name]
