"""Outputs held between their free state and the target: against dense Newton steps under the constraint, the limit of
coupled learning by dense solves, and closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import (
    backprop,
    batch,
    distance,
    free_states,
    gradient_at,
    internal_energy,
    member,
    random_cnn,
    random_diamond,
    random_mlp,
    random_skip,
    slope,
    stencil,
)
from torch import Tensor
from torch.autograd.functional import hessian

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import activation
from ebmrun.theory.affine import Linear
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Layer, Network
from ebmrun.theory.pulling import pull_of
from ebmrun.theory.references import Implicit
from ebmrun.theory.stencil import Nudge

STENCILS = {"coupled": ([1.0, 0.0], [1.0, -1.0]), "coupled_negative": ([-1.0, 0.0], [-1.0, 1.0]),
            "coupled_centered": ([1.0, -1.0], [0.5, -0.5])}
ENERGIES = [Hopfield(0.8), Lifted(0.8), Predictive(0.8)]


def coupled(name: str, strength: float) -> Nudge:
    return Nudge(*map(list, STENCILS[name]), strength=strength, holds=True)


def parted(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
    """One example's states from their numbers, one after another."""
    parts = flat.split([s[0].numel() for s in like])
    return [part.view(1, *s.shape[1:]) for part, s in zip(parts, like)]


def joined(states: list[Tensor]) -> Tensor:
    return torch.cat([s.flatten() for s in states])


def held(network: Network, energy, x: Tensor, free: list[Tensor], output: Tensor) -> list[Tensor]:
    """The states of one example at the least internal energy for a given output, by Newton steps on the others."""
    like, hidden = free[:-1], joined(free[:-1])

    def energy_of(flat: Tensor) -> Tensor:
        return internal_energy(network, energy, x, [*parted(flat, like), output]).sum()

    for _ in range(8):
        leaf = hidden.detach().requires_grad_()
        slope = torch.autograd.grad(energy_of(leaf), leaf)[0]
        hidden = hidden - torch.linalg.solve(hessian(energy_of, hidden), slope)
    assert float(slope.abs().max()) < 1e-12
    return [*parted(hidden, like), output]


@pytest.mark.parametrize("name", STENCILS)
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("net", [random_mlp, random_skip])
def test_the_estimate_is_the_difference_of_energies_whose_outputs_are_held(net, energy, name):
    """sum_k w_k dI/dtheta at the least I for an output of (1 - lambda_k) free + lambda_k target."""
    network, strength = net(activation="sigmoid"), 0.3
    x, y = batch(network, 1)
    learning = member(energy, coupled(name, strength), network, tol=1e-10)
    rest = free_states(learning, network, x)
    expected = [torch.zeros_like(p) for p in network.parameters()]
    for i in range(len(x)):
        free = [s[i : i + 1] for s in rest]
        for node, weight in zip(*STENCILS[name]):
            share = node * strength
            states = held(network, energy, x[i : i + 1], free, (1 - share) * free[-1] + share * y[i : i + 1])
            parts = gradient_at(network, energy, x[i : i + 1], states)
            expected = [e + weight / strength / len(x) * g for e, g in zip(expected, parts)]
    for coordinates in ("state", "error"):
        how = replace(learning.relaxation, coordinates=coordinates)
        estimate = replace(learning, relaxation=how).estimate(network, x, y)
        assert estimate.converged and distance(estimate.gradients, expected) < 1e-8


def limit(learning: EnergyLearning, network: Network, x: Tensor, y: Tensor) -> list[Tensor]:
    """(do/dtheta)^T V'' (o - y) with V'' = ((H^-1)_oo)^-1 and dx/dtheta = -H^-1 d(dI/dx)/dtheta, H being the Hessian of
    the internal energy I in all states at the free equilibrium: everything dense, one example at a time."""
    rest, parameters = free_states(learning, network, x), list(network.parameters())
    found = [torch.zeros_like(p) for p in parameters]
    for i in range(len(x)):
        free, outputs = [s[i : i + 1] for s in rest], y.shape[1]

        def energy_of(flat: Tensor, i=i, free=free) -> Tensor:
            return internal_energy(network, learning.energy, x[i : i + 1], parted(flat, free)).sum()

        flat = joined(free)
        inverse = torch.linalg.inv(hessian(energy_of, flat))
        force = torch.linalg.solve(inverse[-outputs:, -outputs:], free[-1][0] - y[i])
        leaf = flat.detach().requires_grad_()
        by_state = torch.autograd.grad(energy_of(leaf), leaf, create_graph=True)[0]
        parts = torch.autograd.grad((by_state * (inverse[:, -outputs:] @ force)).sum(), parameters)
        found = [f - part / len(x) for f, part in zip(found, parts)]
    return found


