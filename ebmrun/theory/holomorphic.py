"""Nudges by complex strengths: holomorphic equilibrium propagation (Laborieux & Zenke 2022), for any energy.

Where an energy, its activations and its cost are holomorphic, so is dI/dtheta at the equilibrium as a function of the
strength, and its derivative is the mean over a circle, to within O(lambda^N) by N points:

    g = 1 / (N lambda) sum_k conj(r_k) dI/dtheta at x*(lambda r_k),      r_k = exp(2 pi i k / N)

Messages and gradients are transposes of the maps and slopes, not adjoints: nothing on the way is conjugated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast, final

import torch
from torch import Tensor

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import Activation, Identity, Sigmoid, Softplus, Tanh
from ebmrun.theory.activations.abstract import Batch
from ebmrun.theory.affine import AffineMap
from ebmrun.theory.affine.abstract import In, Out, Piece
from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.cost import Cost
from ebmrun.theory.energies import Energy
from ebmrun.theory.equilibrium import Drive, FreeEquilibrium
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network


def softplus(a: Tensor) -> Tensor:
    """log(1 + exp a), by whichever of exp a and exp -a is not large."""
    return torch.where(a.real > 0, a + torch.log1p(torch.exp(-a)), torch.log1p(torch.exp(a)))


# f(a) and f(a + d) - f(a) where torch's own take real numbers only, and f' as a function of f(a).
FUNCTIONS: dict[type[Activation], tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    Softplus: (softplus, lambda a, d: torch.log1p(torch.sigmoid(a) * torch.expm1(d))),
}
SLOPES: dict[type[Activation], Callable[[Tensor], Tensor]] = {
    Identity: torch.ones_like,
    Tanh: lambda y: 1 - y * y,
    Sigmoid: lambda y: y * (1 - y),
    Softplus: lambda y: -torch.expm1(-y),
}


@final
class ComplexActivation(Activation):
    """A holomorphic activation at complex drives."""

    def __init__(self, f: Activation) -> None:
        self.f, self.slope = f, SLOPES[type(f)]
        self.value, self.change = FUNCTIONS.get(type(f), (f, f.increment))

    def __call__(self, a: Batch) -> Batch:
        return self.value(a)

    def pullback(self, y: Batch, v: Batch) -> Batch:
        return self.slope(y) * v

    def increment(self, a: Batch, d: Batch) -> Batch:
        return self.change(a, d)

    def primal(self, x: Batch) -> Batch:
        return self.f.primal(x)

    def dual(self, a: Batch) -> Batch:
        return self.f.dual(a)


@final
class ComplexMap(AffineMap):
    """A map with real parameters at complex states: both parts go through its linear part by themselves."""

    def __init__(self, real: AffineMap) -> None:
        super().__init__(real.shape, real.output_shape)
        self.of = (real,)  # in a tuple, so that its parameters stay those of the network alone

    def forward(self, x: In) -> Out:
        (real,) = self.of
        return torch.complex(real(x.real), real.linear(x.imag)) if x.is_complex() else real(x)

    def linear(self, dx: In) -> Out:
        (real,) = self.of
        return torch.complex(real.linear(dx.real), real.linear(dx.imag))

    def adjoint(self, message: Out, piece: Piece = None) -> In:
        (real,) = self.of
        return torch.complex(*(real.adjoint(part.contiguous()) for part in (message.real, message.imag)))

    def gradient(self, message: Out, x: In, piece: Piece = None, constant: bool = True) -> list[Tensor]:
        """The real part: those of conjugate nodes cancel in the other."""
        (real,) = self.of
        found = real.gradient(message.real.contiguous(), x.real.contiguous(), None, constant)
        if not x.is_complex():
            return found
        turned = real.gradient(message.imag.contiguous(), x.imag.contiguous(), None, False)
        return [part - other for part, other in zip(found, turned)]


class HolomorphicLearning(EnergyLearning):
    """A member of the family whose nudge has complex nodes. The free phase is real."""

    def coordinates(self, network: Network, free: FreeEquilibrium) -> Coordinates:
        return super().coordinates(complex_network(network), complex_equilibrium(free))


def complex_network(network: Network) -> Network:
    """The same network, with the same parameters, at complex states."""
    twin = network.through(lambda affine: ComplexMap(cast(AffineMap, affine)))
    twin.activations = [ComplexActivation(f) for f in network.activations]
    return twin


def complex_equilibrium(free: FreeEquilibrium) -> FreeEquilibrium:
    """The same numbers as complex ones, but for the inputs."""
    kind = torch.promote_types(free.states[0].dtype, torch.complex64)
    drives = [Drive(drive.a.to(kind), drive.pieces) for drive in free.drives]
    states, messages, feedback = ([each.to(kind) for each in part]
                                  for part in (free.states, free.messages, free.feedback))
    return FreeEquilibrium(free.inputs, states, drives, messages, feedback)


def require_holomorphic(energy: Energy, network: Network, cost: Cost) -> None:
    """Raises ConfigError for activations, maps, costs or energies that complex numbers cannot pass, or that are not
    holomorphic: dh/dIm z = i dh/dRe z is measured on random numbers."""
    points = "nudge.points=1"
    for name, f in network.named_activations.items():
        if type(f) not in SLOPES:
            known = ", ".join(kind.__name__.lower() for kind in SLOPES)
            raise ConfigError(f"nudge.points needs holomorphic units, and {name} is none: set arch.activation and "
                              f"arch.output to one of {known}, or {points}")
    for edges in network.edges:
        for _, affine in edges:
            if not isinstance(affine, AffineMap):
                raise ConfigError(f"nudge.points needs affine maps, and {type(affine).__name__} has pieces: use "
                                  f"arch.pooling=avg, or {points}")
    a, y = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    who = type(energy).__name__
    for unit in map(ComplexActivation, network.named_activations.values()):
        parts: dict[str, Callable[[Tensor], Tensor]] = {
            f"{type(cost).__name__}.gradient": partial(_sloped, cost, y),
            f"{who}.respond": partial(_answered, energy, unit),
            f"{who}.feedback": partial(_sent, energy, unit),
        }
        for name, function in parts.items():
            if not is_holomorphic(function, a):
                raise ConfigError(f"nudge.points needs holomorphic functions, and {name} is none: use another energy, "
                                  f"cost=squared_error, or {points}")


def _sloped(cost: Cost, y: Tensor, z: Tensor) -> Tensor:
    return cost.gradient(z, y)


def _answered(energy: Energy, unit: Activation, z: Tensor) -> Tensor:
    return energy.respond(z, z.flip(0), unit)


def _sent(energy: Energy, unit: Activation, z: Tensor) -> Tensor:
    return energy.feedback(z.flip(0), z, unit)


def is_holomorphic(function: Callable[[Tensor], Tensor], at: Tensor) -> bool:
    """By central differences along both axes at points off the real line."""
    z, h = torch.complex(at, at.flip(0) / 8), 1e-4
    try:
        along, across = ((function(z + h * way) - function(z - h * way)) / (2 * h * way) for way in (1, 1j))
    except (RuntimeError, NotImplementedError, TypeError):  # torch has no such function of complex numbers
        return False
    return bool(along.is_complex() and ((along - across).abs() <= 1e-6 * (1 + along.abs())).all())
