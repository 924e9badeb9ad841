"""Energies by their value alone against the same energies in closed form, small differences and float32 included."""

import math

import pytest
import torch
from networks import NETWORKS, Coshine, batch, distance, free_states, member, nudged, stencil
from torch.nn import functional as F

from ebmrun.theory.activations import ACTIVATIONS, activation
from ebmrun.theory.energies import ByValue, Energy, Hopfield, Lifted, Predictive

SIZES = (1.0, 1e-2, 1e-4, 1e-10)
SMOOTH = ("identity", "tanh", "sigmoid")
each_size = pytest.mark.parametrize("size", SIZES)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


class PredictiveByValue(ByValue):
    feedforward = True

    def value(self, x, a, f):
        return (x - f(a)) ** 2 / 2


class Quartic(ByValue):
    """E = e^2 / 2 + e^4 / 4 with e = x - f(a)."""

    feedforward = True

    def value(self, x, a, f):
        error = x - f(a)
        return error**2 / 2 + error**4 / 4


class Precise(ByValue):
    """E = (1 + a^2) (x - f(a))^2 / 2."""

    feedforward = True

    def value(self, x, a, f):
        return (1 + a**2) * (x - f(a)) ** 2 / 2


class LiftedByValue(ByValue):
    feedforward = True
    value = Lifted.value


class HopfieldByValue(ByValue):
    value = Hopfield.value