@pytest.mark.parametrize("name, order", [("coupled", 1), ("coupled_negative", 1), ("coupled_centered", 2)])
@pytest.mark.parametrize("energy", ENERGIES)
def test_coupled_learning_tends_to_the_gradient_weighted_by_the_curvature_of_the_energy(energy, name, order):
    network, strengths = random_mlp(), (1e-1, 3e-2, 1e-2)
    x, y = batch(network, 2)
    learning = member(energy, coupled(name, 1.0), network)
    goal = limit(learning, network, x, y)
    found = [distance(member(energy, coupled(name, s), network).estimate(network, x, y).gradients, goal)
             for s in strengths]
    assert slope(found, strengths) == pytest.approx(order, abs=0.1)
    assert distance(goal, Implicit(learning).estimate(network, x, y).gradients) > 0.05  # which is not that of the cost


@pytest.mark.parametrize("name", STENCILS)
@pytest.mark.parametrize("energy", [Hopfield, Lifted, Predictive])
def test_coupled_learning_tends_to_backprop_with_the_feedback_gain(energy, name):
    network, gains = random_mlp(), (1e-2, 1e-3)
    x, y = batch(network)
    goal = backprop(network, SquaredError(network.output), x, y)
    found = [distance(member(energy(gain), coupled(name, 0.5), network).estimate(network, x, y).gradients, goal)
             for gain in gains]
    assert slope(found, gains) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", STENCILS)
@pytest.mark.parametrize("strength", [0.01, 1.0, 3.0])
def test_one_layer_has_the_gradient_of_the_squared_error_at_any_strength(name, strength):
    """V(c) = ||c - a||^2 / 2 + const: (a - y) x^T / n, and its sum for the bias."""
    network = initialise(Network([Layer([(0, Linear((4,), 3))], activation("identity"))]).double(), 0)
    x, y = batch(network)
    with torch.no_grad():
        off = (network(x) - y) / len(x)
    for energy in (Hopfield(), Lifted(), Predictive()):
        found = member(energy, coupled(name, strength), network).estimate(network, x, y).gradients
        assert distance(found, [off.T @ x, off.sum(0)]) < 1e-12


@pytest.mark.parametrize("energy", ENERGIES)
def test_the_whole_way_to_the_target_is_clamping(energy):
    network = random_mlp(activation="sigmoid")
    x, y = batch(network)
    ours, clamped = (member(energy, nudge, network).estimate(network, x, y).gradients
                     for nudge in (coupled("coupled", 1.0), stencil("clamped")))
    assert distance(ours, clamped) < 1e-10


# ---- a sign for each example

def one_sided(holds: bool, **changes: bool) -> Nudge:
    return Nudge([1.0, 0.0], [1.0, -1.0], 0.2, holds, **changes)


@pytest.mark.parametrize("coordinates", ["state", "error"])
@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("net, energy", [
    (random_mlp, Hopfield(0.8)), (random_mlp, Predictive()), (random_cnn, Lifted()), (random_diamond, Hopfield(0.5)),
])
def test_each_example_is_nudged_by_its_own_sign(net, energy, holds, coordinates):
    """The mean over examples, each alone under the nudge of its sign."""
    network = net(activation="sigmoid")
    x, y = batch(network, 3)
    signs = torch.tensor([[1.0], [-1.0], [-1.0]], dtype=x.dtype)
    tight = {"coordinates": coordinates, "tol": 1e-11}
    sides = {1.0: one_sided(holds), -1.0: Nudge([-1.0, 0.0], [-1.0, 1.0], 0.2, holds)}
    alone = [member(energy, sides[float(sign)], network, **tight).estimate(network, x[[i]], y[[i]]).gradients
             for i, sign in enumerate(signs)]
    expected = [sum(parts) / len(x) for parts in zip(*alone)]
    found = member(energy, one_sided(holds, random_sign=True), network, **tight).estimate(network, x, y, signs)
    assert found.converged and distance(found.gradients, expected) < 1e-8


@pytest.mark.parametrize("holds", [False, True])
def test_the_mean_over_both_signs_is_the_centered_estimate(holds):
    network = random_mlp()
    x, y = batch(network)
    signs = (torch.arange(len(x), dtype=x.dtype)[:, None] % 2) * 2 - 1
    learning = member(Hopfield(), one_sided(holds, random_sign=True), network)
    a, b = (learning.estimate(network, x, y, each).gradients for each in (signs, -signs))
    centered = member(Hopfield(), Nudge([1.0, -1.0], [0.5, -0.5], 0.2, holds), network).estimate(network, x, y)
    assert distance([(p + q) / 2 for p, q in zip(a, b)], centered.gradients) < 1e-9


def test_no_sign_is_made_up():
    network = random_mlp()
    with pytest.raises(ConfigError, match="nudge.random_sign=True .* set nudge.random_sign=false"):
        member(Hopfield(), one_sided(False, random_sign=True), network).estimate(network, *batch(network))


# ---- the pull itself

def test_where_the_output_is_held():
    free, y = torch.tensor([[1.0, 3.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    pull = pull_of(coupled("coupled_centered", 0.25), SquaredError(activation("identity")), y, free)
    torch.testing.assert_close(pull.targets, torch.tensor([[0.75, 2.5], [0.25, 1.5], [1.25, 3.5], [-0.25, 2.5]]))
    assert pull.clamps
