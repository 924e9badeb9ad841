"""Units that a kink holds: closed forms of minima on kinks, and long minimisations that know nothing of them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import distance, drive, internal_energy, member, nudged, random_mlp, stencil
from scipy.optimize import minimize

from ebmrun.theory.activations import activation
from ebmrun.theory.affine import Linear
from ebmrun.theory.architectures import cnn
from ebmrun.theory.energies import Lifted, Predictive
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.network import Layer, Network

# Ways to relax, and nudges that they settle under.
WAYS = {
    "sweeps": (0.25, {}),
    "two colours": (0.25, {"order": "even_odd"}),
    "synchronous": (math.inf, {"order": "synchronous", "step_size": 0.3}),
    "conjugate": (math.inf, {"acceleration": "conjugate"}),
    "conjugate, weak": (0.25, {"acceleration": "conjugate"}),
    "conjugate states": (math.inf, {"acceleration": "conjugate", "coordinates": "state"}),
}
# A kink, and on which side of it a unit is driven by the input: x -> kink + side * distance.
KINKS = [("relu", 0.0, 1), ("leaky_relu", 0.0, 1), ("hard_sigmoid", 0.0, 1), ("hard_sigmoid", 1.0, -1),
         ("hard_tanh", -1.0, 1), ("hard_tanh", 1.0, -1), ("relu6", 6.0, -1)]


def line(name: str, dtype: torch.dtype) -> Network:
    """x_1 = x_0 by an identity unit, x_2 = f(x_1) by a unit with a kink, x_3 = x_2 by an identity unit."""
    network = Network([Layer([(l, Linear((1,), 1))], activation(f), f"unit{l}")
                       for l, f in enumerate(("identity", name, "identity"))])
    with torch.no_grad():
        for edges in network.edges:
            edges[0][1].weight.fill_(1)
            edges[0][1].bias.fill_(0)
    return network.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name, kink, side", KINKS)
def test_a_minimum_on_a_kink(name, kink, side, way, dtype):
    """With errors e_1, e_2, e_3, all but the first of which follow from f = f(x_0 + e_1),

        F = e_1^2/2 + c (y - f)^2/2,      1/c = 1/strength + 2

    For x_0 = k + side d and y = f(k) - side r, moving towards the kink lessens F at a slope of c r > d up to it; beyond
    it f is flatter, and too little pulls. So e_1 = -side d, and the feedback of the second unit keeps it there."""
    d, r, (strength, how) = 0.125, 2.0, WAYS[way]
    c = 1 / (1 / strength + 2)
    network = line(name, dtype)
    x = torch.tensor([[kink + side * d]], dtype=dtype)
    y = network(torch.tensor([[kink]], dtype=dtype)).detach() - side * r
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    nudge = stencil("clamped") if math.isinf(strength) else stencil("single", strength)
    learning = member(Predictive(), nudge, network, tol=tolerance, max_steps=300, **how)
    phase, (states,) = nudged(learning, network, x, y)
    assert phase.converged
    near = {"rel": 20 * tolerance, "abs": 20 * tolerance}
    assert float(states[0]) == pytest.approx(kink, **near)
    assert float(states[1]) == pytest.approx(float(y) + side * (1 - c) * r, **near)
    estimate = learning.estimate(network, x, y)
    # By the envelope theorem dF/dbias of a unit is minus its feedback, which the first two send alike.
    weight = 1 if math.isinf(strength) else 1 / strength
    assert [float(estimate.gradients[i]) for i in (1, 3)] == pytest.approx([weight * side * d] * 2, **near)


def test_a_kink_that_nothing_holds_is_left():
    """The other sign of the message: the kink is a maximum in the drive, and the unit moves away from it."""
    network = line("relu", torch.float64)
    x, y = torch.tensor([[0.125]]).double(), torch.tensor([[2.0]]).double()
    learning = member(Predictive(), stencil("clamped"), network, tol=1e-10, acceleration="conjugate")
    _, (states,) = nudged(learning, network, x, y)
    # e_1 = (y - x_0 - e_1) / 2 with unit slopes
    assert float(states[0]) == pytest.approx(0.125 + (2 - 0.125) / 3, rel=1e-8)


def long_minimum(network: Network, x: torch.Tensor, y: torch.Tensor, strength: float) -> float:
    """The least F of one example over the errors of all layers that move, by restarts of L-BFGS in float64."""
    depth = network.depth - math.isinf(strength)
    sizes = [math.prod(edges[0][1].output_shape) for edges in network.edges[:depth]]

    def value_and_slope(vector: np.ndarray) -> tuple[float, np.ndarray]:
        e = torch.from_numpy(vector).requires_grad_()
        states: list[torch.Tensor] = []
        for part, edges, f in zip(e.split(sizes), network.edges, network.activations):
            states.append(f(drive(edges, x, states)) + part)
        value = e.square().sum() / 2
        if math.isinf(strength):
            value = value + (y - network.output(drive(network.edges[-1], x, states))).square().sum() / 2
        else:
            value = value + strength * (states[-1] - y).square().sum() / 2
        return float(value.detach()), torch.autograd.grad(value, e)[0].numpy()

    best, start = math.inf, np.zeros(sum(sizes))
    for _ in range(20):
        found = minimize(value_and_slope, start, jac=True, method="L-BFGS-B",
                         options={"maxiter": 3000, "maxfun": 6000, "ftol": 1e-15, "gtol": 1e-12})
        best, start = min(best, found.fun), found.x
    return best


@pytest.mark.parametrize("strength", [0.3, 1.0, math.inf])
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "hard_tanh"])
@pytest.mark.parametrize("way", ["conjugate", "conjugate states"])
def test_the_energy_of_what_is_called_converged_is_the_least(name, strength, way):
    """At most 1e-6 of itself above what a long minimisation finds from the same start."""
    network = random_mlp(seed=3, activation=name)
    draw = torch.Generator().manual_seed(5)
    x = 1.5 * torch.randn(6, 12, generator=draw, dtype=torch.float64)
    y = 3 * torch.randn(6, 5, generator=draw, dtype=torch.float64)
    nudge = stencil("clamped") if math.isinf(strength) else stencil("single", strength)
    learning = member(Predictive(), nudge, network, tol=1e-5, max_steps=500, **WAYS[way][1])
    phase, (states,) = nudged(learning, network, x, y)
    assert phase.converged
    held = sum(int(each.sum()) for each in phase.last.held if each is not None)
    value = internal_energy(network, Predictive(), x, states)
    if not math.isinf(strength):
        value = value + strength * learning.cost.value(states[-1], y)
    least = torch.tensor([long_minimum(network, x[i : i + 1], y[i : i + 1], strength) for i in range(len(x))])
    assert bool((value <= least * (1 + 1e-6)).all()), (value / least - 1).tolist()
    assert held > 0 or (name, strength) != ("relu", math.inf)  # there is something to hold


@pytest.mark.parametrize("energy", [Predictive, Lifted])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_tied_maxima_share_what_float32_cannot_tell_apart_in_states(energy, activation):
    """Images that are empty but for a corner: the maxima of what is empty tie in all digits. At a nudge far below a
    digit of the states they settle, and the gradient is that of the same network in float64."""
    network = initialise(cnn((1, 16, 16), 4, [4, 8], 3, 1, 2, [], activation, "identity", pooling="max"), 0)
    draw = torch.Generator().manual_seed(2)
    x = torch.zeros(16, 1, 16, 16)
    x[:, :, :9, :9] = torch.randn(16, 1, 9, 9, generator=draw)
    y = torch.eye(4)[torch.randint(4, (16,), generator=draw)]
    learning = member(energy(), stencil("single", 1e-6), network, tol=1e-3, max_steps=30, acceleration="auto")
    estimate = learning.estimate(network, x, y)
    assert estimate.converged
    exact = replace(learning, relaxation=replace(learning.relaxation, tol=1e-8, max_steps=300))
    right = exact.estimate(copy.deepcopy(network).double(), x.double(), y.double())
    assert right.converged
    assert distance([g.double() for g in estimate.gradients], right.gradients) < 3e-3


@pytest.mark.parametrize("energy", [Predictive, Lifted])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("strength", [0.1, 1.0, math.inf])
def test_strongly_nudged_maxima_settle(energy, activation, strength):
    """Where sweeps alone run away: at a gain at which signals keep their size."""
    network = cnn((1, 12, 12), 4, [4, 8], 3, 1, 2, [], activation, "identity", math.sqrt(3), pooling="max").double()
    initialise(network, 0)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(16, 1, 12, 12, generator=draw).double()
    y = torch.eye(4).double()[torch.randint(4, (16,), generator=draw)]
    nudge = stencil("clamped") if math.isinf(strength) else stencil("single", strength)
    learning = member(energy(), nudge, network, tol=1e-3, max_steps=60, acceleration="auto")
    assert learning.estimate(network, x, y).converged
