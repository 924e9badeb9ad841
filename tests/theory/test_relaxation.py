"""The dynamics, against plain loops, closed forms, and the energy's own derivatives."""

from __future__ import annotations

import math
import re

import pytest
import torch
from networks import (
    NETWORKS,
    batch,
    free_states,
    gradient_at,
    heights,
    internal_energy,
    member,
    nudged,
    plain_relaxation,
    random_mlp,
    settle,
    stencil,
)

from ebmrun.errors import ConfigError, RunError
from ebmrun.theory.activations import activation
from ebmrun.theory.affine import Linear
from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.network import Layer, Network
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.solver import read, relax
from ebmrun.theory.stencil import Nudge

ENERGIES = [Predictive, Hopfield, Lifted]


# ---- the path: every step, from the free equilibrium, with the residual as it is defined

@pytest.mark.parametrize("net, strength, step_size", [
    *(("mlp", strength, step_size) for strength in (0.3, -0.3, math.inf) for step_size in (1.0, 0.3)),
    *((net, 0.3, 0.7) for net in NETWORKS if net != "mlp"),
])
@pytest.mark.parametrize("order", ["synchronous", "sweep"])
@pytest.mark.parametrize("energy", ENERGIES)
def test_every_step_is_the_plain_one(net, energy, order, step_size, strength):
    network, gain = NETWORKS[net](), 0.5
    x, y = batch(network)
    nudge = stencil("clamped") if math.isinf(strength) else Nudge([math.copysign(1, strength)],
                                                                [math.copysign(1, strength)], abs(strength))
    free, _ = member(energy(gain), nudge, network).free_equilibrium(network, x)
    # From the second step on, winners of maxima that tie share their message, which plain loops know nothing of.
    for steps in (1,) if net == "diamond" and energy is not Hopfield else (1, 2, 5):
        learning = member(energy(gain), nudge, network, order=order, step_size=step_size, coordinates="state",
                          tol=0.0, max_steps=steps)
        phase, (states,) = nudged(learning, network, x, y, free)
        wanted, residual = plain_relaxation(network, energy(gain), learning.cost, x, y, free.states, strength, steps,
                                            order, step_size)
        for state, right in zip(states, wanted):
            torch.testing.assert_close(state, right, rtol=0, atol=1e-11)
        assert phase.steps == steps and not phase.converged
        if steps > len(states):  # before that, layers that no message has reached have 0/0 or noise over noise
            assert phase.residual == pytest.approx(residual, rel=1e-8)


@pytest.mark.parametrize("order", ["synchronous", "sweep"])
@pytest.mark.parametrize("net", NETWORKS)
def test_displacements_from_a_settled_equilibrium_take_the_same_path_as_states(net, order):
    network = NETWORKS[net]()
    x, y = batch(network)
    free, _ = member(Hopfield(), stencil("centered"), network).free_equilibrium(network, x)
    for steps in (1, 3):
        paths = [
            nudged(member(Hopfield(), stencil("centered", 0.2), network, order=order, coordinates=coordinates, tol=0.0,
                          max_steps=steps), network, x, y, free)[1]
            for coordinates in ("state", "error")
        ]
        for node, same in zip(*paths):
            for state, other in zip(node, same):
                torch.testing.assert_close(state, other, rtol=0, atol=1e-11)


# ---- the end of the path

def stationarity(network: Network, energy, cost, x, y, states, strength) -> float:
    """The largest |gamma^h_l dF/dx_l|, by autograd of the nudged energy; the output is left out where it is held."""
    states = [s.detach().requires_grad_() for s in states]
    total = internal_energy(network, energy, x, states).sum()
    moving = states[:-1] if math.isinf(strength) else states
    if not math.isinf(strength):
        total = total + strength * cost.value(states[-1], y).sum()
    slopes = list(torch.autograd.grad(total, moving))
    if network.output is activation("softmax"):  # on the simplex a slope that all units share moves nothing
        slopes[-1] = slopes[-1] - slopes[-1].mean(1, keepdim=True)
    return max(float((energy.feedback_gain**height * g).abs().max()) for height, g in zip(heights(network), slopes))


