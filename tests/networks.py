"""Networks and batches drawn at random, and the theory written out plainly: what the tests hold the package against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ebmrun.theory.activations import activation as activation_of
from ebmrun.theory.affine import Conv2d, Linear, MaxPool2d, Skip, Wrapped
from ebmrun.theory.architectures import cnn, mlp
from ebmrun.theory.cost import Cost, SquaredError
from ebmrun.theory.energies import ByValue, Energy, Hopfield, Lifted, Predictive
from ebmrun.theory.equilibrium import FreeEquilibrium
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Layer, Network
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxation import arrived
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.solver import Relaxed, relax
from ebmrun.theory.stencil import Nudge

STENCILS = {
    "single": ([1.0], [1.0]),
    "one_sided": ([1.0, 0.0], [1.0, -1.0]),
    "negative": ([-1.0, 0.0], [-1.0, 1.0]),
    "centered": ([1.0, -1.0], [0.5, -0.5]),
    "fourth_order": ([2.0, 1.0, -1.0, -2.0], [-1 / 12, 2 / 3, -2 / 3, 1 / 12]),
    "clamped": ([math.inf, 0.0], [1.0, -1.0]),
}


def random_mlp(seed: int = 0, activation: str = "tanh", output: str = "identity") -> Network:
    """12-10-10-8-5: three hidden layers, two of them of one width, so that a transpose can be wrong unnoticed."""
    return initialise(mlp((12,), 5, [10, 10, 8], activation, output).double(), seed)


def random_cnn(seed: int = 0, activation: str = "tanh", output: str = "identity") -> Network:
    """Two convolutions with padding and pooling, one hidden layer: three hidden layers as well."""
    return initialise(cnn((2, 11, 11), 4, channels=[3, 4], kernel=3, stride=1, pool=2, hidden=[7],
                          activation=activation, output=output).double(), seed)


def random_skip(seed: int = 0, activation: str = "tanh", output: str = "identity") -> Network:
    """A residual network: layer 2 hears layer 1 through a product and as it is; layer 4 hears layers 3 and 1."""
    def own(*edges, f=activation):
        return layer(edges, f)

    return initialise(Network([own((0, Linear((12,), 10))), own((1, Linear((10,), 10)), (1, Skip((10,)))),
                               own((2, Linear((10,), 8))), own((3, Linear((8,), 10)), (1, Skip((10,)))),
                               own((4, Linear((10,), 5)), f=output)]).double(), seed)


def random_fan_in(seed: int = 0, activation: str = "tanh", output: str = "identity") -> Network:
    """Layer 3 hears the input and the layers 1 and 2; heights 3, 2, 1, 0."""
    return initialise(Network([
        layer([(0, Linear((12,), 10))], activation), layer([(1, Linear((10,), 8))], activation),
        layer([(0, Linear((12,), 7)), (1, Linear((10,), 7)), (2, Linear((8,), 7))], activation),
        layer([(3, Linear((7,), 5))], output)]).double(), seed)


def random_fan_out(seed: int = 0, activation: str = "tanh", output: str = "identity") -> Network:
    """Three layers hear layer 1, at heights 2, 1 and 1; the output hears all three."""
    return initialise(Network([
        layer([(0, Linear((12,), 10))], activation), layer([(1, Linear((10,), 8))], activation),
        layer([(1, Linear((10,), 7)), (2, Linear((8,), 7))], activation), layer([(1, Linear((10,), 6))], activation),
        layer([(2, Linear((8,), 5)), (3, Linear((7,), 5)), (4, Linear((6,), 5))], output)]).double(), seed)


def random_diamond(seed: int = 0, activation: str = "sigmoid", output: str = "identity") -> Network:
    """Two max-pooled ways of different length from one pooled layer to the output. States are positive, for which the
    Hopfield energy - x max(a) has no minimum on a tie of two winners."""
    shape = (2, 9, 9)
    first = MaxPool2d(Conv2d(shape, 3, 3, padding=1), 2)
    left = MaxPool2d(Conv2d((3, 4, 4), 4, 3, padding=1), 2)
    right = MaxPool2d(Conv2d((3, 4, 4), 2, 3, padding=1), 2)
    after = Conv2d((4, 2, 2), 2, 3, padding=1)
    return initialise(Network([
        layer([(0, first)], activation), layer([(1, left)], activation), layer([(1, right)], activation),
        layer([(2, after), (3, Skip((2, 2, 2)))], activation), layer([(4, Linear((2, 2, 2), 5)),
                                                                      (3, Linear((2, 2, 2), 5))], output)]).double(),
                      seed)


def layer(edges, f: str) -> Layer:
    return Layer(list(edges), activation_of(f))


GRAPHS = {"skip": random_skip, "fan_in": random_fan_in, "fan_out": random_fan_out, "diamond": random_diamond}
NETWORKS = {"mlp": random_mlp, "cnn": random_cnn, **GRAPHS}


def batch(network: Network, examples: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs from a normal distribution, and one-hot targets."""
    draw = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(examples, *network.edges[0][0][1].shape, generator=draw, dtype=torch.float64)
    classes = network(x).shape[1]
    return x, torch.eye(classes, dtype=x.dtype)[torch.randint(classes, (examples,), generator=draw)]


