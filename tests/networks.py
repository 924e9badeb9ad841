"""Networks and batches drawn at random, and the theory written out plainly: what the tests hold the package against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ebmrun.theory.affine import AffineMap, Linear
from ebmrun.theory.algorithm import EnergyLearning
from ebmrun.theory.coordinates import Free
from ebmrun.theory.cost import Cost, SquaredError
from ebmrun.theory.energies import Energy, Hopfield, Lifted, Predictive
from ebmrun.theory.network import Layer, Network, cnn, initialise, mlp
from ebmrun.theory.nudge import Nudge
from ebmrun.theory.pull import Pull
from ebmrun.theory.relaxation import Relaxation, Relaxed, ascend, relax
from ebmrun.theory.units import unit

STENCILS = {
    "single": ([1.0], [1.0]),
    "one_sided": ([1.0, 0.0], [1.0, -1.0]),
    "centered": ([1.0, -1.0], [0.5, -0.5]),
    "fourth_order": ([2.0, 1.0, -1.0, -2.0], [-1 / 12, 2 / 3, -2 / 3, 1 / 12]),
    "clamped": ([math.inf, 0.0], [1.0, -1.0]),
}


def random_mlp(seed: int = 0, activation: str = "tanh", output: str = "identity") -> Network:
    """12-10-10-8-5: three hidden layers, two of them of one width, so that a transpose can be wrong unnoticed."""
    return initialise(mlp((12,), 5, [10, 10, 8], activation, output).double(), seed)


def random_cnn(seed: int = 0, activation: str = "tanh", output: str = "identity") -> Network:
    """Two convolutions with padding and pooling, one hidden layer: three hidden layers as well."""
    return initialise(cnn((2, 11, 11), 4, [3, 4], 3, 1, 2, [7], activation, output).double(), seed)


def batch(network: Network, examples: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs from a normal distribution, and one-hot targets."""
    draw = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(examples, *network.layers[0].affine.shape, generator=draw, dtype=torch.float64)
    classes = network(x).shape[1]
    return x, torch.eye(classes, dtype=x.dtype)[torch.randint(classes, (examples,), generator=draw)]


def stencil(name: str, strength: float = 1.0) -> Nudge:
    nodes, weights = STENCILS[name]
    return Nudge(list(nodes), list(weights), strength=strength)


def member(energy: Energy, nudge: Nudge, network: Network, cost: type[Cost] = SquaredError, **how) -> EnergyLearning:
    """A member of the family that relaxes to round-off, unless ``how`` says otherwise."""
    settings = {"tol": 1e-12, "max_steps": 1000} | how
    return EnergyLearning(energy, nudge, Relaxation(**settings), cost(network.output), not isinstance(energy, Hopfield))


def backprop(network: Network, cost: Cost, x: Tensor, y: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(cost.value(network(x), y).mean(), list(network.parameters())))


