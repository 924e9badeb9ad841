"""Nudges by complex strengths: orders, a closed form in plain complex numbers, transposes, and what is refused."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace

import pytest
import torch
from networks import batch, distance, member, pair, random_cnn, random_mlp, random_skip, slope, stencil
from program import composed

from ebmrun.errors import ConfigError, Diverged
from ebmrun.experiment import build
from ebmrun.theory.activations import activation
from ebmrun.theory.affine import Conv2d, Linear
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.holomorphic import ComplexActivation, ComplexMap, HolomorphicLearning, is_holomorphic
from ebmrun.theory.references import Implicit
from ebmrun.theory.stencil import Nudge


def holomorphic(energy, points: int, strength: float, network, **how) -> HolomorphicLearning:
    plain = member(energy, stencil("centered"), network, **how)
    nudge = Nudge([1.0], [1.0], strength, points=points)
    return HolomorphicLearning(energy, nudge, plain.relaxation, plain.cost)


STRENGTHS = {2: (0.1, 0.05, 0.025), 4: (0.3, 0.2, 0.14), 6: (0.3, 0.24, 0.19), 8: (0.35, 0.3, 0.25)}


@pytest.mark.parametrize("points", STRENGTHS)
@pytest.mark.parametrize("net, energy", [
    (random_mlp, Predictive()), (random_mlp, Lifted()), (random_mlp, Hopfield(0.8)), (random_skip, Hopfield(0.8)),
    (random_cnn, Lifted()),
])
def test_the_order_of_the_error_is_the_number_of_points(net, energy, points):
    network, strengths = net(activation="sigmoid"), STRENGTHS[points]
    x, y = batch(network)
    reference = Implicit(member(energy, stencil("centered"), network)).estimate(network, x, y).gradients
    found = [holomorphic(energy, points, s, network).estimate(network, x, y) for s in strengths]
    assert all(each.converged for each in found)
    errors = [distance(each.gradients, reference) for each in found]
    assert slope(errors, strengths) == pytest.approx(points, abs=0.3)
    assert holomorphic(energy, points, 1.0, network).nudge.order == points


@pytest.mark.parametrize("coordinates", ["state", "error"])
@pytest.mark.parametrize("energy", [Predictive(), Lifted(), Hopfield(0.8)])
def test_two_points_are_the_centered_nudge(energy, coordinates):
    network = random_mlp()
    x, y = batch(network)
    ours = holomorphic(energy, 2, 0.1, network, coordinates=coordinates, tol=1e-10).estimate(network, x, y)
    centered = member(energy, stencil("centered", 0.1), network, coordinates=coordinates, tol=1e-10)
    assert distance(ours.gradients, centered.estimate(network, x, y).gradients) < 1e-8


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_divergence_names_the_layer_and_the_step_size(precision):
    """x_L <- f(a) - 1000 i (x_L - y) grows a thousandfold a step."""
    double, dtype = random_mlp(), getattr(torch, precision)
    x, y = (each.to(dtype) for each in batch(double))
    network = double.to(dtype)
    with pytest.raises(Diverged, match=r"layer 4 .*of size 1: .*nudge.*relax\.step_size=0\.5"):
        holomorphic(Predictive(), 4, 1e3, network, order="synchronous").estimate(network, x, y)


@pytest.mark.parametrize("points", [2, 3, 4, 5])
@pytest.mark.parametrize("coordinates", ["state", "error"])
def test_two_units_in_plain_complex_numbers(points, coordinates):
    """At input 0, x_1 = tanh(w x_2) and x_2 = w x_1 - z (x_2 - 1) at each z = lambda r of all N roots r; the biases'
    gradients are minus the means of conj(r) x / lambda."""
    network, w, strength, how = pair(0.6), 0.6, 0.3, {"coordinates": coordinates, "tol": 1e-11}
    sums = [0j, 0j]
    for k in range(points):
        r = cmath.exp(2j * math.pi * k / points)
        x1 = x2 = 0j
        for _ in range(300):
            x1, x2 = cmath.tanh(w * x2), (w * x1 + strength * r) / (1 + strength * r)
        sums = [total - r.conjugate() * x / (points * strength) for total, x in zip(sums, (x1, x2))]
    assert max(abs(each.imag) for each in sums) < 1e-12
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    found = holomorphic(Hopfield(), points, strength, network, **how).estimate(network, x, y)
    assert [float(found.gradients[1]), float(found.gradients[3])] == pytest.approx([s.real for s in sums], rel=1e-8)


@pytest.mark.parametrize("energy", [Predictive(), Lifted(), Hopfield(0.8)])
def test_in_float32_the_least_error_of_states_is_a_tenth_of_that_of_centered(energy):
    """States lose the digits of a weak nudge, and a strong one has no bias here."""
    double, single = random_mlp(activation="sigmoid"), random_mlp(activation="sigmoid").float()
    x, y = batch(double)
    goal = Implicit(member(energy, stencil("centered"), double)).estimate(double, x, y).gradients
    how = {"coordinates": "state", "tol": 0.0, "max_steps": 40, "free_steps": 200}
    least = {}
    for points in (2, 8):
        found = [holomorphic(energy, points, s, single, **how).estimate(single, x.float(), y.float()).gradients
                 for s in (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3)]
        least[points] = min(distance(each, goal) for each in found)
    assert least[8] < least[2] / 10


# ---- parts

@pytest.mark.parametrize("name", ["identity", "tanh", "sigmoid", "softplus"])
def test_activations_at_complex_drives(name):
    """f as for real drives, holomorphic; f' by central differences; increments by subtraction."""
    f = activation(name)
    unit = ComplexActivation(f)
    draw = torch.Generator().manual_seed(0)
    a, b, c, d = torch.randn(4, 6, 3, generator=draw, dtype=torch.float64)
    torch.testing.assert_close(unit(torch.complex(a, 0 * a)).real, f(a))
    z, h = torch.complex(a, b / 4), torch.complex(c, d) / 8
    assert is_holomorphic(unit, a)
    slope = (unit(z + 1e-5) - unit(z - 1e-5)) / 2e-5
    torch.testing.assert_close(unit.pullback(unit(z), h), slope * h, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(unit.increment(z, h), unit(z + h) - unit(z))


@pytest.mark.parametrize("real", [Linear((4,), 3), Conv2d((2, 5, 5), 3, 3, padding=1)])
def test_messages_and_gradients_are_transposes(real):
    """sum m (J x) = sum x (J^T m) without a conjugate; gradients are the real part of d(sum m (J x + b))/dtheta."""
    torch.manual_seed(0)
    for parameter in real.double().parameters():
        torch.nn.init.normal_(parameter)
    complexes = {"dtype": torch.complex128}
    x, m = torch.randn(2, *real.shape, **complexes), torch.randn(2, *real.output_shape, **complexes)
    both = ComplexMap(real)
    with torch.no_grad():
        torch.testing.assert_close((m * both.linear(x)).sum(), (both.adjoint(m) * x).sum())
        torch.testing.assert_close(both(x), real(x.real) + 1j * real.linear(x.imag))
        found = both.gradient(m, x)
    product = (m.real * real(x.real) - m.imag * real.linear(x.imag)).sum()
    expected = torch.autograd.grad(product, list(real.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


# ---- as a configuration

SMOOTH = ["algo=ep", "nudge=holomorphic", "arch.activation=tanh", "arch.hidden=[6]"]


def test_it_trains(command):
    assert command(*SMOOTH, "trainer.max_steps=3", "alignment.every=1", "alignment.reference=both").status == 0


def test_a_held_output_may_turn_as_well():
    """Its error against a turn by many points falls with the order of its points."""
    network = random_mlp(activation="sigmoid")
    x, y = batch(network)

    def gradients(points: int, strength: float):
        learning = holomorphic(Hopfield(0.8), points, strength, network)
        return replace(learning, nudge=replace(learning.nudge, holds=True)).estimate(network, x, y).gradients

    goal, strengths = gradients(12, 0.2), (0.6, 0.45, 0.3)
    assert slope([distance(gradients(4, s), goal) for s in strengths], strengths) == pytest.approx(4, abs=0.3)


@pytest.mark.parametrize("overrides, said", [
    (["arch.activation=relu"], ["relu", "tanh, sigmoid", "nudge.points=1"]),
    (["cost=cross_entropy"], ["CrossEntropy.gradient", "squared_error"]),
    (["energy._target_=networks.Coshine"], ["Coshine"]),
    (["arch=cnn", "arch.pooling=max", "arch.channels=[2]", "arch.kernel=3"], ["MaxPool2d", "arch.pooling=avg"]),
    (["nudge.points=0"], ["nudge.points=0", "1..24"]),
    (["nudge.random_sign=true"], ["nudge.points=4", "nudge.random_sign=True"]),
    (["nudge=clamped", "nudge.points=4"], ["nudge.points=4", "inf"]),
    (["relax=conjugate"], ["relax.acceleration=conjugate", "relax.acceleration=auto"]),
    (["energy=predictive", "relax=frozen"], ["relax.frozen=True", "relax.frozen=False"]),
    (["nudge.strength=1.0"], ["nudges by -1", "below 1"]),
])
def test_what_is_not_holomorphic_is_refused_in_one_line(overrides, said):
    with pytest.raises(Exception) as caught:
        build(composed("dataset=digits", *SMOOTH, *overrides))
    error = caught.value if isinstance(caught.value, ConfigError) else caught.value.__cause__
    assert isinstance(error, ConfigError), caught.value
    assert all(word in str(error) for word in said) and "\n" not in str(error), error