def stencil(name: str, strength: float = 1.0) -> Nudge:
    nodes, weights = STENCILS[name]
    return Nudge(list(nodes), list(weights), strength=strength)


def member(energy: Energy, nudge: Nudge, network: Network, cost: type[Cost] = SquaredError, **how) -> EnergyLearning:
    """A member of the family that relaxes to round-off, unless ``how`` says otherwise."""
    settings = {"tol": 1e-12, "max_steps": 1000} | how
    return EnergyLearning(energy, nudge, Relaxation(**settings), cost(network.output))


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


def heights(network: Network) -> list[int]:
    """The longest way to the output from each layer, counted by trying every way."""
    def longest(l: int) -> int:
        above = [m for m, edges in enumerate(network.edges) for source, _ in edges if source == l + 1]
        return max((1 + longest(m) for m in above), default=0)

    return [longest(l) for l in range(len(network.layers))]


def drive(edges: Sequence, x: Tensor, states: Sequence[Tensor]) -> Tensor:
    """a = sum_k A_k(x_k)."""
    return sum(affine(states[source - 1] if source else x) for source, affine in edges)


def internal_energy(network: Network, energy: Energy, x: Tensor, states: Sequence[Tensor]) -> Tensor:
    """I = sum_l gamma^-h_l E(x_l, a_l), one number an example."""
    total = torch.zeros(len(x), dtype=x.dtype)
    for edges, f, state, height in zip(network.edges, network.activations, states, heights(network), strict=True):
        value = energy.value(state, drive(edges, x, states), f).flatten(1).sum(1)
        total = total + energy.feedback_gain**-height * value
    return total


