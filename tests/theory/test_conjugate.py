"""Conjugate gradients, against autograd of the energy, the theory of quadratic forms, and plain sweeps."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from networks import NETWORKS, backprop, batch, distance, internal_energy, member, nudged, random_mlp, settle, stencil

from ebmrun.theory.architectures import mlp
from ebmrun.theory.conjugate import conjugate_steps_from
from ebmrun.theory.descent import Descent, flat, rest
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Pull
from ebmrun.theory.solver import relax

ENERGIES = [Predictive, Lifted, Hopfield]


def nudge_of(energy: type, strength: float):
    return stencil("one_sided" if energy is Hopfield else "single", strength)


def around(
    learning: EnergyLearning, network: Network, x: torch.Tensor, y: torch.Tensor, strength: float
) -> tuple[Descent, torch.Tensor]:
    """The energy around the free equilibrium, and the messages there."""
    with torch.no_grad():
        free = learning.free_equilibrium(network, x)[0]
        descent = Descent(learning.coordinates(network, free), Pull(learning.cost, y, strength))
        return descent, flat([rest(descent.space, l) for l in range(len(descent.moving))])


def energy_at(learning: EnergyLearning, network: Network, descent: Descent, x, s: torch.Tensor) -> torch.Tensor:
    """F of each example at the states that answer messages s, written out."""
    step = descent.at(descent.layers(s), None, 1.0).step
    states = [descent.space.state(u, drive) for u, drive in zip(step.before, step.drives)]
    value = internal_energy(network, learning.energy, x, states)
    pull = descent.pull
    return value if pull.clamps else value + pull.strength * learning.cost.value(states[-1], pull.targets)


@pytest.mark.parametrize("strength", [0.7, math.inf])
@pytest.mark.parametrize("net", NETWORKS)
def test_the_gap_is_the_gradient_of_the_energy(net, strength):
    """dF/ds_l = -gamma^-h_l D_l (t_l - s_l), by autograd of F, far from any equilibrium."""
    network = NETWORKS[net]()
    x, y = batch(network)
    learning = member(Predictive(0.5), nudge_of(Predictive, 1.0), network)
    descent, s = around(learning, network, x, y, strength)
    s = s + 0.3 * torch.randn(s.shape, generator=torch.Generator().manual_seed(0), dtype=s.dtype)
    with torch.no_grad():
        found = descent.weighted(descent.at(descent.layers(s), None, 1.0).way)
    s.requires_grad_()
    gradient = torch.autograd.grad(energy_at(learning, network, descent, x, s).sum(), s)[0]
    torch.testing.assert_close(found, -gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("strength", [0.7, math.inf])
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("net", NETWORKS)
def test_the_curvature_is_the_second_derivative_of_the_energy(net, energy, strength):
    """Along random directions from a free equilibrium whose output is the target, so that no term of first order is
    left that the curvature of the path could multiply."""
    network = NETWORKS[net]()
    x, _ = batch(network)
    learning = member(energy(0.5), nudge_of(energy, 1.0), network)
    with torch.no_grad():
        y = learning.free_equilibrium(network, x)[0].states[-1]
    descent, s = around(learning, network, x, y, strength)
    p = torch.randn(s.shape, generator=torch.Generator().manual_seed(0), dtype=s.dtype)
    with torch.no_grad():
        found = descent.curvature(descent.at(descent.layers(s), None, 1.0), p)[:, 0]
    h = 1e-4

    def value(step: float) -> torch.Tensor:
        with torch.no_grad():
            return energy_at(learning, network, descent, x, s + step * p)

    outer, inner, here = value(2 * h) + value(-2 * h), value(h) + value(-h), value(0.0)
    expected = (16 * inner - outer - 30 * here) / (12 * h**2)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("energy", [Predictive, Lifted])
@pytest.mark.parametrize("outputs, layers", [(1, 3), (3, 3), (5, 9)])
def test_a_quadratic_energy_takes_as_many_steps_as_outputs(energy, outputs, layers):
    """In a linear network the Hessian over the messages is 1 plus a matrix of rank ``outputs``: conjugate gradients end
    after one step more than that, whatever the depth; the last step is taken to see it."""
    network = initialise(mlp((7,), outputs, [6] * (layers - 1), "identity", "identity").double(), 0)
    x, y = batch(network)
    learning = member(energy(), stencil("clamped"), network, tol=1e-9, acceleration="conjugate")
    phase, _ = nudged(learning, network, x, 3 * y)
    assert phase.converged and phase.steps <= outputs + 2


@pytest.mark.parametrize("coordinates", ["error", "state"])
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("net", [net for net in NETWORKS if net != "diamond"])  # whose maxima leave several equilibria
def test_the_equilibria_are_those_of_plain_steps(net, energy, coordinates):
    """Nudged by 0.3 and clamped, from one free equilibrium."""
    network = NETWORKS[net]()
    x, y = batch(network)
    plain = {} if energy is Hopfield else {"order": "synchronous", "step_size": 0.3}
    for nudge in (nudge_of(energy, 0.3), stencil("clamped")):
        fast, slow = (member(energy(0.5), nudge, network, tol=1e-10, coordinates=coordinates, **how)
                      for how in ({"acceleration": "conjugate"}, plain))
        with torch.no_grad():
            free, _ = slow.free_equilibrium(network, x)
        (quick, (states,)), (long, (expected,)) = (nudged(each, network, x, y, free) for each in (fast, slow))
        assert quick.converged and long.converged and quick.steps < long.steps
        for state, right in zip(states, expected):
            torch.testing.assert_close(state, right, rtol=0, atol=2e-8)


@pytest.mark.parametrize("energy", ENERGIES)
def test_a_weak_nudge_takes_the_path_of_plain_sweeps(energy):
    """No conjugate step is needed where each sweep leaves little: the same states, in as many steps."""
    network = random_mlp()
    x, y = batch(network)
    plain, fast = (member(energy(0.2), nudge_of(energy, 1e-3), network, tol=1e-4, acceleration=acceleration)
                   for acceleration in ("none", "conjugate"))
    with torch.no_grad():
        free, _ = plain.free_equilibrium(network, x)
    one, (states,) = nudged(plain, network, x, y, free)
    other, (same,) = nudged(fast, network, x, y, free)
    assert one.converged and other.steps <= one.steps
    for state, start, right in zip(same, free.states, states):
        torch.testing.assert_close(state - start, right - start, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("energy", [Predictive, Lifted])
@pytest.mark.parametrize("depth", [3, 8, 16])
def test_clamped_networks_settle_at_any_depth(energy, depth):
    """Where plain sweeps do not, since the Hessian is larger than 2."""
    network = initialise(mlp((20,), 5, [16] * (depth - 1), "tanh", "identity", math.sqrt(3)).double(), 0)
    x, y = batch(network, 16)
    learning = member(energy(), stencil("clamped"), network, tol=1e-3, max_steps=200, acceleration="conjugate")
    phase, _ = nudged(learning, network, x, 3 * y)
    assert phase.converged


@pytest.mark.parametrize("cost", ["squared", "other"])
def test_examples_do_not_change_each_other_s_path(cost):
    """Each has coefficients of its own: alone or in a batch, the same states at the same step."""
    network = random_mlp()
    x, y = batch(network)
    targets = 3 * y if cost == "squared" else 5 * y - 1
    learning = member(Lifted(), stencil("clamped"), network, tol=0.0, max_steps=5, acceleration="conjugate")
    together = settle(learning, network, x, targets)[0]
    for i in range(len(x)):
        alone = settle(learning, network, x[i : i + 1], targets[i : i + 1])[0]
        for state, other in zip(together, alone):
            torch.testing.assert_close(state[i : i + 1], other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("strength", [0.1, 0.7])
def test_an_equilibrium_is_where_they_stay(strength):
    """Steps from where plain sweeps have ended, some examples at their last digits, which leave slopes that lead up."""
    network = random_mlp()
    x, y = batch(network, 64)
    learning = member(Hopfield(), stencil("centered", strength), network, tol=0, max_steps=600)
    with torch.no_grad():
        space, pull = learning.around(network, learning.free_equilibrium(network, x)[0], y)
        settled = relax(space, pull, learning.relaxation, 600).last
        for step in islice(conjugate_steps_from(space, pull, settled), 20):
            torch.testing.assert_close(flat(step.moved), flat(settled.moved), rtol=0, atol=1e-5)


@pytest.mark.parametrize("net", NETWORKS)
def test_its_gradient_at_a_weak_nudge_is_backprop(net):
    network = NETWORKS[net]()
    x, y = batch(network)
    learning = member(Predictive(), stencil("single", 1e-5), network, acceleration="conjugate")
    estimate = learning.estimate(network, x, y)
    assert estimate.converged and distance(estimate.gradients, backprop(network, learning.cost, x, y)) < 1e-3


@pytest.mark.parametrize("acceleration", ["auto", "conjugate"])
def test_a_clamped_output_alone_has_nothing_to_settle(acceleration):
    """A layer whose output is its target: the gradient is that of one half of the squared error."""
    network, draw = mlp((5,), 3, [], "tanh", "identity").double(), torch.Generator().manual_seed(0)
    initialise(network, 0)
    x, y = torch.randn(4, 5, generator=draw).double(), torch.randn(4, 3, generator=draw).double()
    learning = member(Predictive(), stencil("clamped"), network, tol=1e-10, max_steps=10, acceleration=acceleration)
    estimate = learning.estimate(network, x, y)
    assert estimate.converged
    assert distance(estimate.gradients, backprop(network, learning.cost, x, y)) < 1e-14
