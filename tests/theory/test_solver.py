"""What a relaxation says of itself: it claims to have settled only where the digits that it holds can show it."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from networks import NETWORKS, backprop, batch, distance, member, nudged, random_mlp, stencil

from ebmrun.theory.activations import activation
from ebmrun.theory.affine import Linear
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.network import Layer, Network

EPS = torch.finfo(torch.float32).eps


def pair(weight: float) -> Network:
    """Two linear units in float32 that rest at 1 for the input 1: x_1 = x_0, x_2 = weight x_1 + 1 - weight."""
    first, second = Linear((1,), 1), Linear((1,), 1)
    network = Network([Layer([(0, first)], activation("identity"), "hidden"),
                       Layer([(1, second)], activation("identity"), "output")])
    with torch.no_grad():
        for affine, value in ((first, 1.0), (second, weight)):
            affine.weight.fill_(value)
            affine.bias.fill_(1 - value)
    return network


def pulled(network: Network, strength: float, coordinates: str = "state", energy=Lifted):
    """A relaxation under a nudge from 1 towards 2, in sweeps to 1e-3."""
    x, y = torch.ones(1, 1), torch.full((1, 1), 2.0)
    dtype = next(network.parameters()).dtype
    learning = member(energy(), stencil("single", strength), network, tol=1e-3, max_steps=50, coordinates=coordinates)
    return learning, x.to(dtype), y.to(dtype)


# With a weight w the hidden unit moves by w strength / (1 + strength (1 + w^2)), from the normal equations of
# (x_1 - 1)^2 / 2 + (x_2 - w x_1 - 1 + w)^2 / 2 + strength (x_2 - 2)^2 / 2.
WEIGHT, STRENGTH = 2**-10, 2**-3


def way(weight: float, strength: float) -> float:
    return weight * strength / (1 + strength * (1 + weight**2))


def test_a_state_counts_half_a_digit_as_left_to_move():
    """The residual is at least half a digit over the way, whatever the answers say."""
    learning, x, y = pulled(pair(WEIGHT), STRENGTH)
    phase, (states,) = nudged(learning, pair(WEIGHT), x, y)
    expected = way(WEIGHT, STRENGTH)
    assert float(states[0]) - 1 == pytest.approx(expected, rel=EPS / expected)  # the digits that 1 leaves it
    assert phase.residual == pytest.approx(EPS / 2 / expected, rel=1e-2)
    assert phase.converged and phase.drowned is None
    strict = replace(learning.relaxation, tol=phase.residual / 2)
    assert nudged(replace(learning, relaxation=strict), pair(WEIGHT), x, y)[0].drowned == 0


@pytest.mark.parametrize("digits, moves", [(0.2, False), (3.0, True), (100.0, True)])
def test_a_displacement_below_the_digits_of_a_state_is_not_converged_and_is_named(digits, moves):
    weight = digits * EPS / way(1.0, STRENGTH)
    network = pair(weight)
    learning, x, y = pulled(network, STRENGTH)
    phase, (states,) = nudged(learning, network, x, y)
    assert (float(states[0]) != 1) == moves  # less than half a digit rounds away
    assert not phase.converged and phase.drowned == 0 and phase.steps == 50
    assert phase.residual == (1 if not moves else pytest.approx(0.5 / digits, rel=0.3))
    with pytest.warns(UserWarning, match="the nudge moves hidden by less than the digits that float32 leaves"):
        assert not learning.estimate(network, x, y).converged


@pytest.mark.parametrize("coordinates, double", [("error", False), ("state", True), ("error", True)])
def test_where_its_digits_are_held_the_same_displacement_converges(coordinates, double):
    weight = 3 * EPS / way(1.0, STRENGTH)
    network = pair(weight).double() if double else pair(weight)
    learning, x, y = pulled(network, STRENGTH, coordinates)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = learning.estimate(network, x, y)
    assert estimate.converged
    # dI/dw_1 / strength, with I = (x_1 - 1)^2 / 2 + ...: the error of the hidden unit, at the input 1.
    assert float(estimate.gradients[0]) == pytest.approx(-way(weight, STRENGTH) / STRENGTH, rel=1e-5)


@pytest.mark.parametrize("energy", [Predictive, Lifted])
@pytest.mark.parametrize("net, drowned", [("mlp", "layer1"), ("fan_out", "layer1"), ("fan_in", "layer1")])
def test_the_layer_that_is_the_least_moved_is_named(net, drowned, energy):
    """Layers at height h move by about strength gamma^h, here 1e-7 and less for the height of layer 1 alone."""
    network = NETWORKS[net]().float()
    x, y = (each.float() for each in batch(network.double()))
    height = max(network.float().heights)
    gain = 1e-7 ** (1 / height)
    learning = member(energy(gain), stencil("single", 0.01), network, tol=0.05, max_steps=30, coordinates="state")
    phase, _ = nudged(learning, network, x, y)
    assert not phase.converged and phase.residual >= 1 and network.names[phase.drowned] == drowned
    with pytest.warns(UserWarning, match=f"the nudge moves {drowned} by less"):
        learning.estimate(network, x, y)


# ---- layers that rest with reason

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("energy", [Predictive, Lifted])
def test_a_dead_layer_counts_as_settled(energy, dtype):
    """All its slopes are 0, so that nothing below it hears anything; in backprop likewise."""
    network = random_mlp(activation="relu")
    with torch.no_grad():
        network.edges[1][0][1].bias.fill_(-100)
    x, y = batch(network)
    reference = backprop(network, member(energy(), stencil("single"), network).cost, x, y)
    assert all(float(g.abs().max()) == 0 for g in reference[:4]) and float(reference[6].abs().max()) > 0
    network, x, y = network.to(dtype), x.to(dtype), y.to(dtype)
    estimate = member(energy(), stencil("single", 1e-4), network, tol=1e-6).estimate(network, x, y)
    assert estimate.converged and estimate.residual <= 1e-6
    assert all(float(g.abs().max()) == 0 for g in estimate.gradients[:4])
    assert distance(estimate.gradients, reference) < 1e-3


@pytest.mark.parametrize("energy, coordinates", [
    (Predictive, "state"), (Predictive, "error"), (Lifted, "state"), (Lifted, "error"), (Hopfield, "error"),
])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("net", NETWORKS)
def test_a_perfect_fit_has_nothing_to_move(net, dtype, energy, coordinates):
    network = NETWORKS[net]()
    x, _ = batch(network, 2)
    network, x = network.to(dtype), x.to(dtype)
    nudge = stencil("one_sided" if energy is Hopfield else "single", 0.1)
    learning = member(energy(0.5), nudge, network, tol=1e-6, coordinates=coordinates, max_steps=100)
    with torch.no_grad():
        free, _ = learning.free_equilibrium(network, x)
    y = free.states[-1]
    phase, _ = nudged(learning, network, x, y, free)
    assert phase.converged and phase.residual == 0 and phase.drowned is None
    estimate = learning.estimate(network, x, y)
    assert estimate.converged and all(float(g.abs().max()) == 0 for g in estimate.gradients)


# ---- layers that rest without

@pytest.mark.parametrize("coordinates", ["error", "state"])
@pytest.mark.parametrize("gain", [1e-14, 1e-20, 1e-30])
@pytest.mark.parametrize("energy", [Predictive, Lifted])
@pytest.mark.parametrize("net", ["mlp", "skip", "fan_in"])
def test_a_displacement_that_underflows_is_not_converged(net, energy, gain, coordinates):
    """Three layers below the output it is of gamma^3: at most 1e-42, of which float32 holds two digits or none."""
    network = NETWORKS[net]()
    x, y = batch(network)
    network, x, y = network.float(), x.float(), y.float()
    learning = member(energy(gain), stencil("single", 1e-2), network, tol=1e-3, max_steps=20, coordinates=coordinates)
    phase, _ = nudged(learning, network, x, y)
    assert not phase.converged and phase.residual > 1e-3


@pytest.mark.parametrize("energy", [Predictive, Lifted, Hopfield])
def test_norms_whose_squares_float32_cannot_hold(energy):
    """In a linear network a displacement is in proportion to the strength where that is weak, and so its residual is
    the same at 1e-4 and at 1e-26. Synchronous steps from 0 are far from their end after five."""
    network = random_mlp(activation="identity")
    x, y = batch(network)
    network, x, y = network.float(), x.float(), y.float()
    nudge = "centered" if energy is Hopfield else "single"
    phases = []
    for strength in (1e-4, 1e-26):
        learning = member(energy(0.3), stencil(nudge, strength), network, tol=0.0, max_steps=5, free_steps=100,
                          order="synchronous", step_size=0.5)
        free, _ = learning.free_equilibrium(network, x)
        phases.append(nudged(learning, network, x, y, free)[0])
    assert 0.01 < phases[1].residual == pytest.approx(phases[0].residual, rel=1e-2)