def sample(dtype: torch.dtype, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Drives, and messages of a size."""
    draw = torch.Generator().manual_seed(0)
    a, t = torch.randn(2, 40, 5, generator=draw, dtype=torch.float64).to(dtype)
    return a, size * t


def gap(found: torch.Tensor, exact: torch.Tensor, size: float) -> float:
    """The largest difference, in units of round-off of numbers of a size."""
    return float((found - exact).abs().max()) / (size * torch.finfo(found.dtype).eps)


@pytest.mark.parametrize("name", ACTIVATIONS)
@each_dtype
@each_size
def test_the_predictive_energy_written_both_ways(name, dtype, size):
    """To round-off of the message, not of the state, however small the message is."""
    f, (a, t), mine, closed = activation(name), sample(dtype, size), PredictiveByValue(), Predictive()
    rest = f(a)
    error = mine.error(a, rest, t, f)
    assert gap(error, closed.error(a, rest, t, f), size) < 20
    assert gap(mine.error_feedback(error, a, rest, f), closed.error_feedback(error, a, rest, f), size) < 20
    assert gap(mine.respond(a, t, f), closed.respond(a, t, f), 1) < 20
    assert gap(mine.feedback(rest + t, a, f), closed.feedback(rest + t, a, f), 1) < 20


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("nudge", ["single", "centered", "clamped"])
def test_the_predictive_energy_learns_the_same_both_ways(network, nudge):
    """States and gradients, in as many steps."""
    network = NETWORKS[network]()
    x, y = batch(network)
    mine, closed = (member(energy, stencil(nudge, 0.1), network, tol=1e-6, max_steps=8)
                    for energy in (PredictiveByValue(), Predictive()))
    for found, exact in zip(free_states(mine, network, x), free_states(closed, network, x), strict=True):
        torch.testing.assert_close(found, exact, rtol=0, atol=0)
    (ours, states), (theirs, others) = nudged(mine, network, x, y), nudged(closed, network, x, y)
    assert ours.steps == theirs.steps
    for found, exact in zip(states, others, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-12)
    ours, theirs = mine.estimate(network, x, y), closed.estimate(network, x, y)
    assert distance(ours.gradients, theirs.gradients) < 1e-10


@pytest.mark.parametrize("strength", [1e-2, 1e-4, 1e-8])
@pytest.mark.parametrize(("mine", "closed"), [(PredictiveByValue(), Predictive()), (LiftedByValue(), Lifted())])
def test_a_weak_nudge_keeps_its_digits_in_float32(mine, closed, strength):
    """The gradient in float32 is that of the closed form in float64 to within float32's digits, where states that hold
    the displacement would keep eps / strength of it."""
    network = NETWORKS["mlp"]()
    x, y = batch(network)
    nudge = stencil("single", strength)
    exact = member(closed, nudge, network).estimate(network, x, y).gradients
    estimate = member(mine, nudge, network.float(), tol=1e-3).estimate(network, x.float(), y.float())
    assert estimate.converged
    assert distance(estimate.gradients, exact) < 1e-5 + 1e-3 * strength  # the tolerance leaves 1e-3 of each second step


@each_dtype
@pytest.mark.parametrize("size", [*SIZES, 100.0, 1e4])
def test_the_quartic_energy_against_its_cubic_root(dtype, size):
    """e + e^3 = t, whose real root Cardano gives as a hyperbolic sine; the feedback there is t f'(a)."""
    f, (a, t), energy = activation("tanh"), sample(dtype, size), Quartic()
    rest, wide = f(a), t.double()
    root = 2 / math.sqrt(3) * torch.sinh(torch.asinh(3 * math.sqrt(3) / 2 * wide) / 3)
    error = energy.error(a, rest, t, f)
    assert gap(error, root, min(size, size ** (1 / 3))) < 40
    assert gap(energy.error_feedback(error, a, rest, f), f.pullback(f(a.double()), wide), size) < 200


@each_dtype
@each_size
def test_a_precision_that_the_drive_sets(dtype, size):
    """e = t / (1 + a^2), and -dE/da = (1 + a^2) e f'(a) - a e^2."""
    f, (a, t), energy = activation("sigmoid"), sample(dtype, size), Precise()
    error = energy.error(a, f(a), t, f)
    a, t = a.double(), t.double()
    exact = t / (1 + a**2)
    assert gap(error, exact, size) < 20
    sent = energy.error_feedback(error, a.to(dtype), f(a.to(dtype)), f)
    assert gap(sent, f.pullback(f(a), t) - a * exact**2, size) < 100


# Radau's rule leaves dx^3 E_xxxxx / 216 of the curvature and subtraction eps / dx, so that the better of them is worst
# where they are equal, and there eps^(3/4); the midpoint rule leaves dx^2, and so eps^(2/3).
def worst(dtype: torch.dtype, order: int) -> float:
    return 100 * torch.finfo(dtype).eps ** (order / (order + 1))


@each_dtype
@pytest.mark.parametrize("size", [*SIZES, 100.0, 1e6])
def test_a_steep_energy_against_its_inverse(dtype, size):
    """sinh(e) = t, whose slope at a guess of e = t would be no number."""
    f, (a, t), energy = activation("tanh"), sample(dtype, size), Coshine()
    error = energy.error(a, f(a), t, f)
    assert float((error - torch.asinh(t.double())).abs().max()) < min(size, 1) * worst(dtype, 3)


@pytest.mark.parametrize("name", SMOOTH)
@each_dtype
@each_size
def test_the_lifted_energy_written_both_ways(name, dtype, size):
    f, (a, t), mine, closed = activation(name), sample(dtype, size), LiftedByValue(), Lifted()
    a, t = a / 2, t / 2
    error = mine.error(a, f(a), t, f)
    wide = [v.double() for v in (a, f(a), t)]
    assert float((error - closed.error(*wide, f)).abs().max()) < size * worst(dtype, 3)
    sent = mine.error_feedback(error, a, f(a), f)
    assert float((sent - closed.error_feedback(error, *wide[:2], f)).abs().max()) < size * worst(dtype, 3)


@pytest.mark.parametrize("name", SMOOTH)
@each_dtype
@each_size
def test_hopfield_displacements_written_both_ways(name, dtype, size):
    f, (a, t), mine, closed = activation(name), sample(dtype, 1.0), HopfieldByValue(), Hopfield()
    a, t = a / 2, t / 2
    da, dt = size * t.flip(0), size * a.flip(0)
    x = f(a + t)
    moved = mine.displacement(x, a, t, da, dt, f)
    exact = closed.displacement(*(v.double() for v in (x, a, t, da, dt)), f)
    assert float((moved - exact).abs().max()) < size * worst(dtype, 2)
    torch.testing.assert_close(mine.displacement_feedback(x, a, moved, da, f), moved, rtol=1e-5, atol=0)


def test_displacements_of_an_energy_that_bends_with_its_drive():
    """(1 + a^2) (x - f(a))^2 / 2 from any fixed point: respond = f(a) + t / (1 + a^2), and the feedback as above."""
    f, energy = activation("tanh"), Precise()
    a, t = sample(torch.float64, 1.0)
    da, dt = 1e-3 * t.flip(0), 1e-3 * a.flip(0)

    def respond(a, t):
        return f(a) + t / (1 + a**2)

    def feedback(x, a):
        return f.pullback(f(a), (1 + a**2) * (x - f(a))) - a * (x - f(a)) ** 2

    x, moved = respond(a, t), respond(a + da, t + dt)
    torch.testing.assert_close(energy.displacement(x, a, t, da, dt, f), moved - x, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(energy.displacement_feedback(x, a, moved - x, da, f),
                               feedback(moved, a + da) - feedback(x, a), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("energy", [Quartic(), Coshine(), LiftedByValue()], ids=lambda energy: type(energy).__name__)
def test_quadrature_never_contradicts_subtraction(energy):
    """Where a message is strong, differences by quadrature would be wrong by more than round-off."""
    f, (a, t) = activation("sigmoid"), sample(torch.float64, 0.5)
    rest = f(a)
    error = energy.error(a, rest, t, f)
    x = (rest + error).requires_grad_()
    slope = torch.autograd.grad(energy.value(x, a, f).sum(), x)[0]
    torch.testing.assert_close(slope, t, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(energy.error_feedback(error, a, rest, f), energy.feedback(x.detach(), a, f),
                               rtol=1e-12, atol=1e-13)


def test_a_slope_is_evaluated_no_more_often_than_newton_needs(monkeypatch: pytest.MonkeyPatch):
    """Once where the curvature is 1, as the guess is right. Of the quartic energy the guess leaves t^3, and Newton's
    method 3 t^7: two evaluations where that is below round-off, the second of which says so."""
    asked = []
    for energy in (PredictiveByValue, Quartic):
        honest = energy.value
        monkeypatch.setattr(energy, "value", lambda *given, honest=honest: asked.append(1) or honest(*given))
    f = activation("tanh")
    for energy, size, most in ((PredictiveByValue(), 1.0, 1), (Quartic(), 1e-6, 1), (Quartic(), 1e-3, 2)):
        a, t = sample(torch.float64, size)
        for function, given in ((energy.error, (a, f(a), t)), (energy.error_feedback, (t, a, f(a)))):
            asked.clear()
            function(*given, f)
            assert len(asked) <= (most if function == energy.error else 1)


def test_the_first_layer_s_message_is_asked_for_by_the_learning_rule_alone(monkeypatch: pytest.MonkeyPatch):
    """Each sweep asks every layer for its answer and every layer above the first for its message, once each."""
    network, asked, honest = NETWORKS["mlp"](), [], PredictiveByValue.value
    monkeypatch.setattr(PredictiveByValue, "value", lambda *given: asked.append(1) or honest(*given))
    x, y = batch(network)
    estimate = member(PredictiveByValue(), stencil("single", 1e-4), network, tol=1e-2).estimate(network, x, y)
    assert estimate.converged
    assert len(asked) == estimate.steps * (2 * network.depth - 1) + 1


def test_a_message_of_zero_moves_nothing():
    f, (a, t) = activation("tanh"), sample(torch.float32, 0.0)
    for energy in (PredictiveByValue(), Quartic(), Precise()):
        assert torch.equal(energy.error(a, f(a), t, f), t.abs())
        assert energy.error_feedback(t, a, f(a), f).abs().max() == 0
        assert torch.equal(energy.respond(a, t, f), f(a))


def test_one_number_an_example_and_images():
    """Whatever follows the batch axis is summed; units may form an image."""
    class PerExample(ByValue):
        def value(self, x, a, f):
            return F.mse_loss(x, f(a), reduction="none").flatten(1).sum(1) / 2

    f = activation("relu")
    a, t = (v.view(20, 2, 5, 1) for v in sample(torch.float64, 1e-3))
    mine: Energy = PerExample()
    torch.testing.assert_close(mine.error(a, f(a), t, f), t, rtol=1e-14, atol=0)
    torch.testing.assert_close(mine.error_feedback(t, a, f(a), f), f.pullback(f(a), t), rtol=1e-14, atol=0)