@pytest.mark.parametrize("coordinates", ["state", "error"])
@pytest.mark.parametrize("energy, net, cost, output", [
    *((energy, net, SquaredError, "identity") for energy in ENERGIES for net in NETWORKS),
    *((energy, "mlp", CrossEntropy, "identity") for energy in ENERGIES),
    # A prediction that a message moves leaves the simplex, where cross-entropy of softmax states has no value.
    *((energy, "mlp", CrossEntropy, "softmax") for energy in (Hopfield, Lifted)),
])
def test_the_nudged_energy_is_stationary_at_every_node(energy, net, cost, output, coordinates):
    network, energy = NETWORKS[net](output=output), energy(0.5)
    x, y = batch(network)
    # States of float64 keep a displacement to about 1e-12 of its size.
    tol, bound = (1e-12, 1e-11) if coordinates == "error" else (1e-9, 1e-8)
    learning = member(energy, stencil("centered", 0.05), network, cost, coordinates=coordinates, tol=tol)
    assert learning.estimate(network, x, y).converged
    for strength, states in zip(learning.nudge.strengths, settle(learning, network, x, y)):
        assert stationarity(network, energy, learning.cost, x, y, states, strength) < bound


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("net", [net for net in NETWORKS if net != "diamond"])  # a clamp pulls units onto its ties
def test_the_clamped_energy_is_stationary_in_the_hidden_layers(net, energy):
    network, energy = NETWORKS[net](), energy(0.5)
    x, y = batch(network)
    learning = member(energy, stencil("clamped"), network, step_size=0.7, tol=1e-11, max_steps=5000)
    assert learning.estimate(network, x, y).converged
    states = settle(learning, network, x, y)[0]
    torch.testing.assert_close(states[-1], y, rtol=0, atol=1e-12)
    assert stationarity(network, energy, learning.cost, x, y, states, math.inf) < 1e-9


@pytest.mark.parametrize("energy", ENERGIES)
def test_minimising_the_nudged_energy_finds_the_same_states(energy):
    network, energy = random_mlp(1), energy(0.7)
    x, y = batch(network)
    learning = member(energy, stencil("single" if not isinstance(energy, Hopfield) else "one_sided", 0.1), network)
    found = settle(learning, network, x, y)[0]
    # States of tanh units as functions of any number, so that the minimiser cannot leave their range.
    free = [torch.atanh(s) if l < 3 else s.clone() for l, s in enumerate(free_states(learning, network, x))]
    for variable in free:
        variable.requires_grad_()
    minimiser = torch.optim.LBFGS(free, max_iter=2000, tolerance_grad=1e-13, tolerance_change=0, history_size=50,
                                  line_search_fn="strong_wolfe")

    def states():
        bounded = not isinstance(energy, Predictive)
        return [torch.tanh(v) if l < 3 and bounded else v for l, v in enumerate(free)]

    if isinstance(energy, Predictive):
        with torch.no_grad():
            for variable, state in zip(free, free_states(learning, network, x)):
                variable.copy_(state)

    def closure():
        minimiser.zero_grad()
        total = internal_energy(network, energy, x, states()).sum() + 0.1 * learning.cost.value(free[-1], y).sum()
        total.backward()
        return total

    minimiser.step(closure)
    for state, right in zip(found, states()):
        torch.testing.assert_close(state, right.detach(), rtol=0, atol=1e-6)


def linear_equilibrium(network: Network, gain: float, x, y, strength: float) -> list[torch.Tensor]:
    """Of a linear network under the predictive energy, from the normal equations of

        sum_l gamma^(l-L) ||x_l - W_l x_{l-1} - b_l||^2 / 2 + strength ||x_L - y||^2 / 2
    """
    weights = [affine.weight.detach() for ((_, affine),) in network.edges]
    biases = [affine.bias.detach() for ((_, affine),) in network.edges]
    sizes, depth = [len(b) for b in biases], len(biases)
    ends = [sum(sizes[: l + 1]) for l in range(depth)]
    spans = [slice(end - size, end) for end, size in zip(ends, sizes)]
    hessian, right = torch.zeros(ends[-1], ends[-1], dtype=x.dtype), torch.zeros(len(x), ends[-1], dtype=x.dtype)
    for l in range(depth):
        factor = gain ** (l + 1 - depth)
        row = torch.zeros(sizes[l], ends[-1], dtype=x.dtype)  # x_l - W_l x_{l-1} as a row of blocks
        row[:, spans[l]] = torch.eye(sizes[l], dtype=x.dtype)
        constant = biases[l].expand(len(x), -1)
        if l:
            row[:, spans[l - 1]] = -weights[l]
        else:
            constant = constant + x @ weights[0].T
        hessian += factor * row.T @ row
        right += factor * constant @ row
    if math.isinf(strength):
        kept = slice(0, ends[-2])
        hidden = torch.linalg.solve(hessian[kept, kept], (right[:, kept] - y @ hessian[spans[-1], kept]).T).T
        solution = torch.cat([hidden, y], 1)
    else:
        hessian[spans[-1], spans[-1]] += strength * torch.eye(sizes[-1], dtype=x.dtype)
        right[:, spans[-1]] += strength * y
        solution = torch.linalg.solve(hessian, right.T).T
    return [solution[:, span] for span in spans]


