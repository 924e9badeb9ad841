"""Recurrent backpropagation against unrolled relaxation, closed forms and the implicit reference."""

from __future__ import annotations

import pytest
import torch
from networks import (
    NETWORKS,
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

from ebmrun.errors import ConfigError, Diverged
from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.energies import Energy, Hopfield, Lifted, Predictive
from ebmrun.theory.network import Network
from ebmrun.theory.recurrent import RecurrentBackprop
from ebmrun.theory.references import Implicit


def recurrent(network: Network, energy: Energy, steps: int | None = None, cost=SquaredError, **how):
    return RecurrentBackprop(member(energy, stencil("centered"), network, cost, **how), steps)


@pytest.mark.parametrize("cost", [SquaredError, CrossEntropy])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("net", NETWORKS)
def test_truncation_is_backprop_through_the_last_steps_of_a_settled_relaxation(net, steps, cost):
    network, gain = NETWORKS[net](activation="sigmoid"), 0.4
    x, y = batch(network, 3)
    algorithm = recurrent(network, Hopfield(gain), steps, cost)
    states = [s.detach() for s in free_states(algorithm.learning, network, x)]
    for _ in range(steps):
        states = hopfield_step(network, gain, x, states)
    unrolled = torch.autograd.grad(algorithm.learning.cost.value(states[-1], y).mean(), list(network.parameters()),
                                   allow_unused=True, materialize_grads=True)
    assert distance(algorithm.estimate(network, x, y).gradients, unrolled) < 1e-9


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_truncation_has_the_closed_form_of_two_units(steps):
    """At x = 0, dC/dx_2 = -1 and J = [[0, w], [w, 0]]: the biases' gradients are minus the sums of w^k over odd and
    over even k < K, and the residual is w^K."""
    network, w = pair(0.6), 0.6
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    found = recurrent(network, Hopfield(), steps).estimate(network, x, y)
    for gradient, first in ((found.gradients[1], 1), (found.gradients[3], 0)):
        assert float(gradient) == pytest.approx(-sum(w**k for k in range(first, steps, 2)), rel=1e-12)
    assert found.residual == pytest.approx(w**steps) and not found.converged


def test_the_cost_reaches_one_layer_more_with_each_step():
    network = random_mlp(activation="sigmoid")
    x, y = batch(network)
    for steps in range(1, 6):
        found = network.by_layer(recurrent(network, Hopfield(), steps).estimate(network, x, y).gradients)
        learns = [any(bool(g.any()) for g in layer) for layer in found]
        assert learns == [l >= len(found) - steps for l in range(len(found))]


@pytest.mark.parametrize("steps", [None, 200])
@pytest.mark.parametrize("net", ["mlp", "skip", "fan_out"])
def test_to_the_end_it_is_the_implicit_gradient(net, steps):
    network = NETWORKS[net](activation="sigmoid")
    x, y = batch(network, 3)
    algorithm = recurrent(network, Hopfield(0.8), steps)
    found = algorithm.estimate(network, x, y)
    assert found.converged
    assert distance(found.gradients, Implicit(algorithm.learning).estimate(network, x, y).gradients) < 1e-9
    assert torch.equal(found.output, algorithm.predict(network, x).output)


@pytest.mark.parametrize("energy", [Predictive, Lifted])
def test_to_the_end_it_is_backprop_where_nothing_has_to_settle(energy):
    network = random_mlp()
    x, y = batch(network)
    found = recurrent(network, energy()).estimate(network, x, y)
    assert found.converged and found.steps is None
    assert distance(found.gradients, backprop(network, SquaredError(network.output), x, y)) < 1e-9


def test_it_relaxes_and_solves_to_the_tolerance_of_the_run():
    network = random_mlp()
    x, y = batch(network)
    reference = Implicit(member(Hopfield(), stencil("centered"), network)).estimate(network, x, y).gradients
    errors, steps = [], []
    for tol in (1e-2, 1e-4, 1e-6):
        found = recurrent(network, Hopfield(), tol=tol).estimate(network, x, y)
        assert found.converged and tol * 1e-4 < found.residual <= tol
        errors.append(distance(found.gradients, reference))
        steps.append(found.steps)
    assert errors[0] > errors[1] > errors[2] > 1e-9 and steps[0] < steps[1] < steps[2]
    assert not recurrent(network, Hopfield(), tol=1e-6, max_steps=3).estimate(network, x, y).converged


def test_the_linear_system_alone_is_solved_to_the_tolerance_of_the_run():
    """Where nothing has to settle, the residual is that of the system."""
    network = random_mlp()
    for tol in (1e-2, 1e-5):
        found = recurrent(network, Predictive(), tol=tol).estimate(network, *batch(network))
        assert found.converged and 1e-4 * tol < found.residual <= tol


def test_steps_that_do_not_settle_are_said_so():
    """Synchronous steps of predictive coding diverge where weights are large."""
    network = random_mlp()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)
    x, y = batch(network)
    found = recurrent(network, Predictive(), 20).estimate(network, x, y)
    assert found.residual > 1 and not found.converged
    with pytest.raises(Diverged, match="smaller algo.steps"):
        recurrent(network, Predictive(), 3000).estimate(network, x, y)


@pytest.mark.parametrize("steps", [0, -1, 1.5, True, "two"])
@pytest.mark.usefixtures("untyped")
def test_what_is_no_number_of_steps_is_refused(steps):
    with pytest.raises(ConfigError, match=f"algo.steps={steps} must be an integer of 1 or more"):
        recurrent(random_mlp(), Hopfield(), steps)