def gradient_at(network: Network, energy: Energy, x: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
    """dI/dtheta at given states by autograd, as a mean over the batch."""
    value = internal_energy(network, energy, x, states).mean()
    return list(torch.autograd.grad(value, list(network.parameters())))


def nudged(
    learning: EnergyLearning, network: Network, x: Tensor, y: Tensor, free: FreeEquilibrium | None = None
) -> tuple[Relaxed, list[list[Tensor]]]:
    """How the nudged phase ends, and the states that it reaches for each node of the stencil other than 0."""
    with torch.no_grad():
        free = free or learning.free_equilibrium(network, x)[0]
        strengths, how = learning.nudge.strengths, learning.relaxation
        space = learning.coordinates(network, free.repeat(len(strengths)))
        pull = Pull.stacked(learning.cost, y, strengths)
        phase = relax(space, pull, how, how.max_steps)
        end = arrived(space, pull, phase.last)
        states = [space.state(u, drive) for u, drive in zip(end.moved, end.drives)]
    return phase, [list(node) for node in zip(*(state.split(len(x)) for state in states))]


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

        t_l = -gamma^h_l dF/dx_l through the drives of the layers that hear l
        x_l <- x_l + step_size (respond(a_l, t_l) - x_l)

    In a sweep, an output of identity units under squared error, whose answer contains its own state, goes for
    x = (a + strength y) / (1 + strength). Returns the states and the residual as defined.
    """
    start, states, depth, height = states, list(states), len(states), heights(network)
    respond, gain = RESPONSES[type(energy)], energy.feedback_gain
    for _ in range(steps):
        before, aims = list(states), list(states)
        for l in reversed(range(depth)):
            heard = [s.detach().requires_grad_() for s in before]  # drives are those that the step began with
            now = before if order == "synchronous" else states
            sent = sum(gain ** -height[m] * energy.value(now[m].detach(), drive(network.edges[m], x, heard),
                                                         network.activations[m]).sum() for m in range(depth))
            pull = torch.zeros_like(before[l])
            if l == depth - 1 and strength and not math.isinf(strength):
                output = before[l].detach().requires_grad_()
                pull = -strength * torch.autograd.grad(cost.value(output, y).sum(), output)[0]
            t = pull - gain ** height[l] * torch.autograd.grad(sent, heard[l], allow_unused=True,
                                                               materialize_grads=True)[0]
            edges, f = network.edges[l], network.activations[l]
            with torch.no_grad():
                a = drive(edges, x, before)
                aims[l] = respond(f, a, t).detach()
                if l == depth - 1 and math.isinf(strength):
                    aims[l] = states[l] = y
                elif l == depth - 1 and order == "sweep":
                    solved = (a + strength * y) / (1 + strength)
                    states[l] = before[l] + step_size * (solved - before[l])
                else:
                    states[l] = before[l] + step_size * (aims[l] - before[l])
    gaps = [float((aim - old).detach().norm()) for aim, old in zip(aims, before)]
    away = [float((new - old).detach().norm()) for new, old in zip(states, start)]
    return states, max(g / a if a else float(g > 0) for g, a in zip(gaps, away))


def hopfield_step(network: Network, gain: float, x: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
    """x_l = f_l(a_l + t_l) for all layers at once, t_l = gamma^h_l d/dx_l sum_m gamma^-h_m <a_m, x_m> by autograd; that
    holds the x_m, and the pieces of the maps."""
    height, below = heights(network), [s.detach().requires_grad_() for s in states]
    sent = sum(gain**-h * (drive(edges, x, below) * s).sum() for h, edges, s in zip(height, network.edges, states))
    heard = torch.autograd.grad(sent, below, create_graph=True, allow_unused=True, materialize_grads=True)
    return [f(drive(edges, x, states) + gain**h * t)
            for h, edges, f, t in zip(height, network.edges, network.activations, heard)]


def pair(weight: float) -> Network:
    """Two units without biases: x_1 = tanh(weight x_2), x_2 = weight x_1 at input 0."""
    maps = [Linear((1,), 1), Linear((1,), 1)]
    layers = [Layer([(0, maps[0])], activation_of("tanh")), Layer([(1, maps[1])], activation_of("identity"))]
    network = Network(layers).double()
    with torch.no_grad():
        for affine in maps:
            affine.weight.fill_(weight)
            affine.bias.zero_()
    return network


# Parts of a user's own, good and bad, for configurations to name.


class Coshine(ByValue):
    """E = cosh(x - f(a)) - 1, given by its value alone."""

    feedforward = True

    def value(self, x: Tensor, a: Tensor, f) -> Tensor:
        return torch.cosh(x - f(a)) - 1


class Contradictory(Predictive):
    """Its feedback has the wrong sign."""

    def feedback(self, x: Tensor, a: Tensor, f) -> Tensor:
        return -super().feedback(x, a, f)


def batch_normed(shape: Sequence[int], classes: int, **_: object) -> Network:
    """A network whose first layer couples the examples of a batch."""
    units = math.prod(shape)
    flat = Wrapped(shape, nn.Sequential(nn.Flatten(), nn.BatchNorm1d(units, affine=False)))
    return Network([layer([(0, flat)], "identity"), layer([(1, Linear((units,), classes))], "identity")])