@pytest.mark.parametrize("coordinates", ["state", "error"])
@pytest.mark.parametrize("order", ["synchronous", "sweep"])
@pytest.mark.parametrize("strength, gain", [(0.4, 1.0), (0.4, 0.3), (math.inf, 0.3), (math.inf, 1.0)])
def test_linear_predictive_networks_reach_their_closed_form(strength, gain, order, coordinates):
    network = random_mlp(3, activation="identity")
    x, y = batch(network)
    nudge = stencil("clamped") if math.isinf(strength) else stencil("single", strength)
    learning = member(Predictive(gain), nudge, network, order=order, coordinates=coordinates, step_size=0.3,
                      tol=3e-12 if coordinates == "error" else 3e-11, max_steps=3000)
    states = settle(learning, network, x, y)[0]
    for state, right in zip(states, linear_equilibrium(network, gain, x, y, strength)):
        assert float((state - right).norm() / right.norm()) < 1e-10


@pytest.mark.parametrize("energy", ENERGIES)
def test_orders_coordinates_step_sizes_and_acceleration_share_one_equilibrium(energy):
    network = random_mlp(2)
    x, y = batch(network)
    ways = [{"coordinates": coordinates} | way for coordinates in ("state", "error")
            for way in ({}, {"acceleration": "anderson"}, {"order": "synchronous", "step_size": 0.5})]
    found = [settle(member(energy(0.5), stencil("centered", 0.1), network, tol=1e-10, **way), network, x, y)
             for way in ways]
    for way, nodes in zip(ways, found):
        for node, first in zip(nodes, found[0]):
            for state, right in zip(node, first):
                torch.testing.assert_close(state, right, rtol=0, atol=1e-8, msg=lambda m, w=way: f"{w}: {m}")


def test_permuting_examples_permutes_states():
    network = random_mlp()
    x, y = batch(network, 7)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    for energy in ENERGIES:
        for acceleration in ("none", "anderson"):
            learning = member(energy(), stencil("centered", 0.1), network, tol=0.0, max_steps=30,
                              acceleration=acceleration)
            for node, permuted in zip(settle(learning, network, x, y), settle(learning, network, x[order], y[order])):
                for state, other in zip(node, permuted):
                    torch.testing.assert_close(state[order], other, rtol=0, atol=1e-12)


# ---- what it says of itself

@pytest.mark.parametrize("coordinates", ["state", "error"])
@pytest.mark.parametrize("energy", ENERGIES)
def test_converged_is_said_only_within_the_tolerance(energy, coordinates):
    network = random_mlp()
    x, y = batch(network)
    nudge = stencil("centered", 1e-3)
    for tol in (1e-2, 1e-8):
        long = member(energy(), nudge, network, coordinates=coordinates, order="synchronous", step_size=0.5, tol=tol,
                      free_steps=1000).estimate(network, x, y)
        assert long.converged and long.residual <= tol
        short = member(energy(), nudge, network, coordinates=coordinates, order="synchronous", step_size=0.5, tol=tol,
                       max_steps=2, free_steps=1000).estimate(network, x, y)
        assert not short.converged and short.residual > tol


@pytest.mark.parametrize("order", ["sweep", "synchronous"])
def test_a_bounded_output_settles_at_its_bound_when_nudged_away_from_its_target(order):
    """x = clip(0.3 - 0.5 (1 - x)) has the solution 0; at the bound a step of more than 1 would swing for ever."""
    affine = Linear((1,), 1)
    network = Network([Layer([(0, affine)], activation("hard_sigmoid"))]).double()
    with torch.no_grad():
        affine.weight.zero_()
        affine.bias.fill_(0.3)
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    learning = member(Hopfield(), stencil("centered", 0.5), network, order=order)
    towards, away = settle(learning, network, x, y)
    assert learning.estimate(network, x, y).converged
    assert float(away[0]) == pytest.approx(0, abs=1e-12)
    assert float(towards[0]) == pytest.approx((0.3 + 0.5) / 1.5, abs=1e-10)


def test_a_free_phase_cut_short_is_not_converged():
    network = random_mlp()
    x, y = batch(network)
    estimate = member(Hopfield(), stencil("centered", 0.1), network, free_steps=2).estimate(network, x, y)
    assert not estimate.converged and estimate.residual > 1e-6


