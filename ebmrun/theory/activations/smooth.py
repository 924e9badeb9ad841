"""Activations whose slope has no jump."""

from __future__ import annotations

import math
from typing import final

import torch
from torch.nn import functional as F

from ebmrun.theory.activations.abstract import Activation, Batch

# Each in one kernel, where v * f'(a) takes two or more; looked up once, which takes as long as a small kernel.
tanh_backward = torch.ops.aten.tanh_backward.default
sigmoid_backward = torch.ops.aten.sigmoid_backward.default
elu_backward = torch.ops.aten.elu_backward.default


@final
class Tanh(Activation):
    """f(a) = tanh(a); G is the negative entropy of a spin, G*(a) = log cosh a."""

    def __call__(self, a: Batch) -> Batch:
        return torch.tanh(a)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return tanh_backward(v, y)

    def increment(self, a: Batch, d: Batch) -> Batch:
        return torch.tanh(d) * (1 - torch.tanh(a) * torch.tanh(a + d))

    def primal(self, x: Batch) -> Batch:
        return (torch.xlogy(1 + x, 1 + x) + torch.xlogy(1 - x, 1 - x)) / 2

    def dual(self, a: Batch) -> Batch:
        return torch.logaddexp(a, -a) - math.log(2)


@final
class Sigmoid(Activation):
    """f(a) = 1 / (1 + exp(-a)); G is the negative entropy of a bit, G*(a) = log(1 + exp a)."""

    def __call__(self, a: Batch) -> Batch:
        return torch.sigmoid(a)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return sigmoid_backward(v, y)

    def increment(self, a: Batch, d: Batch) -> Batch:
        return torch.tanh(d / 2) * (1 - torch.tanh(a / 2) * torch.tanh((a + d) / 2)) / 2

    def primal(self, x: Batch) -> Batch:
        return torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)

    def dual(self, a: Batch) -> Batch:
        return torch.logaddexp(a, torch.zeros_like(a))


@final
class Elu(Activation):
    """f(a) = a above 0 and exp(a) - 1 below (Clevert, Unterthiner & Hochreiter 2016), whose slope has no jump."""

    def __call__(self, a: Batch) -> Batch:
        return F.elu(a)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return elu_backward(v, 1, 1, 1, True, y)

    def increment(self, a: Batch, d: Batch) -> Batch:
        below = torch.minimum(d, -a) + a.clamp(min=0)  # by how much min(a, 0) changes
        return torch.maximum(d, -a) + a.clamp(max=0) + a.clamp(max=0).exp() * torch.expm1(below)

    def primal(self, x: Batch) -> Batch:
        below = x.clamp(max=0)
        return torch.relu(x).square() / 2 + torch.xlogy(1 + below, 1 + below) - below

    def dual(self, a: Batch) -> Batch:
        return torch.relu(a).square() / 2 + torch.expm1(a.clamp(max=0)) - a.clamp(max=0)


@final
class Softplus(Activation):
    """f(a) = log(1 + exp a), whose convex pair are dilogarithms: G*(a) = -Li2(-exp a) and
    G(x) = x^2/2 + Li2(exp(-x)) - pi^2/6, to within round-off of float64 by ``_debye``."""

    def __call__(self, a: Batch) -> Batch:
        return F.softplus(a, threshold=40)  # where exp(-a) is below round-off; torch's 20 is made for float32

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return -torch.expm1(-y) * v

    def increment(self, a: Batch, d: Batch) -> Batch:
        # The first is exact for small d, the second for large ones.
        small = torch.log1p(torch.sigmoid(a) * torch.expm1(d))
        return torch.where(d.abs() < 1, small, torch.logaddexp(F.logsigmoid(-a), F.logsigmoid(a) + d))

    def primal(self, x: Batch) -> Batch:
        near = _debye(torch.minimum(x, -torch.log(-torch.expm1(-x))))
        rest = torch.where(x < math.log(2), torch.xlogy(x, -torch.expm1(-x)) - near, near - math.pi**2 / 6)
        return x.square() / 2 + rest

    def dual(self, a: Batch) -> Batch:
        near = _debye(-self(torch.where(a > 0, -a, a)))
        return torch.where(a > 0, a.square() / 2 + math.pi**2 / 6 + near, -near)


def _debye(w: Batch) -> Batch:
    """Li2(1 - exp(-w)) = int_0^w s / (exp(s) - 1) ds for |w| <= log 2, by Bernoulli's numbers B_2 to B_16."""
    numbers = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
    series, square = torch.zeros_like(w), w.square()
    for k in range(len(numbers), 0, -1):
        series = square * (series + numbers[k - 1] / math.factorial(2 * k + 1))
    return w * (1 + series) - square / 4


@final
class Softmax(Activation):
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
