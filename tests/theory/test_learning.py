"""The learning rule and its limits: exactness, orders of error, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import (
    NETWORKS,
    Coshine,
    backprop,
    batch,
    distance,
    free_states,
    gradient_at,
    internal_energy,
    member,
    random_mlp,
    settle,
    slope,
    stencil,
)

from ebmrun.theory.architectures import mlp
from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.energies import Energy, Hopfield, Lifted, Predictive
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.references import Implicit
from ebmrun.theory.stencil import Nudge

FROZEN = {"frozen": True}


# ---- exact readings

@pytest.mark.parametrize("cost, output", [
    (SquaredError, "identity"), (SquaredError, "tanh"), (CrossEntropy, "identity"), (CrossEntropy, "softmax"),
])
@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_a_frozen_sweep_is_backprop(net, cost, output, strength):
    network = NETWORKS[net](output=output)
    x, y = batch(network)
    learning = member(Predictive(), stencil("single", strength), network, cost, **FROZEN)
    estimate = learning.estimate(network, x, y)
    assert estimate.steps == 1 and estimate.residual is None and estimate.converged is None  # nothing was measured
    assert distance(estimate.gradients, backprop(network, learning.cost, x, y)) < 1e-12


@pytest.mark.parametrize("cost", [SquaredError, CrossEntropy])
def test_first_step_is_the_message_as_it_first_arrives_in_synchronous_inference(cost):
    """Song et al. 2020: gradient descent on F by autograd with step 1, all states at once; layer L - k is read after
    step k + 1. The descent goes on below while the layers above are already past their reading."""
    network = random_mlp()
    x, y = batch(network)
    learning = member(Predictive(), stencil("single", 0.5), network, cost, **FROZEN)
    states, depth = free_states(learning, network, x), len(network.layers)
    read: dict[int, list[torch.Tensor]] = {}
    for step in range(depth):
        states = [s.detach().requires_grad_() for s in states]
        total = internal_energy(network, learning.energy, x, states).sum()
        total = total + 0.5 * learning.cost.value(states[-1], y).sum()
        states = [(s - g).detach() for s, g in zip(states, torch.autograd.grad(total, states))]
        l = depth - 1 - step
        read[l] = network.by_layer([g / 0.5 for g in gradient_at(network, learning.energy, x, states)])[l]
    estimate = learning.estimate(network, x, y)
    assert distance(estimate.gradients, [g for l in range(depth) for g in read[l]]) < 1e-12


def test_frozen_is_the_equilibrium_of_errors_under_fixed_predictions():
    """Millidge, Tschantz & Buckley 2020: de_l/dt = -e_l + J_{l+1}^T e_{l+1} with Jacobians at the forward pass."""
    network = random_mlp()
    x, y = batch(network)
    learning = member(Predictive(), stencil("single", 1.0), network, CrossEntropy, **FROZEN)
    states = free_states(learning, network, x)
    drives = [affine(below) for ((_, affine),), below in zip(network.edges, [x, *states[:-1]])]
    slopes = [1 - s**2 for s in states[:-1]] + [torch.ones_like(states[-1])]
    errors = [torch.zeros_like(a) for a in drives]
    errors[-1] = y - torch.softmax(states[-1], 1)
    with torch.no_grad():
        for _ in range(400):
            for l in range(len(errors) - 1):
                above = (errors[l + 1] * slopes[l + 1]) @ network.edges[l + 1][0][1].weight
                errors[l] = errors[l] + 0.1 * (above - errors[l])
    expected = []
    for e, s, below in zip(errors, slopes, [x, *states[:-1]]):
        message = -e * s / len(x)
        expected += [message.T @ below, message.sum(0)]
    assert distance(learning.estimate(network, x, y).gradients, expected) < 1e-10


# ---- the rule itself

@pytest.mark.parametrize("coordinates", ["state", "error"])
@pytest.mark.parametrize("name", ["one_sided", "centered", "fourth_order", "clamped"])
@pytest.mark.parametrize("energy", [Predictive, Hopfield, Lifted])
@pytest.mark.parametrize("net", NETWORKS)
def test_the_rule_is_the_weighted_gradient_of_the_internal_energy_at_the_states(net, energy, name, coordinates):
    network, energy = NETWORKS[net](1), energy(0.3)
    x, y = batch(network)
    learning = member(energy, stencil(name, 0.1), network, coordinates=coordinates, step_size=0.9,
                      tol=1e-10)
    weights, free = learning.nudge.coefficients
    expected = [free * g
                for g in gradient_at(network, energy, x, free_states(learning, network, x))]
    for weight, states in zip(weights, settle(learning, network, x, y)):
        expected = [e + weight * g for e, g in zip(expected, gradient_at(network, energy, x, states))]
    estimate = learning.estimate(network, x, y)
    assert estimate.converged
    assert distance(estimate.gradients, expected) < 1e-8


@pytest.mark.parametrize("order", ["sweep", "synchronous"])
@pytest.mark.parametrize("coordinates", ["state", "error"])
@pytest.mark.parametrize("energy", [Predictive, Lifted])
def test_an_unfinished_relaxation_is_read_at_the_states_that_it_reached(energy, coordinates, order):
    network = random_mlp()
    x, y = batch(network)
    for steps in (1, 2, 4):
        learning = member(energy(), stencil("centered", 0.5), network, coordinates=coordinates, order=order,
                          step_size=0.6, max_steps=steps)
        estimate = learning.estimate(network, x, y)
        assert not estimate.converged
        expected = [torch.zeros_like(p) for p in network.parameters()]
        for weight, states in zip(learning.nudge.coefficients[0], settle(learning, network, x, y)):
            expected = [e + weight * g for e, g in zip(expected, gradient_at(network, energy(), x, states))]
        got = [g for g in zip(estimate.gradients, expected) if float(g[1].norm())]
        assert distance(*zip(*got)) < 1e-10


# ---- orders of error

def errors(learning, network, x, y, strengths, reference) -> list[float]:
    found = []
    for strength in strengths:
        estimate = replace(learning, nudge=replace(learning.nudge, strength=strength)).estimate(network, x, y)
        assert estimate.converged
        found.append(distance(estimate.gradients, reference))
    return found


ORDERS = {
    "single": (1, 0.1, (1e-2, 1e-3, 1e-4)),
    "one_sided": (1, 0.1, (1e-2, 1e-3, 1e-4)),
    "negative": (1, 0.1, (1e-2, 1e-3, 1e-4)),
    "centered": (2, 0.1, (3e-2, 1e-2, 3e-3)),
    "fourth_order": (4, 0.3, (4e-2, 2e-2, 1e-2)),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("energy", [Predictive, Lifted])
def test_the_error_against_backprop_has_the_order_of_the_stencil(energy, name, seed):
    network, (order, margin, strengths) = random_mlp(seed), ORDERS[name]
    x, y = batch(network, seed=seed)
    learning = member(energy(), stencil(name), network)
    found = errors(learning, network, x, y, strengths, backprop(network, learning.cost, x, y))
    assert slope(found, strengths) == pytest.approx(order, abs=margin)
    assert learning.nudge.order == order


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("name", ["one_sided", "negative", "centered", "fourth_order"])
def test_the_error_of_ep_against_implicit_has_the_order_of_the_stencil(name, seed):
    network, (order, margin, strengths) = random_mlp(seed), ORDERS[name]
    x, y = batch(network, seed=seed)
    learning = member(Hopfield(), stencil(name), network, step_size=1.25)
    reference = Implicit(learning).estimate(network, x, y)
    assert reference.converged
    found = errors(learning, network, x, y, strengths, reference.gradients)
    assert slope(found, strengths) == pytest.approx(order, abs=max(margin, 0.4 if order == 4 else 0))
    assert distance(backprop(network, learning.cost, x, y), reference.gradients) > 0.05  # its limit is not backprop


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("energy", [Predictive, Hopfield], ids=["pc_weak_feedback", "chl"])
def test_the_error_of_clamping_is_of_first_order_in_the_feedback_gain(energy, seed):
    network, gains = random_mlp(seed), (1e-1, 1e-2, 1e-3)
    x, y = batch(network, seed=seed)
    found = []
    for gain in gains:
        learning = member(energy(gain), stencil("clamped"), network)
        estimate = learning.estimate(network, x, y)
        assert estimate.converged
        found.append(distance(estimate.gradients, backprop(network, learning.cost, x, y)))
    assert slope(found[1:], gains[1:]) == pytest.approx(1, abs=0.1)
    assert slope(found, gains) == pytest.approx(1, abs=0.1)


def test_clamped_predictive_coding_at_full_feedback_is_not_backprop():
    network = random_mlp()
    x, y = batch(network)
    learning = member(Predictive(), stencil("clamped"), network, order="synchronous", step_size=0.2)
    estimate = learning.estimate(network, x, y)
    assert estimate.converged and distance(estimate.gradients, backprop(network, learning.cost, x, y)) > 0.1


@pytest.mark.parametrize("energy", [Predictive, Hopfield, Lifted])
def test_the_mean_of_both_one_sided_estimates_is_the_centered_one(energy):
    network = random_mlp()
    x, y = batch(network)
    up, down = Nudge([1.0, 0.0], [1.0, -1.0], 0.1), Nudge([-1.0, 0.0], [-1.0, 1.0], 0.1)
    for coordinates in ("state", "error"):
        a, b, centered = (
            member(energy(), nudge, network, coordinates=coordinates, tol=0.0, max_steps=40).estimate(network, x, y)
            for nudge in (up, down, stencil("centered", 0.1))
        )
        mean = [(p + q) / 2 for p, q in zip(a.gradients, b.gradients)]
        assert distance(mean, centered.gradients) < 1e-12


def test_a_stencil_of_ones_own_has_the_order_of_its_moments():
    """Three points on one side of 0: (4 I'(1) - I'(2) - 3 I'(0)) / 2, of second order."""
    network, strengths = random_mlp(), (3e-2, 1e-2, 3e-3)
    x, y = batch(network)
    own = Nudge([1.0, 2.0, 0.0], [2.0, -0.5, -1.5])
    assert own.order == 2
    learning = member(Hopfield(), own, network, step_size=1.25)
    reference = Implicit(learning).estimate(network, x, y).gradients
    assert slope(errors(learning, network, x, y, strengths, reference), strengths) == pytest.approx(2, abs=0.1)


# ---- an energy of one's own

class ClosedCoshine(Energy):
    """The same with all three functions: x - f(a) = asinh t, and -dE/da = f'(a) sinh(x - f(a))."""

    feedforward = True
    value = Coshine.value

    def respond(self, a, t, f):
        return f(a) + torch.asinh(t)

    def feedback(self, x, a, f):
        return f.pullback(f(a), torch.sinh(x - f(a)))


def test_an_energy_given_by_its_value_alone_learns_as_with_all_functions():
    network = random_mlp()
    x, y = batch(network)
    bare, closed = (
        member(energy(), stencil("single", 0.2), network, tol=1e-10).estimate(network, x, y).gradients
        for energy in (Coshine, ClosedCoshine)
    )
    assert distance(bare, closed) < 1e-9


def test_an_energy_of_ones_own_follows_the_theory():
    """Its free equilibrium is the forward pass and its curvature there is 1: the limit is backprop."""
    network, strengths = random_mlp(), (1e-1, 1e-2, 1e-3)
    x, y = batch(network)
    learning = member(Coshine(), stencil("single"), network, tol=1e-9)
    found = errors(learning, network, x, y, strengths, backprop(network, learning.cost, x, y))
    assert slope(found, strengths) == pytest.approx(1, abs=0.1)


# ---- what must not matter

@pytest.mark.parametrize("acceleration", ["none", "anderson"])
@pytest.mark.parametrize("name", ["one_sided", "centered", "clamped"])
@pytest.mark.parametrize("energy", [Predictive, Hopfield, Lifted])
def test_the_gradient_does_not_depend_on_how_a_batch_is_split(energy, name, acceleration):
    network = random_mlp()
    x, y = batch(network, 7)
    learning = member(energy(0.5), stencil(name, 0.1), network, acceleration=acceleration, tol=0.0, max_steps=12,
                      step_size=0.8)
    whole = learning.estimate(network, x, y).gradients
    first, rest = learning.estimate(network, x[:2], y[:2]), learning.estimate(network, x[2:], y[2:])
    split = [(2 * a + 5 * b) / 7 for a, b in zip(first.gradients, rest.gradients)]
    assert distance(split, whole) < 1e-10
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    assert distance(learning.estimate(network, x[order], y[order]).gradients, whole) < 1e-10


def test_prediction_and_output_are_the_free_equilibrium():
    network = random_mlp()
    x, y = batch(network)
    for energy in (Predictive(), Lifted()):
        learning = member(energy, stencil("single", 0.1), network)
        prediction = learning.predict(network, x)
        torch.testing.assert_close(prediction.output, network(x).detach(), rtol=0, atol=0)
        assert prediction.converged is None  # nothing relaxes
    learning = member(Hopfield(), stencil("centered", 0.1), network)
    states = [s.requires_grad_() for s in free_states(learning, network, x)]
    slopes = torch.autograd.grad(internal_energy(network, Hopfield(), x, states).sum(), states)
    assert max(float(s.abs().max()) for s in slopes) < 1e-10
    prediction = learning.predict(network, x)
    torch.testing.assert_close(prediction.output, states[-1].detach(), rtol=0, atol=1e-12)
    assert prediction.converged is True
    hasty = member(Hopfield(), stencil("centered", 0.1), network, max_steps=2)
    assert hasty.predict(network, x).converged is False
    torch.testing.assert_close(learning.estimate(network, x, y).output, states[-1].detach(), rtol=0, atol=1e-12)


# ---- precision

@pytest.mark.parametrize("energy", [Predictive, Lifted])
def test_a_weak_nudge_keeps_its_digits_in_error_coordinates_and_loses_them_in_states(energy):
    double = initialise(mlp((60,), 10, [50, 40, 30], "tanh", "identity").double(), 0)
    x, y = batch(double, 8)
    reference = backprop(double, SquaredError(double.output), x, y)
    single, cost = double.float(), SquaredError
    found = {
        coordinates: distance(
            member(energy(), stencil("single", 1e-6), single, cost, coordinates=coordinates, tol=0.0, max_steps=steps)
            .estimate(single, x.float(), y.float()).gradients, reference)
        for coordinates, steps in (("error", 2), ("state", 50))
    }
    assert found["error"] < 1e-5
    assert found["state"] > 0.1


def test_a_weak_nudge_keeps_its_digits_around_a_settled_equilibrium():
    """The same for hopfield, against the implicit gradient; the free phase is float32's own."""
    double = random_mlp()
    x, y = batch(double)
    reference = Implicit(member(Hopfield(), stencil("centered"), double)).estimate(double, x, y).gradients
    single = random_mlp().float()
    found = {
        coordinates: distance(
            member(Hopfield(), stencil("centered", 1e-7), single, coordinates=coordinates, tol=0.0, max_steps=200)
            .estimate(single, x.float(), y.float()).gradients, reference)
        for coordinates in ("error", "state")
    }
    assert found["error"] < 1e-4
    assert found["state"] > 0.1