@pytest.mark.parametrize("energy", ENERGIES)
def test_the_tolerance_is_relative_to_the_displacement_however_weak_the_nudge(energy):
    network = random_mlp()
    x, y = batch(network)
    for strength in (1e-1, 1e-6):
        nudge = stencil("centered", strength)
        loose, tight = (member(energy(0.5), nudge, network, tol=tol, order="synchronous", step_size=0.5)
                        for tol in (1e-3, 1e-12))
        free, _ = tight.free_equilibrium(network, x)
        early, late = (nudged(learning, network, x, y, free)[0] for learning in (loose, tight))
        assert early.steps < late.steps
        for u, right in zip(early.last.moved, late.last.moved):
            assert float((u - right).norm() / right.norm()) < 0.02


def test_check_every_only_delays_the_end():
    network = random_mlp()
    x, y = batch(network)
    steps = {}
    for every in (1, 7):
        learning = member(Predictive(), stencil("single", 0.1), network, tol=1e-9, check_every=every,
                          order="synchronous", step_size=0.5)
        steps[every] = learning.estimate(network, x, y).steps
    assert steps[1] <= steps[7] < steps[1] + 7 and steps[7] % 7 == 0


@pytest.mark.parametrize("coordinates", ["state", "error"])
def test_divergence_names_the_layer_and_the_step_size(coordinates):
    """x_L <- f(a) - 1000 (x_L - y) grows a thousandfold a step; only the output's own message is that strong."""
    network = random_mlp()
    x, y = batch(network)
    learning = member(Predictive(), stencil("single", 1e3), network, order="synchronous", coordinates=coordinates)
    with pytest.raises(RunError, match=r"layer 4 .*of size 1: .*nudge.*relax\.step_size=0\.5"):
        learning.estimate(network, x, y)


def test_a_free_phase_that_diverges_blames_no_nudge():
    """x <- a + t with weights of norm above 1 grows without a nudge."""
    network = random_mlp(activation="identity")
    with torch.no_grad():
        for weight in network.weights:
            weight.mul_(10)
    x, y = batch(network)
    learning = member(Hopfield(), stencil("one_sided"), network, acceleration="adaptive")
    with pytest.raises(RunError, match=r"free phase diverged at layer .* use a smaller optim\.lr, or relax=sweep"):
        learning.estimate(network, x, y)


@pytest.mark.parametrize("key, value", [
    ("order", "random"), ("coordinates", "polar"), ("acceleration", "momentum"),
    ("step_size", 0.0), ("step_size", -0.1), ("step_size", 2.5), ("step_size", math.nan), ("tol", -1e-3),
    ("tol", math.inf), ("tol", math.nan), ("max_steps", 0), ("free_steps", 0), ("check_every", 0),
])
def test_values_out_of_range_are_named(key, value):
    with pytest.raises(ConfigError, match=re.escape(f"relax.{key}={value}")):
        Relaxation(**{key: value})


@pytest.mark.parametrize("key, value", [("order", "synchronous"), ("step_size", 0.5), ("acceleration", "anderson")])
def test_a_single_frozen_sweep_has_no_use_for_other_options(key, value):
    with pytest.raises(ConfigError, match=re.escape(f"relax.{key}={value}")):
        Relaxation(frozen=True, **{key: value})


@pytest.mark.parametrize("acceleration", ["none", "conjugate"])
@pytest.mark.parametrize("energy", [Predictive, Lifted])
def test_what_is_read_before_it_settles_is_the_energy_s_gradient_there(energy, acceleration):
    """After three steps under a clamp: the output at its target, and the rule's gradient that of the internal energy by
    autograd at the very states."""
    network = random_mlp()
    x, y = batch(network)
    learning = member(energy(), stencil("clamped"), network, tol=0.0, max_steps=3, acceleration=acceleration)
    with torch.no_grad():
        free, _ = learning.free_equilibrium(network, x)
        space = learning.coordinates(network, free)
        pull = Pull(learning.cost, 3 * y, math.inf)
        phase = relax(space, pull, learning.relaxation, 3)
        at = read(space, pull, phase, learning.relaxation)
        states = [space.state(u, drive) for u, drive in zip(at.moved, at.drives)]
        found = learning.learning_rule(space, at)
    torch.testing.assert_close(states[-1], 3 * y, rtol=0, atol=1e-12)
    for mine, right in zip(found, gradient_at(network, learning.energy, x, states), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-9, atol=1e-12)
