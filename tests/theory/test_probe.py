"""The regime of a relaxation, against dense Hessians by autograd, closed forms, and what relaxations then do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from networks import (
    NETWORKS,
    backprop,
    batch,
    drive,
    heights,
    internal_energy,
    member,
    nudged,
    random_mlp,
    settle,
    stencil,
)
from scipy.linalg import eigh

from ebmrun.theory.affine import Linear
from ebmrun.theory.alignment import alignment
from ebmrun.theory.architectures import mlp
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.probe import KEYS, NEAR, probe
from ebmrun.theory.stencil import Nudge

ENERGIES = [Predictive, Lifted, Hopfield]
EIGENVALUE, STEP, WORK, COSINE = KEYS


def nudge_of(energy: type, strength: float):
    return stencil("one_sided" if energy is Hopfield else "single", strength)


def energy_at(learning: EnergyLearning, network: Network, x, y, states, strength: float) -> torch.Tensor:
    """F of each example."""
    value = internal_energy(network, learning.energy, x, states)
    return value if math.isinf(strength) else value + strength * learning.cost.value(states[-1], y)


def dense(learning: EnergyLearning, network: Network, x, y, states) -> float:
    """The largest eigenvalue of M^-1 H over the examples, M = gamma^-h E_xx, both by autograd of the energy."""
    (strength,), largest = learning.nudge.strengths, 0.0
    count, gain = len(states) - math.isinf(strength), learning.energy.feedback_gain
    for i in range(len(x)):
        one, xi, yi = [state[i : i + 1] for state in states], x[i : i + 1], y[i : i + 1]
        sizes = [state.numel() for state in one[:count]]

        def whole(z, one=one, xi=xi, yi=yi, sizes=sizes):
            parts = [part.view_as(like) for part, like in zip(z.split(sizes), one)]
            return energy_at(learning, network, xi, yi, parts + one[count:], strength)[0]

        def own(z, l, one=one, xi=xi):
            a = drive(network.edges[l], xi, one).detach()
            return gain ** -heights(network)[l] * learning.energy.value(z.view_as(a), a, network.activations[l]).sum()

        flat = [state.flatten() for state in one[:count]]
        h = torch.autograd.functional.hessian(whole, torch.cat(flat))
        m = torch.block_diag(*(torch.autograd.functional.hessian(lambda z, l=l: own(z, l), part)
                               for l, part in enumerate(flat)))
        largest = max(largest, eigh(h.numpy(), m.numpy(), eigvals_only=True)[-1])
    return largest


@pytest.mark.parametrize("clamps", [False, True])
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("net", ["mlp", "skip", "cnn"])
def test_the_largest_eigenvalue_is_that_of_the_dense_hessian(net, energy, clamps):
    network = NETWORKS[net]()
    x, y = batch(network)
    nudge = stencil("clamped") if clamps else nudge_of(energy, 0.5)
    learning = member(energy(0.5), nudge, network, acceleration="conjugate")
    found = probe(learning, network, x, y)
    expected = dense(learning, network, x, y, settle(learning, network, x, y)[0])
    assert found[EIGENVALUE] == pytest.approx(expected, rel=NEAR) and found[STEP] == 2 / found[EIGENVALUE]


def chain(layers: int, weight: float) -> Network:
    """Single linear units one after another, each with that weight."""
    network = mlp((1,), 1, [1] * (layers - 1), "identity", "identity").double()
    for affine in network.modules():
        if isinstance(affine, Linear):
            torch.nn.init.constant_(affine.weight, weight), torch.nn.init.zeros_(affine.bias)
    return network


@pytest.mark.parametrize("layers", [2, 5, 9])
@pytest.mark.parametrize("energy", ENERGIES)
def test_the_largest_eigenvalue_of_a_clamped_chain(energy, layers):
    """Of n hidden units, 1 + w^2 on the diagonal of the Hessian and -w beside it: 1 + w^2 + 2 w cos(pi / (n + 1)). For
    the Hopfield energy 1 and -w."""
    w = 0.4
    network, x = chain(layers, w), torch.tensor([[1.0]], dtype=torch.float64)
    learning = member(energy(), stencil("clamped"), network)
    diagonal = 1.0 if energy is Hopfield else 1 + w**2
    expected = diagonal + 2 * w * math.cos(math.pi / layers)
    assert probe(learning, network, x, 3 * x)[EIGENVALUE] == pytest.approx(expected, rel=NEAR**2)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("net", ["mlp", "skip"])
def test_synchronous_steps_settle_below_the_largest_stable_one_and_not_above(net, energy):
    network = NETWORKS[net]()
    x, y = batch(network)
    learning = member(energy(), stencil("clamped"), network, acceleration="conjugate")
    with torch.no_grad():
        free, _ = learning.free_equilibrium(network, x)
    step = probe(learning, network, x, y)[STEP]
    for share, settles in ((0.9, True), (1.1, False)):
        how = replace(learning.relaxation, order="synchronous", acceleration="none", step_size=share * step,
                      coordinates="state", tol=1e-3, max_steps=300)
        phase, _ = nudged(replace(learning, relaxation=how), network, x, y, free)
        assert phase.converged is settles


@pytest.mark.parametrize("clamps", [False, True])
@pytest.mark.parametrize("energy", ENERGIES)
def test_the_share_of_the_work_is_the_closed_form_in_a_linear_network(energy, clamps):
    """(F(start) - F) / (F(start) - F*), with F* far down, after few steps of gradient flow; it grows with them."""
    network = initialise(mlp((6,), 3, [5, 4], "identity", "identity", 0.5 if energy is Hopfield else 1.0).double(), 0)
    x, y = batch(network)
    nudge, shares = stencil("clamped") if clamps else nudge_of(energy, 0.5), []
    strength, flow = nudge.strengths[0], {"order": "synchronous", "coordinates": "state", "tol": 0.0}
    to_the_end = member(energy(0.8), nudge, network, acceleration="conjugate")
    for steps in (2, 8, 20):
        few = member(energy(0.8), nudge, network, step_size=0.1, max_steps=steps, free_steps=300, **flow)
        free = [state.clone() for state in few.free_equilibrium(network, x)[0].states]
        start = [*free[:-1], y if clamps else free[-1]]
        there, here, down = (float(energy_at(few, network, x, y, states, strength).sum().detach()) for states in (
            start, settle(few, network, x, y)[0], settle(to_the_end, network, x, y)[0]))
        shares.append(probe(few, network, x, y)[WORK])
        assert shares[-1] == pytest.approx((there - here) / (there - down), rel=2e-3)
    assert 0 < shares[0] < shares[1] < shares[2] < 1


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("strength", [1e-4, 0.3])
def test_all_work_is_done_at_an_equilibrium(energy, strength):
    network = random_mlp()
    x, y = batch(network)
    nudge = stencil("centered", strength)
    found = probe(member(energy(), nudge, network, tol=1e-6, acceleration="conjugate"), network, x, y)
    assert found[WORK] == pytest.approx(1, abs=1e-9)


def test_a_unit_held_on_its_kink_leaves_no_work():
    """Though neither side of its slope has a gradient of 0."""
    network = random_mlp(activation="relu")
    x, y = batch(network, 32)
    learning = member(Predictive(), stencil("clamped"), network, tol=1e-8, acceleration="conjugate")
    phase, _ = nudged(learning, network, x, 2 * y)
    assert phase.converged and any(bool(held.any()) for held in phase.last.held if held is not None)
    assert probe(learning, network, x, 2 * y)[WORK] == pytest.approx(1, abs=1e-6)


def test_the_cosine_to_one_sweep_says_whether_it_is_backprop():
    network = random_mlp()
    x, y = batch(network)
    weak = member(Predictive(), stencil("single", 1e-4), network)
    assert probe(weak, network, x, y)[COSINE] == pytest.approx(1, abs=1e-6)
    clamped = member(Predictive(), stencil("clamped"), network, acceleration="conjugate")
    estimate, truth = clamped.estimate(network, x, y), backprop(network, clamped.cost, x, y)
    expected = alignment([estimate.gradients], [truth])["alignment/cosine"]
    found = probe(clamped, network, x, y)[COSINE]
    assert found == pytest.approx(expected, abs=1e-6) and found < 0.97
    barely = member(Predictive(), stencil("clamped"), network, order="synchronous", coordinates="state",
                    step_size=1e-4, max_steps=3)
    assert probe(barely, network, x, y)[WORK] < 0.01


def test_a_settling_energy_is_held_against_one_sweep_from_its_free_equilibrium():
    network = random_mlp(activation="sigmoid")
    x, y = batch(network)
    learning = member(Hopfield(), stencil("one_sided", 0.1), network, coordinates="state")
    with torch.no_grad():
        once = replace(learning, relaxation=replace(learning.relaxation, max_steps=1, free_steps=1000))
        truth = once.estimate(network, x, y).gradients
    expected = alignment([learning.estimate(network, x, y).gradients], [truth])["alignment/cosine"]
    assert probe(learning, network, x, y)[COSINE] == pytest.approx(expected, abs=1e-9) and expected < 1 - 1e-6


@pytest.mark.parametrize("network, how", [(random_mlp(), {"frozen": True}), (chain(1, 1.0), {})])
def test_where_nothing_relaxes_nothing_is_measured(network, how):
    x, y = batch(network)
    assert probe(member(Predictive(), stencil("clamped"), network, **how), network, x, y) == {}


@pytest.mark.parametrize("nudge", [
    Nudge([1.0, 0.0], [1.0, -1.0], 0.3, random_sign=True), Nudge(strength=0.3, points=4)])
def test_where_a_nudge_is_drawn_or_complex_nothing_is_measured(nudge):
    network = random_mlp()
    assert probe(member(Predictive(), nudge, network), network, *batch(network)) == {}


def test_work_has_no_share_where_the_energy_is_not_convex():
    """A chain of weight 2 of Hopfield's: 1 on the diagonal and -2 beside it."""
    network, x = chain(3, 2.0), torch.tensor([[1.0]], dtype=torch.float64)
    learning = member(Hopfield(), stencil("clamped"), network, max_steps=2)
    found = probe(learning, network, x, x)
    assert WORK not in found and found[EIGENVALUE] == pytest.approx(3, rel=NEAR)


def test_the_network_stays_as_it_is():
    network = random_mlp().float()
    x, y = (part.float() for part in batch(random_mlp()))
    before = [p.detach().clone() for p in network.parameters()]
    state = torch.get_rng_state()
    assert set(probe(member(Lifted(), stencil("single", 0.1), network, tol=1e-4), network, x, y)) == set(KEYS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.requires_grad and torch.equal(p, old) for p, old in zip(network.parameters(), before))