def distance(gradient: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """||g - r|| / ||r|| over all parameters."""
    gap = sum(float((g - r).detach().double().square().sum()) for g, r in zip(gradient, reference, strict=True))
    return math.sqrt(gap / sum(float(r.double().square().sum()) for r in reference))


def slope(errors: Sequence[float], strengths: Sequence[float]) -> float:
    """The fitted slope of log error against log strength."""
    logs = torch.tensor([[math.log(s), math.log(e)] for s, e in zip(strengths, errors, strict=True)])
    centred = logs - logs.mean(0)
    return float((centred[:, 0] * centred[:, 1]).sum() / centred[:, 0].square().sum())


def internal_energy(network: Network, energy: Energy, x: Tensor, states: Sequence[Tensor]) -> Tensor:
    """I = sum_l gamma^(l-L) E(x_l, A_l(x_{l-1})), one number an example."""
    total, below = torch.zeros(len(x), dtype=x.dtype), x
    for l, (layer, state) in enumerate(zip(network.layers, states, strict=True), 1):
        value = energy.value(state, layer.affine(below), layer.unit).flatten(1).sum(1)
        total, below = total + energy.feedback_gain ** (l - len(states)) * value, state
    return total


def gradient_at(network: Network, energy: Energy, x: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
    """dI/dtheta at given states by autograd, as a mean over the batch."""
    value = internal_energy(network, energy, x, states).mean()
    return list(torch.autograd.grad(value, list(network.parameters())))


def nudged(
    learning: EnergyLearning, network: Network, x: Tensor, y: Tensor, free: Free | None = None
) -> tuple[Relaxed, list[list[Tensor]]]:
    """How the nudged phase ends, and the states that it reaches for each node of the stencil other than 0."""
    with torch.no_grad():
        free = free or learning.free_equilibrium(network, x)[0]
        strengths, how = learning.nudge.strengths, learning.relaxation
        space = learning.coordinates(network, free.repeat(len(strengths)))
        last = relax(space, Pull.stacked(learning.cost, y, strengths), how, how.max_steps)
        drives, _ = ascend(space, last.moved, last.signals[0], last.drives[0])
        states = [space.state(l, u, drives[l]) for l, u in enumerate(last.moved)]
    return last, [list(node) for node in zip(*(state.split(len(x)) for state in states))]


def settle(learning: EnergyLearning, network: Network, x: Tensor, y: Tensor) -> list[list[Tensor]]:
    """The states that the nudged phase reaches, for each node of the stencil other than 0."""
    return nudged(learning, network, x, y)[1]


def free_states(learning: EnergyLearning, network: Network, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return learning.free_equilibrium(network, x)[0].states


# respond(a, t), written out for each energy that ships.
RESPONSES: dict[type[Energy], Callable] = {
    Predictive: lambda f, a, t: f(a) + t,
    Hopfield: lambda f, a, t: f(a + t),
    Lifted: lambda f, a, t: f(a + t),
}


def plain_relaxation(
    network: Network,
    energy: Energy,
    cost: Cost,
    x: Tensor,
    y: Tensor,
    states: Sequence[Tensor],
    strength: float,
    steps: int,
    order: str = "synchronous",
    step_size: float = 1.0,
) -> tuple[list[Tensor], float]:
    """The dynamics in plain loops, every message by autograd of the nudged energy F:

        t_l = -gamma^(L-l) d(F - I_l)/dx_l,      x_l <- x_l + step_size (respond(a_l, t_l) - x_l)

    where I_l is layer l's own term. In a sweep, an output of identity units under squared error, whose answer contains
    its own state, goes for x = (a + strength y) / (1 + strength). Returns the states and the residual as defined.
    """
    start, states, depth = states, list(states), len(states)
    respond, gain = RESPONSES[type(energy)], energy.feedback_gain
    for _ in range(steps):
        before, aims = list(states), list(states)
        for l in reversed(range(depth)):
            now = [s.detach().requires_grad_() for s in (before if order == "synchronous" else states)]
            layer, below = network.layers[l], now[l - 1] if l else x
            nudged = internal_energy(network, energy, x, now).sum()
            if strength and not math.isinf(strength):
                nudged = nudged + strength * cost.value(now[-1], y).sum()
            own = gain ** (l + 1 - depth) * energy.value(now[l], layer.affine(below), layer.unit).sum()
            t = -(gain ** (depth - l - 1)) * torch.autograd.grad(nudged - own, now[l])[0]
            with torch.no_grad():
                aims[l] = respond(layer.unit, layer.affine(below), t).detach()
                if l == depth - 1 and math.isinf(strength):
                    aims[l] = states[l] = y
                elif l == depth - 1 and order == "sweep":
                    solved = (layer.affine(below) + strength * y) / (1 + strength)
                    states[l] = before[l] + step_size * (solved - before[l])
                else:
                    states[l] = before[l] + step_size * (aims[l] - before[l])
    gaps = [float((aim - old).detach().norm()) for aim, old in zip(aims, before)]
    away = [float((new - old).detach().norm()) for new, old in zip(states, start)]
    return states, max(g / a if a else float(g > 0) for g, a in zip(gaps, away))


# Parts of a user's own, good and bad, for configurations to name.


class Coshine(Energy):
    """E = cosh(x - f(a)) - 1, given by its value alone."""

    def value(self, x: Tensor, a: Tensor, f) -> Tensor:
        return torch.cosh(x - f(a)) - 1


class Contradictory(Predictive):
    """Its feedback has the wrong sign."""

    def feedback(self, x: Tensor, a: Tensor, f) -> Tensor:
        return -super().feedback(x, a, f)


def batch_normed(shape: Sequence[int], classes: int, **_: object) -> Network:
    """A network whose first layer couples the examples of a batch."""
    units = math.prod(shape)
    flat = AffineMap(shape, nn.Sequential(nn.Flatten(), nn.BatchNorm1d(units, affine=False)))
    return Network([Layer(flat, unit("identity")), Layer(Linear((units,), classes), unit("identity"))])
