"""The two reference gradients against finite differences, dense solves, unrolled relaxation and closed forms."""

from __future__ import annotations

import pytest
import torch
from networks import (
    NETWORKS,
    Coshine,
    backprop,
    batch,
    distance,
    free_states,
    hopfield_step,
    member,
    pair,
    random_mlp,
    stencil,
)

from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.references import Backprop, Implicit


@pytest.mark.parametrize("cost, output", [
    (SquaredError, "tanh"), (CrossEntropy, "identity"), (CrossEntropy, "softmax"),
])
@pytest.mark.parametrize("net", NETWORKS)
def test_backprop_is_the_derivative_of_the_mean_cost(net, cost, output):
    """Against central differences in a random direction of all the weights."""
    network = NETWORKS[net](output=output)
    x, y = batch(network)
    estimate = Backprop(cost(network.output)).estimate(network, x, y)
    draw, parameters = torch.Generator().manual_seed(2), list(network.parameters())
    way = [torch.randn(p.shape, generator=draw, dtype=p.dtype) for p in parameters]
    costs = []
    with torch.no_grad():
        for shift in (1e-5, -2e-5):
            for p, d in zip(parameters, way):
                p.add_(shift * d)
            costs.append(float(cost(network.output).value(network(x), y).mean()))
    along = sum(float((g * d).sum()) for g, d in zip(estimate.gradients, way))
    assert (costs[0] - costs[1]) / 2e-5 == pytest.approx(along, rel=1e-7)
    assert estimate.steps is estimate.residual is estimate.converged is None  # nothing relaxed


@pytest.mark.parametrize("energy", [Predictive(), Lifted(0.5), Coshine()])
@pytest.mark.parametrize("net", NETWORKS)
def test_implicit_is_backprop_where_the_free_equilibrium_is_the_forward_pass(net, energy):
    network = NETWORKS[net]()
    x, y = batch(network, 3)
    learning = member(energy, stencil("single"), network)
    estimate = Implicit(learning).estimate(network, x, y)
    assert estimate.converged and estimate.residual < 1e-10
    assert distance(estimate.gradients, backprop(network, learning.cost, x, y)) < 1e-9


@pytest.mark.parametrize("net, cost", [*((net, SquaredError) for net in NETWORKS), ("mlp", CrossEntropy),
                                       ("diamond", CrossEntropy)])
def test_implicit_is_the_derivative_of_a_relaxation_unrolled_to_its_end(net, cost):
    network, gain = NETWORKS[net](activation="sigmoid"), 0.4
    x, y = batch(network, 3)
    learning = member(Hopfield(gain), stencil("centered"), network, cost)
    states = [s.detach() for s in free_states(learning, network, x)]  # at rest: unrolling gathers the derivative alone
    for _ in range(40):
        states = hopfield_step(network, gain, x, states)
    unrolled = torch.autograd.grad(learning.cost.value(states[-1], y).mean(), list(network.parameters()))
    estimate = Implicit(learning).estimate(network, x, y)
    assert estimate.converged
    assert distance(estimate.gradients, unrolled) < 1e-5


@pytest.mark.parametrize("net, gain", [("mlp", 0.9), *((net, 0.4) for net in NETWORKS if net != "mlp")])
def test_implicit_is_the_dense_linear_solve(net, gain):
    """(1 - J)^T v = dC/dx and g = (dPhi/dtheta)^T v, one example at a time with J written out."""
    network = NETWORKS[net](1, activation="tanh" if net == "mlp" else "sigmoid")
    x, y = batch(network, 3)
    learning = member(Hopfield(gain), stencil("centered"), network)
    rest = free_states(learning, network, x)
    sizes, parameters = [s[0].numel() for s in rest], list(network.parameters())
    expected = [torch.zeros_like(p) for p in parameters]
    for i in range(len(x)):
        def step(flat, i=i):
            states = [part.view(1, *s.shape[1:]) for part, s in zip(flat.split(sizes, 1), rest)]
            return torch.cat([s.flatten(1) for s in hopfield_step(network, gain, x[i : i + 1], states)], 1)

        flat = torch.cat([s[i : i + 1].flatten(1) for s in rest], 1)
        torch.testing.assert_close(step(flat), flat, rtol=0, atol=1e-9)
        jacobian = torch.autograd.functional.jacobian(step, flat)[0, :, 0, :]
        pull = torch.zeros_like(flat[0])
        pull[-sizes[-1]:] = (rest[-1][i] - y[i]) / len(x)
        v = torch.linalg.solve((torch.eye(len(pull), dtype=x.dtype) - jacobian).T, pull)
        found = torch.autograd.grad((step(flat) * v).sum(), parameters)
        expected = [e + g for e, g in zip(expected, found)]
    estimate = Implicit(learning).estimate(network, x, y)
    assert estimate.converged and distance(estimate.gradients, expected) < 1e-9


def test_implicit_differs_from_backprop_by_the_order_of_the_feedback_gain():
    network = random_mlp()
    x, y = batch(network)
    reference, found = None, {}
    for gain in (1e-2, 1e-4):
        learning = member(Hopfield(gain), stencil("centered"), network)
        reference = backprop(network, learning.cost, x, y)
        estimate = Implicit(learning).estimate(network, x, y)
        assert estimate.converged
        found[gain] = distance(estimate.gradients, reference)
    assert found[1e-2] / found[1e-4] == pytest.approx(100, rel=0.1)


def test_implicit_has_the_closed_form_of_two_units():
    """At x = 0, dC/dx_2 = -1 and J = [[0, w], [w, 0]]: the biases' gradients are -(w, 1) / (1 - w^2)."""
    network, w = pair(0.6), 0.6
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    estimate = Implicit(member(Hopfield(), stencil("centered"), network)).estimate(network, x, y)
    assert float(estimate.gradients[1]) == pytest.approx(-w / (1 - w**2), rel=1e-9)
    assert float(estimate.gradients[3]) == pytest.approx(-1 / (1 - w**2), rel=1e-9)


def test_implicit_says_when_its_linear_system_has_no_solution():
    """At w = 1 the equilibrium is critical: 1 - J is singular, and no v solves its system."""
    network = pair(1.0)
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    estimate = Implicit(member(Hopfield(), stencil("centered"), network)).estimate(network, x, y)
    assert not estimate.converged and estimate.residual > 0.1
