"""Noise in an estimate is the noise that theory adds to it, and none where there is none."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from networks import GRAPHS, batch, distance, member, nudged, random_mlp, stencil
from program import composed
from torch import Tensor

from ebmrun.experiment import build
from ebmrun.theory.activations import activation
from ebmrun.theory.affine import Linear
from ebmrun.theory.analog import AnalogHolomorphicLearning, AnalogLearning
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.energies import Energy, Hopfield, Lifted, Predictive
from ebmrun.theory.holomorphic import HolomorphicLearning
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Layer, Network
from ebmrun.theory.noise import Noise
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.stencil import Nudge

MEMBERS = [(Predictive(), "single"), (Predictive(), "one_sided"), (Lifted(0.5), "centered"), (Hopfield(), "one_sided"),
           (Hopfield(0.5), "centered"), (Hopfield(), "fourth_order"), (Hopfield(0.5), "clamped")]
IDS = [f"{type(energy).__name__}-{nudge}" for energy, nudge in MEMBERS]


def analog(learning: EnergyLearning, seed: int = 0, **noise: float | None) -> AnalogLearning:
    return AnalogLearning(learning.energy, learning.nudge, learning.relaxation, learning.cost, Noise(**noise), seed)


def nodes(learning: EnergyLearning, network: Network, x: Tensor, y: Tensor) -> list[tuple[float, list[Tensor]]]:
    """The weight w_k of each node of the nudge, 0 included, and the states there."""
    weights, free = learning.nudge.coefficients
    found = list(zip(weights, nudged(learning, network, x, y)[1]))
    return [*found, (free, learning.free_equilibrium(network, x)[0].states)] if free else found


def products(learning: EnergyLearning, network: Network, x: Tensor, y: Tensor, read, multiply) -> list[Tensor]:
    """sum_k w_k multiply(read(m_k), read(x_k)) for each weight and bias of a network of full matrices, in plain loops,
    with m = -dE/da by autograd. A message reaches a bias as it is; the input is not read."""
    gains, found = learning.energy.layer_gains(network.heights), []
    at = [(w, [x, *states]) for w, states in nodes(learning, network, x, y)]
    for l, (edges, f) in enumerate(zip(network.edges, network.activations)):
        for source, affine in edges:
            if not isinstance(affine, Linear):
                continue
            weight, bias = torch.zeros_like(affine.weight), torch.zeros_like(affine.bias)
            for w, signals in at:
                a = sum(each(signals[below]) for below, each in edges).detach().requires_grad_()
                message = -torch.autograd.grad(learning.energy.value(signals[l + 1], a, f).sum(), a)[0]
                below = read(signals[source]) if source else signals[source]
                shares = multiply(w * gains[l] / len(x), read(message), below, source > 0)
                weight, bias = weight + shares[0], bias + shares[1]
            found += [weight, bias]
    return found


@pytest.mark.parametrize("network", [random_mlp, GRAPHS["fan_in"]])
@pytest.mark.parametrize("energy, nudge", MEMBERS, ids=IDS)
def test_readings_of_few_bits_are_what_the_learning_rule_multiplies(energy: Energy, nudge: str, network) -> None:
    net = network(activation="sigmoid")
    x, y = batch(net)
    learning = member(energy, stencil(nudge, 0.2), net)
    step = 0.7 / 15
    expected = products(learning, net, x, y, lambda v: (v / step).round().clamp(-15, 15) * step,
                        lambda w, m, below, _: (-w * m.T @ below, -w * m.sum(0)))
    found = analog(learning, reading_bits=5, reading_range=0.7).estimate(net, x, y).gradients
    assert distance(found, expected) < 1e-9
    assert distance(found, learning.estimate(net, x, y).gradients) > 1e-3


@pytest.mark.parametrize("energy, nudge", MEMBERS[:4], ids=IDS[:4])
def test_the_variance_of_an_estimate_is_that_of_its_readings(energy: Energy, nudge: str) -> None:
    """Of independent errors of deviation s in m and x: w^2 s^2 (x^2 + m^2 + s^2) for each node and example; where the
    message meets what is not read, w^2 s^2 x^2. The sum over the nodes is s^2 sum_k w_k^2 times that of one."""
    net, s, draws = random_mlp(activation="sigmoid"), 0.05, 60
    x, y = batch(net, examples=4)
    learning = member(energy, stencil(nudge, 0.2), net, tol=1e-6)

    def variances(w, m, below, is_read):
        m2, x2 = m.square() + s**2 * is_read, below.square()
        return w**2 * (s**2 * torch.ones_like(m).T @ x2 + is_read * s**2 * m2.T @ torch.ones_like(below)), (
            w**2 * s**2 * len(m) * torch.ones_like(m[0]))

    expected = products(learning, net, x, y, lambda v: v, variances)
    clean, noisy = learning.estimate(net, x, y).gradients, analog(learning, readings=s)
    keys = torch.arange(draws * 4).view(draws, 4, 1)
    off = [[g - c for g, c in zip(noisy.estimate(net, x, y, keys=each).gradients, clean)] for each in keys]
    for each, variance in zip(zip(*off), expected, strict=True):
        errors = torch.stack(each)
        # A mean of `draws` squares is off by sqrt(2 / draws), and one over the five or more rows by 8 %.
        assert float(errors.square().mean(0).sum() / variance.sum()) == pytest.approx(1, abs=0.3)
        means = errors.mean(0).square() * draws / variance  # each of mean 1, and alike along a row
        assert float(means.mean()) < 1 + 4.5 * math.sqrt(2 / len(means))


def test_two_points_of_a_complex_nudge_are_read_as_a_centered_one() -> None:
    net = random_mlp()
    x, y = batch(net)
    real, how = member(Hopfield(0.5), stencil("centered", 0.2), net), {"reading_bits": 4}
    turned = Nudge([1.0], [1.0], 0.2, points=2)
    parts = vars(HolomorphicLearning(real.energy, turned, real.relaxation, real.cost))
    found = AnalogHolomorphicLearning(**parts, noise=Noise(**how)).estimate(net, x, y)
    assert distance(found.gradients, analog(real, **how).estimate(net, x, y).gradients) < 1e-9


@pytest.mark.parametrize("energy, nudge", MEMBERS, ids=IDS)
def test_without_noise_an_estimate_is_the_same_bit_for_bit(energy: Energy, nudge: str) -> None:
    net = random_mlp(activation="sigmoid")
    x, y = batch(net)
    learning = member(energy, stencil(nudge, 0.2), net)
    found, expected = analog(learning).estimate(net, x, y), learning.estimate(net, x, y)
    assert all(torch.equal(*pair) for pair in zip(found.gradients, expected.gradients, strict=True))
    assert (found.steps, found.residual, found.converged) == (expected.steps, expected.residual, expected.converged)
    assert torch.equal(analog(learning).predict(net, x).output, learning.predict(net, x).output)


def test_a_configuration_without_noise_builds_the_plain_member() -> None:
    for words in ((), ("nudge=holomorphic", "arch.activation=tanh")):
        cfg = composed("algo=ep", "arch.hidden=[4]", *words)
        kind = HolomorphicLearning if words else EnergyLearning
        assert type(build(cfg).algorithm) is kind
        assert isinstance(build(composed("algo=ep", "arch.hidden=[4]", "noise=analog", *words)).algorithm, (
            kind, AnalogLearning))


def two_layers(weight: float = 0.0) -> Network:
    """3-4-2 units of identity, the upper matrix full of one number; no biases."""
    f = activation("identity")
    net = Network([Layer([(0, Linear((3,), 4))], f), Layer([(1, Linear((4,), 2))], f)]).double()
    with torch.no_grad():
        for _, affine in (edge for edges in net.edges for edge in edges):
            affine.bias.zero_()
        net.edges[0][0][1].weight.copy_(torch.arange(12).view(4, 3) / 10)
        net.edges[1][0][1].weight.fill_(weight)
    return net


def plain(energy: Energy, strength: float = 0.1, steps: int = 1) -> EnergyLearning:
    how = Relaxation(coordinates="state", tol=0.0, max_steps=steps)
    return EnergyLearning(energy, stencil("single", strength), how, SquaredError(two_layers().output))


@pytest.mark.parametrize("key", ["states", "messages"])
def test_noise_of_a_step_is_all_that_a_layer_below_no_weights_learns(key: str) -> None:
    """Where the upper weights are 0, x_1 = a_1 + s xi, whichever way the noise has come, and dE/da_1 = -s xi: the
    gradient by W_1 has the variance (s / (lambda n))^2 sum x_0^2."""
    net, s, strength, draws = two_layers(), 0.01, 0.1, 200
    x, y = batch(net, examples=3)
    noisy = analog(plain(Predictive(), strength), **{key: s})
    keys = torch.arange(draws * 3).view(draws, 3, 1)
    found = torch.stack([noisy.estimate(net, x, y, keys=each).gradients[0] for each in keys])
    variance = (s / strength / len(x)) ** 2 * x.square().sum(0)
    assert found.mean(0).abs().max() < 4.5 * variance.max().sqrt() / math.sqrt(draws)
    # Four units of the layer have the same variance: `4 draws` squares, of which a mean is off by sqrt(2 / (4 draws)).
    torch.testing.assert_close(found.square().mean((0, 1)), variance, rtol=4.5 * math.sqrt(2 / (4 * draws)), atol=0.0)


def test_a_relaxation_that_noise_enters_says_that_it_did_not_settle() -> None:
    """Where nothing but noise moves a layer, ||answer - u|| = s ||xi' - xi|| and ||moved - start|| = s ||xi'||: a
    residual of sqrt(2), however small s is and however many steps there are."""
    net = two_layers()
    x, y = batch(net, examples=100)
    for s in (1e-2, 1e-4):
        learning = plain(Predictive(), 1.0, steps=9)
        noisy = analog(replace(learning, relaxation=replace(learning.relaxation, tol=0.1)), states=s)
        found = noisy.estimate(net, x, y)
        assert found.converged is False and found.steps == 9
        assert found.residual == pytest.approx(math.sqrt(2), rel=0.1)


@pytest.mark.parametrize("energy", [Predictive(), Hopfield(1e-6)], ids=["forward pass", "settled"])
def test_a_prediction_carries_the_noise_of_every_state_below(energy: Energy) -> None:
    """The output is s (xi_2 + W_2 xi_1) off: a variance of s^2 (1 + ||w||^2)."""
    net, s = two_layers(0.5), 0.01
    x = batch(net, examples=1)[0].repeat(4000, 1)
    learning = plain(energy, steps=3)
    off = analog(learning, states=s).predict(net, x).output - learning.predict(net, x).output
    assert float(off.square().mean()) == pytest.approx(s**2 * 2, rel=4.5 * math.sqrt(2 / 4000))


def test_noise_belongs_to_examples_and_their_keys() -> None:
    net = random_mlp(activation="sigmoid")
    x, y = batch(net)
    noisy = analog(plain(Hopfield(), steps=3), states=1e-2, messages=1e-2, readings=1e-2)
    noisy = replace(noisy, nudge=stencil("centered", 0.1))
    keys = torch.tensor([[5], [9], [2], [77], [4], [1]])
    whole = noisy.estimate(net, x, y, keys=keys).gradients
    halves = [noisy.estimate(net, x[part], y[part], keys=keys[part]).gradients for part in (slice(2), slice(2, 6))]
    assert distance([a / 3 + 2 * b / 3 for a, b in zip(*halves)], whole) < 1e-12
    assert distance(noisy.estimate(net, x, y, keys=keys + 1).gradients, whole) > 0.01
    assert distance(replace(noisy, seed=1).estimate(net, x, y, keys=keys).gradients, whole) > 0.01
    assert torch.equal(noisy.predict(net, x, keys).output[2:], noisy.predict(net, x[2:], keys[2:]).output)
