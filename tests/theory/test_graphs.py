"""The theory's orders where a layer hears several others, is heard by several, or is pooled by its maxima."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from networks import GRAPHS, backprop, batch, distance, gradient_at, member, slope, stencil

from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.nudge import Pull
from ebmrun.theory.references import Implicit
from ebmrun.theory.relaxation import arrived, steps

# Weak enough that no winner of a maximum changes.
ORDERS = {
    "single": (1, (1e-2, 1e-3, 1e-4)),
    "centered": (2, (1e-2, 3e-3, 1e-3)),
    "fourth_order": (4, (2e-2, 1e-2, 5e-3)),
}


@pytest.mark.parametrize("coordinates", ["state", "error"])
@pytest.mark.parametrize("name", ["one_sided", "centered"])
def test_the_rule_where_winners_of_maxima_change(name, coordinates):
    """At states drawn around the free equilibrium: sum_k w_k dI/dtheta at them, by autograd."""
    network, energy = GRAPHS["diamond"](), Hopfield(0.5)
    x, y = batch(network)
    learning = member(energy, stencil(name, 0.5), network, coordinates=coordinates)
    draw, (weights, at_rest) = torch.Generator().manual_seed(3), learning.nudge.coefficients
    with torch.no_grad():
        free, _ = learning.free_equilibrium(network, x)
        stacked = free.repeat(len(weights))
        shifts = [0.1 * torch.randn(s.shape, generator=draw, dtype=s.dtype) for s in stacked.states]
        space = learning.coordinates(network, stacked)
        pull = Pull.stacked(learning.cost, y, learning.nudge.strengths)
        step = next(steps(space, pull, "sweep", 1.0))
        moved = [s + d for s, d in zip(stacked.states, shifts)] if coordinates == "state" else shifts
        at = arrived(space, pull, step._replace(moved=moved))
        found = learning.learning_rule(space, at)
    assert any(piece is not None and not torch.equal(piece.places, before.places)
               for drive, rest in zip(at.drives, stacked.drives) for piece, before in zip(drive.pieces, rest.pieces))
    expected = [at_rest * g for g in gradient_at(network, energy, x, free.states)]
    nodes = zip(*((s + d).split(len(x)) for s, d in zip(stacked.states, shifts)))
    for weight, states in zip(weights, nodes):
        expected = [e + weight * g for e, g in zip(expected, gradient_at(network, energy, x, states))]
    assert distance(found, expected) < 1e-10


def errors(learning: EnergyLearning, network, x, y, strengths: Sequence[float], reference) -> list[float]:
    found = []
    for strength in strengths:
        estimate = replace(learning, nudge=replace(learning.nudge, strength=strength)).estimate(network, x, y)
        assert estimate.converged
        found.append(distance(estimate.gradients, reference))
    return found


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("energy", [Predictive, Lifted])
@pytest.mark.parametrize("net", GRAPHS)
def test_the_error_against_backprop_has_the_order_of_the_stencil(net, energy, name):
    network, (order, strengths) = GRAPHS[net](1), ORDERS[name]
    x, y = batch(network, 3)
    learning = member(energy(), stencil(name), network)
    found = errors(learning, network, x, y, strengths, backprop(network, learning.cost, x, y))
    assert slope(found, strengths) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("net", GRAPHS)
def test_equilibrium_propagation_tends_to_the_implicit_gradient_in_second_order(net):
    network, (order, strengths) = GRAPHS[net](1, activation="sigmoid"), ORDERS["centered"]
    x, y = batch(network, 3)
    learning = member(Hopfield(0.5), stencil("centered"), network)
    reference = Implicit(learning).estimate(network, x, y)
    assert reference.converged
    found = errors(learning, network, x, y, strengths, reference.gradients)
    assert slope(found, strengths) == pytest.approx(order, abs=0.1)
    # At this feedback it is another gradient than that of the forward pass.
    assert distance(backprop(network, learning.cost, x, y), reference.gradients) > 10 * found[0]


@pytest.mark.parametrize("energy", [Predictive, Hopfield], ids=["pc_weak_feedback", "chl"])
@pytest.mark.parametrize("net", GRAPHS)
def test_the_error_of_clamping_is_of_first_order_in_the_feedback_gain(net, energy):
    network, gains = GRAPHS[net](1, activation="sigmoid"), (1e-2, 1e-3, 1e-4)
    x, y = batch(network, 3)
    found = []
    for gain in gains:
        learning = member(energy(gain), stencil("clamped"), network)
        estimate = learning.estimate(network, x, y)
        assert estimate.converged
        found.append(distance(estimate.gradients, backprop(network, learning.cost, x, y)))
    assert slope(found, gains) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("energy", [Predictive, Lifted])
@pytest.mark.parametrize("net", GRAPHS)
def test_float32_adds_nothing_to_the_bias_of_a_weak_nudge(net, energy):
    """The same weights in both precisions, at a strength whose displacements states of float32 would hold to three
    digits at best."""
    single = GRAPHS[net](1).float()
    double = copy.deepcopy(single).double()
    x, y = batch(double, 3)
    x = x.float().double()
    reference = backprop(double, member(energy(), stencil("single"), double).cost, x, y)
    estimates = [member(energy(), stencil("single", 1e-4), network, tol=tol)
                 .estimate(network, x.to(p.dtype), y.to(p.dtype))
                 for network, tol in ((double, 1e-12), (single, 1e-6)) for p in [next(network.parameters())]]
    assert all(estimate.converged for estimate in estimates)
    bias, found = (distance(estimate.gradients, reference) for estimate in estimates)
    assert 0 < bias < 1e-3 and found < bias + 1e-5
