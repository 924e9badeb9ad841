"""The step size of sweeps, against Young's theory and against every fixed step size."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from networks import batch, member, random_mlp, stencil

from ebmrun.errors import ConfigError
from ebmrun.theory.architectures import mlp
from ebmrun.theory.energies import Hopfield, Lifted
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.over_relaxation import FIRST_STEP_SIZE, OverRelaxation, best
from ebmrun.theory.solver import Relaxation


def spectral_radius(mu: float, step_size: float) -> float:
    """Of sweeps of a consistently ordered system whose synchronous steps have the spectral radius mu, from Young's
    (lambda + w - 1)^2 = lambda w^2 mu^2."""
    half = step_size * mu / 2
    return abs(half + cmath.sqrt(half**2 - (step_size - 1))) ** 2


@pytest.mark.parametrize("mu", [0.1, 0.5, 0.9, 0.99])
def test_the_best_step_size_from_the_ratio_at_any_smaller_one(mu):
    wanted = min((1 + i / 10000 for i in range(9999)), key=lambda w: spectral_radius(mu, w))  # by search
    for step_size in (1.0, 1 + 0.3 * (wanted - 1), 1 + 0.9 * (wanted - 1)):
        assert best(spectral_radius(mu, step_size), step_size) == pytest.approx(wanted, abs=2e-4)


@pytest.mark.parametrize("step_size", [1.0, 1.3])
def test_changes_that_do_not_shrink_ask_for_the_largest_step(step_size):
    assert best(1.0, step_size) == best(1.7, step_size) == 2


def test_it_waits_and_then_follows():
    over = OverRelaxation(1.0)
    over.follow(0.5)
    assert over.step_size == 1 and not over.slow
    for change in 0.5 * 0.36 ** torch.arange(1, 60, dtype=torch.float64):  # mu = 0.6 at a step of 1
        if over.step_size > 1:
            break
        over.follow(float(change))
    assert 1 < over.step_size <= 2 / (1 + math.sqrt(1 - 0.36)) + 1e-12
    for _ in range(40):
        over.follow(over.change)
    assert over.slow


@pytest.mark.parametrize("mu", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("first", [1.1, 1.9])
def test_it_finds_the_best_step_size_from_below_and_from_above(mu, first):
    """Of sweeps that shrink their changes by Young's ratio; beyond w* that is w - 1, whatever mu is."""
    over, change = OverRelaxation(first), 1.0
    for _ in range(60):
        over.follow(change)
        change *= spectral_radius(mu, over.step_size)
    assert over.step_size == pytest.approx(2 / (1 + math.sqrt(1 - mu**2)), abs=1e-3)


@pytest.mark.parametrize("ratio, tol, unread", [
    (0.1, 2e-3, 1), (0.2, 2e-3, 2), (0.3, 2e-3, 4), (0.9, 2e-3, 4), (1.2, 2e-3, 1), (0.3, 0.0, 1), (0.3, 1.0, 1)])
def test_sweeps_that_cannot_meet_the_tolerance_are_not_measured(ratio, tol, unread):
    """Where each leaves the same share, n sweeps leave ratio^n: the first that may meet it is measured, the one before
    it for safety, and in any case the fifth, from which on a step size is followed."""
    over = OverRelaxation(1.0)
    for change in (1.0, ratio):
        over.follow(change)
    assert over.unread(tol) == unread
    if 0 < tol < 1 and ratio < 1:
        assert ratio ** (over.unread(tol) - 1) > tol


@pytest.mark.parametrize("hidden, activation", [([64], "tanh"), ([32, 32], "hard_sigmoid"), ([64] * 3, "sigmoid"),
                                                ([24] * 7, "tanh"), ([32] * 5, "hard_sigmoid")])
def test_no_fixed_step_size_settles_in_much_fewer(hidden, activation):
    """Free phase and nudged phase together: at most 1.2 times the sweeps of the best fixed step, and two more."""
    network = initialise(mlp((20,), 5, hidden, activation, "identity").double(), 1)
    x, y = batch(network, 16)

    def sweeps(**how) -> float:
        estimate = member(Hopfield(), stencil("one_sided", 0.1), network, tol=1e-3, max_steps=400, **how).estimate(
            network, x, y)
        return estimate.steps if estimate.converged else math.inf

    fixed = min(sweeps(step_size=1 + 0.05 * i) for i in range(20))
    assert sweeps(acceleration="adaptive", step_size=1.1) <= 1.2 * fixed + 2


def test_what_settles_slowly_goes_on_by_conjugate_gradients_and_so_does_its_nudged_phase():
    network = random_mlp(activation="tanh")
    with torch.no_grad():
        for edges in network.edges[1:3]:
            edges[0][1].weight.mul_(2.0)
    x, y = batch(network)
    learning = member(Hopfield(), stencil("centered", 0.1), network, tol=1e-8, acceleration="adaptive")
    with torch.no_grad():
        _, phase = learning.free_equilibrium(network, x)
    assert phase.converged and phase.how.acceleration == "conjugate" and phase.how.step_size == 1
    assert learning.estimate(network, x, y).converged


@pytest.mark.parametrize("settings, words", [
    ({"acceleration": "adaptive", "order": "synchronous"}, "relax.order=synchronous has no use with"),
    ({"acceleration": "conjugate", "order": "even_odd"}, "relax.order=even_odd has no use with"),
    ({"acceleration": "conjugate", "step_size": 0.5}, "relax.step_size=0.5 has no use with"),
])
def test_settings_that_would_be_ignored_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Relaxation(**settings)


@pytest.mark.parametrize("energy, settings, means", [
    (Lifted, {}, "conjugate"), (Hopfield, {}, "adaptive"), (Lifted, {"step_size": 0.5}, "none"),
    (Hopfield, {"step_size": 0.5}, "none"), (Lifted, {"order": "synchronous"}, "none"),
    (Hopfield, {"order": "even_odd"}, "none"),
])
def test_what_auto_stands_for(energy, settings, means):
    """The same path as by the acceleration's own name, and nothing that is set by itself is overruled."""
    network = random_mlp()
    x, y = batch(network)
    first = {"step_size": FIRST_STEP_SIZE} if means == "adaptive" else {}
    found, expected = (
        member(energy(), stencil("centered", 0.1), network, tol=1e-6, acceleration=name, **how).estimate(network, x, y)
        for name, how in (("auto", settings), (means, settings | first)))
    assert found.steps == expected.steps and found.residual == expected.residual
