"""Nodes that relax together: the published loop of dual propagation, the stationary point by autograd, orders against
backprop, closed forms, and why one nudge by itself cannot do as well."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from networks import (
    NETWORKS,
    backprop,
    batch,
    distance,
    drive,
    member,
    random_cnn,
    random_mlp,
    random_skip,
    settle,
    slope,
)
from program import composed

from ebmrun.errors import ConfigError
from ebmrun.experiment import build
from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.energies import Lifted, Predictive
from ebmrun.theory.joint import JointLearning
from ebmrun.theory.network import Network
from ebmrun.theory.stencil import Nudge

NODES = {  # nodes and weights, their order, and the strengths at which it shows
    "centered": ([1.0, -1.0], [0.5, -0.5], 2),
    "richardson": ([1.0, 2.0, 0.0], [2.0, -0.5, -1.5], 2),
    "lopsided": ([1.0, -0.5], [2 / 3, -2 / 3], 1),
    "fourth_order": ([2.0, 1.0, -1.0, -2.0], [-1 / 12, 2 / 3, -2 / 3, 1 / 12], 4),
}


def joint(energy, name: str, strength: float, network: Network, cost=SquaredError, **how) -> JointLearning:
    nodes, weights, _ = NODES[name]
    plain = member(energy, Nudge(nodes, weights, strength, joint=True), network, cost, **how)
    return JointLearning(energy, plain.nudge, plain.relaxation, plain.cost)


# ---- what it is

@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("strength", [0.02, 0.5])
def test_the_published_loop_of_dual_propagation(activation, strength):
    """s+- = f(W mean + b +- W' (s+ - s-) / 2), the output at the minimum of |s - a|^2 +- lambda |s - y|^2, and
    dW = -(s+ - s-) mean^T / (2 lambda), layer by layer with products of plain matrices."""
    network = random_mlp(activation=activation)
    x, y = batch(network)
    maps = [edges[0][1] for edges in network.edges]
    f = [network.activations[0]] * 3
    with torch.no_grad():
        above = below = [torch.zeros(len(x), m.weight.shape[0], dtype=x.dtype) for m in maps]
        for _ in range(200):
            above, below = list(above), list(below)
            for l in range(4):
                mean = x if l == 0 else (above[l - 1] + below[l - 1]) / 2
                a = mean @ maps[l].weight.t() + maps[l].bias
                if l == 3:
                    above[l], below[l] = ((a + s * y) / (1 + s) for s in (strength, -strength))
                else:
                    half = (above[l + 1] - below[l + 1]) @ maps[l + 1].weight / 2
                    above[l], below[l] = f[l](a + half), f[l](a - half)
        expected = []
        for l in range(4):
            mean = x if l == 0 else (above[l - 1] + below[l - 1]) / 2
            difference = (above[l] - below[l]) / (2 * strength)
            expected += [-difference.t() @ mean / len(x), -difference.mean(0)]
    found = joint(Lifted(), "centered", strength, network).estimate(network, x, y)
    assert found.converged and distance(found.gradients, expected) < 1e-11


# A mean that moves by O(lambda) may turn winners of a maximum back and forth, which joint nodes do not share out.
@pytest.mark.parametrize("net, name", [(net, name) for net in NETWORKS for name in NODES
                                       if (net, name) != ("diamond", "lopsided")])
@pytest.mark.parametrize("energy", [Predictive(), Lifted(), Predictive(0.5)])
def test_the_estimate_itself_is_stationary_and_the_rule_its_gradient(net, energy, name):
    """S = sum_k w_k (I at x_k, with every drive at the mean sum_k w_k lambda_k x_k, + lambda_k cost), by autograd."""
    network = NETWORKS[net]()
    x, y = batch(network)
    learning = joint(energy, name, 0.1, network)
    found, states = learning.estimate(network, x, y), settle(learning, network, x, y)
    assert found.converged
    strengths, (weights, _) = learning.nudge.strengths, learning.nudge.coefficients
    states = [[x.detach().requires_grad_() for x in node] for node in states]
    mean = [sum(w * s * x for w, s, x in zip(weights, strengths, layer)) for layer in zip(*states)]
    total = torch.zeros((), dtype=x.dtype)
    gains = energy.layer_gains(network.heights)
    for w, strength, node in zip(weights, strengths, states):
        for edges, f, state, gain in zip(network.edges, network.activations, node, gains):
            total = total + w * gain * energy.value(state, drive(edges, x, mean), f).sum()
        total = total + w * strength * learning.cost.value(node[-1], y).sum()
    flat, parameters = [x for node in states for x in node], list(network.parameters())
    slopes = torch.autograd.grad(total, [*flat, *parameters])
    scale = max(float(each.abs().max()) for each in slopes[len(flat):])
    assert max(float(each.abs().max()) for each in slopes[: len(flat)]) < 1e-7 * scale
    assert distance(found.gradients, [each / len(x) for each in slopes[len(flat):]]) < 1e-9


@pytest.mark.parametrize("energy", [Predictive(), Lifted()])
def test_one_node_is_on_its_own(energy):
    network = random_mlp()
    x, y = batch(network)
    plain = member(energy, Nudge(strength=0.05), network)
    alone = JointLearning(energy, Nudge(strength=0.05, joint=True), plain.relaxation, plain.cost)
    assert distance(alone.estimate(network, x, y).gradients, plain.estimate(network, x, y).gradients) < 1e-9


# ---- how far from backprop

@pytest.mark.parametrize("cost, output", [(SquaredError, "identity"), (CrossEntropy, "softmax")])
@pytest.mark.parametrize("net", [random_mlp, random_cnn, random_skip])
@pytest.mark.parametrize("energy", [Predictive(), Lifted()])
@pytest.mark.parametrize("name", NODES)
def test_the_error_against_backprop_has_the_order_of_the_stencil(net, energy, name, cost, output):
    network, (*_, order) = net(output=output), NODES[name]
    x, y = batch(network)
    strengths = (0.02, 0.01, 0.005) if order < 4 else (0.04, 0.03, 0.02)
    if cost is CrossEntropy:  # pulls by y / x: the error of a predictive output is one of lambda / x^2
        strengths = [s / (100 if isinstance(energy, Predictive) else 4) for s in strengths]
    members = [joint(energy, name, s, network, cost) for s in strengths]
    truth = backprop(network, members[0].cost, x, y)
    errors = [distance(each.estimate(network, x, y).gradients, truth) for each in members]
    assert members[0].nudge.order == order
    assert slope(errors, strengths) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("name", ["centered", "richardson", "fourth_order"])
@pytest.mark.parametrize("net", [random_mlp, random_skip])
def test_joint_predictive_coding_is_backprop_but_for_one_number(name, net, activation):
    """Where sum_k w_k lambda_k^2 = 0, the mean of f(a) + lambda_k t is f(a) itself, at any strength, and the sum of the
    messages is backprop's; an output of identity units solves x - a = -lambda_k (x - y), and so sends

        sum_k w_k (x_k - a) = -(sum_k w_k lambda_k / (1 + lambda_k)) (a - y).
    """
    network = net(activation=activation)
    x, y = batch(network)
    for strength in (0.4, 0.1):
        learning = joint(Predictive(), name, strength, network)
        found = learning.estimate(network, x, y)
        weights, strengths = learning.nudge.coefficients[0], learning.nudge.strengths
        share = sum(w * s / (1 + s) for w, s in zip(weights, strengths))
        truth = backprop(network, learning.cost, x, y)
        assert distance(found.gradients, [share * g for g in truth]) < 1e-12
        assert found.converged and found.steps == 2  # one that goes all the way, and one that sees it


@pytest.mark.parametrize("energy", [Predictive(), Lifted()])
def test_a_weak_nudge_keeps_its_digits_in_float32(energy):
    network = random_mlp().float()
    x, y = (each.float() for each in batch(network.double()))
    network = network.float()
    for strength in (1e-3, 1e-6):
        learning = joint(energy, "centered", strength, network, tol=1e-5)
        truth = backprop(network, learning.cost, x, y)
        assert distance(learning.estimate(network, x, y).gradients, truth) < 2e-6


@pytest.mark.parametrize("energy, bends", [(Predictive(), False), (Lifted(), True)])
def test_the_leading_bias_of_one_nudge_is_the_gradient_of_squared_messages(energy, bends):
    """What no energy that rests at the forward pass escapes: the least of F is lambda C - lambda^2/2 sum_l <d_l, M_l^-1
    d_l> + O(lambda^3), with C the cost, d_l = dC/dx_l of the forward pass and M_l = E_xx > 0, and an estimate is its
    gradient by weights over lambda."""
    network, strength = random_mlp(), 1e-4
    x, y = batch(network)
    learning = member(energy, Nudge(strength=strength), network)
    truth = backprop(network, learning.cost, x, y)
    found = learning.estimate(network, x, y).gradients
    states, slopes = [], []
    for edges, f in zip(network.edges, network.activations):
        a = drive(edges, x, states)
        states.append(f(a))
        slopes.append(f.pullback(f(a), torch.ones_like(a)) if bends else torch.ones_like(a))
    cost = learning.cost.value(states[-1], y)
    messages = torch.autograd.grad(cost.sum(), states, create_graph=True)
    squares = sum((d.square() * m).sum(1) for d, m in zip(messages, slopes)).mean()
    bias = torch.autograd.grad(squares, list(network.parameters()), allow_unused=True, materialize_grads=True)
    assert distance([(g - t) / strength for g, t in zip(found, truth)], [-b / 2 for b in bias]) < 1e-3


# ---- as a configuration

DUAL = ["algo=dual_propagation", "arch.hidden=[6]"]


@pytest.mark.parametrize("words", [[], ["energy=predictive", "nudge=fourth_order"], ["nudge=richardson"],
                                   ["arch=cnn", "arch.channels=[3]", "arch.kernel=3", "arch.pooling=max"]])
def test_it_trains(command, words):
    own = words if "arch=cnn" in words else [*DUAL[1:], *words]
    assert command(DUAL[0], *own, "trainer.max_steps=3", "alignment.every=1", "hydra.run.dir=run").status == 0
    with open("run/metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["alignment/cosine"]) > 0.9
    assert last["relax/converged"] == "1" or "arch.pooling=max" in words


def test_a_certificate_names_it_and_finds_its_order(command, capfd):
    ended = command(*DUAL, "arch.activation=tanh", "study=certify", "study.strengths.points=8", "hydra.run.dir=run")
    said = capfd.readouterr().out
    assert ended.status == 0
    assert "joint nodes [1.0, -1.0]" in said and "approximates backprop: yes, order 2" in said


@pytest.mark.parametrize("overrides, said", [
    (["energy=hopfield"], ["nudge.joint=True", "Hopfield", "energy=lifted"]),
    (["relax=conjugate"], ["relax.acceleration=conjugate", "relax.acceleration=auto or none"]),
    (["relax=frozen"], ["relax.frozen=True", "relax.frozen=False"]),
    (["relax.coordinates=state"], ["relax.coordinates=state", "relax.coordinates=error"]),
    (["nudge=clamped"], ["nudge.joint=True", "inf", "nudge=centered"]),
    (["nudge=coupled"], ["nudge.joint=True", "nudge.holds=True"]),
    (["nudge=holomorphic"], ["nudge.joint=True", "nudge.points=4"]),
    (["nudge=one_sided", "nudge.random_sign=true"], ["nudge.joint=True", "nudge.random_sign=True"]),
    (["nudge.strength=1.0"], ["nudges by -1", "below 1"]),
    (["trainer.update=each_step", "relax.coordinates=state"], ["trainer.update=each_step", "nudge.joint=True"]),
])
def test_what_cannot_be_joint_is_refused_in_one_line(overrides, said):
    with pytest.raises(Exception) as caught:
        build(composed("dataset=digits", *DUAL, *overrides))
    error = caught.value if isinstance(caught.value, ConfigError) else caught.value.__cause__
    assert isinstance(error, ConfigError), caught.value
    assert all(word in str(error) for word in said) and "\n" not in str(error), error


def test_the_shipped_one_is_the_published_one():
    nudge = build(composed("dataset=digits", *DUAL)).algorithm.nudge
    assert nudge.joint and nudge.nodes == [1.0, -1.0] and math.isclose(nudge.strength, 0.1)
