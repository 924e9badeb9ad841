"""Activations made of straight pieces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

import torch
from torch.nn import functional as F

from ebmrun.theory.activations.abstract import Activation, Batch

# Each in one kernel, where v * f'(a) takes two or more; looked up once, which takes as long as a small kernel.
threshold_backward = torch.ops.aten.threshold_backward.default
leaky_relu_backward = torch.ops.aten.leaky_relu_backward.default
hardtanh_backward = torch.ops.aten.hardtanh_backward.default


@final
class Identity(Activation):
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


@final
class Relu(Activation):
    """f(a) = max(a, 0)."""

    kinks = (0.0,)

    def __call__(self, a: Batch) -> Batch:
        return torch.relu(a)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return threshold_backward(v, y, 0)

    def increment(self, a: Batch, d: Batch) -> Batch:
        return torch.maximum(d, -a) + a.clamp(max=0)

    def primal(self, x: Batch) -> Batch:
        return torch.where(x >= 0, x.square() / 2, math.inf)

    def dual(self, a: Batch) -> Batch:
        return torch.relu(a).square() / 2


@final
class LeakyRelu(Activation):
    """f(a) = max(a, slope a) with slope in (0, 1) (Maas, Hannun & Ng 2013)."""

    kinks = (0.0,)

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def __call__(self, a: Batch) -> Batch:
        return F.leaky_relu(a, self.slope)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return leaky_relu_backward(v, y, self.slope, True)

    def increment(self, a: Batch, d: Batch) -> Batch:
        return torch.lerp(torch.maximum(d, -a) + a.clamp(max=0), d, self.slope)

    def primal(self, x: Batch) -> Batch:
        return x * F.leaky_relu(x, 1 / self.slope) / 2

    def dual(self, a: Batch) -> Batch:
        return a * F.leaky_relu(a, self.slope) / 2


@final
class Clip(Activation):
    """f(a) = a within [low, high] and the nearer end outside. With [0, 1] the usual activation of equilibrium
    propagation (Scellier & Bengio 2017)."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.kinks = (low, high)

    def __call__(self, a: Batch) -> Batch:
        return a.clamp(self.low, self.high)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return hardtanh_backward(v, y, self.low, self.high)

    def increment(self, a: Batch, d: Batch) -> Batch:
        return self.around(a)(d)

    def around(self, a: Batch) -> Callable[[Batch], Batch]:
        low, high, outside = torch.rsub(a, self.low), torch.rsub(a, self.high), a - a.clamp(self.low, self.high)
        return lambda d: d.clamp(low, high) + outside

    def primal(self, x: Batch) -> Batch:
        return torch.where((x >= self.low) & (x <= self.high), x.square() / 2, math.inf)

    def dual(self, a: Batch) -> Batch:
        y = a.clamp(self.low, self.high)
        return a * y - y.square() / 2
