"""Energies: value, respond and feedback against each other by autograd, for every activation; and from value alone."""

import math

import pytest
import torch

from ebmrun.errors import ConfigError, RunError
from ebmrun.theory.activations import ACTIVATIONS, activation
from ebmrun.theory.energies import ByValue, Energy, ExactDisplacement, ExactError, Hopfield, Lifted, Predictive
from ebmrun.theory.energies.differences import Subtraction
from ebmrun.theory.energies.tangent import tangent

ENERGIES = [Predictive(), Hopfield(), Lifted()]
SMOOTH = ["identity", "tanh", "sigmoid"]
each_energy = pytest.mark.parametrize("energy", ENERGIES, ids=lambda energy: type(energy).__name__)
each_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def sample(name: str, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Drives, messages, and states in the range of the unit."""
    draw = torch.Generator().manual_seed(0)
    a, t, b = torch.randn(3, 40, 5, generator=draw, dtype=torch.float64).to(dtype)
    return 1.5 * a, t / 2, activation(name)(b)


class Quartic(ByValue):
    """E = e^2 / 2 + e^4 / 4 with e = x - f(a), by its value alone."""

    def value(self, x, a, f):
        error = x - f(a)
        return error.square() / 2 + error**4 / 4


class PerExample(ByValue):
    """The predictive energy as one number an example."""

    def value(self, x, a, f):
        return (x - f(a)).square().sum(1) / 2


class HopfieldByValue(ByValue):
    value = Hopfield.value


class LiftedByValue(ByValue):
    value = Lifted.value


@each_activation
def test_values_as_in_the_literature(name):
    f = activation(name)
    a, _, x = sample(name)
    torch.testing.assert_close(Predictive().value(x, a, f).sum(1), (x - f(a)).square().sum(1) / 2)
    gap = Lifted().value(x, a, f) - Hopfield().value(x, a, f)
    torch.testing.assert_close(gap.sum(1), f.dual(a).sum(1))  # they differ by G*(a) alone
    if name == "softmax":  # a Kullback-Leibler divergence
        expected = (x * (x / f(a)).log()).sum(1)
    elif name == "sigmoid":  # a binary one
        p = f(a)
        expected = (x * (x / p).log() + (1 - x) * ((1 - x) / (1 - p)).log()).sum(1)
    elif name == "identity":
        expected = (x - a).square().sum(1) / 2
    else:
        return
    torch.testing.assert_close(Lifted().value(x, a, f).sum(1), expected)


@each_energy
@each_activation
def test_feedback_is_minus_the_derivative_by_the_drive(energy, name):
    f = activation(name)
    a, _, x = sample(name)
    a.requires_grad_()
    expected = -torch.autograd.grad(energy.value(x, a, f).sum(), a)[0]
    torch.testing.assert_close(energy.feedback(x, a.detach(), f), expected, rtol=1e-11, atol=1e-12)


@each_energy
@pytest.mark.parametrize("name", SMOOTH)
def test_respond_is_stationary(energy, name):
    """dE/dx = t at the response, for units whose states fill an open set."""
    f = activation(name)
    a, t, _ = sample(name)
    x = energy.respond(a, t, f).requires_grad_()
    slope = torch.autograd.grad(energy.value(x, a, f).sum(), x)[0]
    torch.testing.assert_close(slope, t, rtol=1e-9, atol=1e-9)


@each_energy
@each_activation
def test_respond_is_the_minimum(energy, name):
    """E(x, a) - <x, t> at the response is below that at every other state in range, however near."""
    f = activation(name)
    a, t, other = sample(name)
    x = energy.respond(a, t, f)

    def total(state):
        return energy.value(state, a, f).sum(1) - (state * t).sum(1)

    for distance in (1.0, 1e-1, 1e-2, 1e-3):
        assert (total(x + distance * (other - x)) >= total(x) - 1e-13).all()
    assert (total(other) > total(x)).all()


@each_energy
@each_activation
def test_without_a_message_the_response_is_the_forward_pass(energy, name):
    f = activation(name)
    a, _, _ = sample(name)
    rest = energy.respond(a, torch.zeros_like(a), f)
    torch.testing.assert_close(rest, f(a), rtol=0, atol=0)
    if not isinstance(energy, Hopfield):
        assert energy.feedback(rest, a, f).abs().max() == 0


def test_which_energies_have_forms_of_their_own():
    """Those that rest at the forward pass move in errors, and the one that settles in displacements."""
    assert [isinstance(energy, ExactError) for energy in ENERGIES] == [True, False, True]
    assert [isinstance(energy, ExactDisplacement) for energy in ENERGIES] == [False, True, False]
    assert [energy.feedforward for energy in ENERGIES] == [True, False, True]


@pytest.mark.parametrize("energy, form", [
    (Predictive(), Predictive()), (Lifted(), Lifted()), *((energy, Subtraction(energy)) for energy in ENERGIES)],
                         ids=lambda part: type(part).__name__)
@each_activation
def test_errors_are_differences(energy, form, name):
    f = activation(name)
    a, t, _ = sample(name)
    rest, x = energy.respond(a, torch.zeros_like(a), f), energy.respond(a, t, f)
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(form.error(a, rest, t, f), x - rest, **close)
    torch.testing.assert_close(form.error_feedback(x - rest, a, rest, f), energy.feedback(x, a, f), **close)


@pytest.mark.parametrize("energy, form", [
    (Hopfield(), Hopfield()), *((energy, Subtraction(energy)) for energy in ENERGIES)],
                         ids=lambda part: type(part).__name__)
@each_activation
def test_displacements_are_differences(energy, form, name):
    f = activation(name)
    a, t, _ = sample(name)
    da, dt = t.flip(0), a.flip(0) / 3
    x, moved = energy.respond(a, t, f), energy.respond(a + da, t + dt, f)
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(form.displacement(x, a, t, da, dt, f), moved - x, **close)
    torch.testing.assert_close(form.displacement_feedback(x, a, moved - x, da, f),
                               energy.feedback(moved, a + da, f) - energy.feedback(x, a, f), **close)


@pytest.mark.parametrize("energy", [Predictive(), Lifted()], ids=["Predictive", "Lifted"])
@each_activation
@pytest.mark.parametrize("size", [1e-4, 1e-10])
def test_errors_keep_their_digits_in_float32(energy, name, size):
    """At a weak message, error and its feedback in float32 agree with float64 to float32's precision, where the
    plain difference of states would lose every digit."""
    f = activation(name)
    a, t, _ = sample(name, torch.float32)
    t = size * t
    rest, error = f(a), energy.error(a, f(a), t, f)
    exact = energy.error(a.double(), f(a.double()), t.double(), f)
    scale = size
    assert (error - exact).abs().max() < 1e-6 * scale
    sent = energy.error_feedback(error, a, rest, f)
    assert (sent - energy.error_feedback(exact, a.double(), f(a.double()), f)).abs().max() < 1e-6 * scale


@each_activation
def test_hopfield_displacements_keep_their_digits_in_float32(name):
    f, energy = activation(name), Hopfield()
    a, t, _ = sample(name, torch.float32)
    da, dt = 1e-10 * t.flip(0), 1e-10 * a.flip(0)
    found = energy.displacement(energy.respond(a, t, f), a, t, da, dt, f)
    wide = [v.double() for v in (a, t, da, dt)]
    exact = energy.displacement(energy.respond(*wide[:2], f), *wide, f)
    assert (found - exact).abs().max() < 1e-6 * 1e-10
    assert torch.equal(energy.displacement_feedback(a, a, found, da, f), found)


@pytest.mark.parametrize("energy", [*ENERGIES, Quartic(), HopfieldByValue(), LiftedByValue()],
                         ids=lambda energy: type(energy).__name__)
@pytest.mark.parametrize("name", SMOOTH)
def test_respond_and_feedback_carry_derivatives(energy, name):
    """Implicit differentiation asks for them, in every argument."""
    f = activation(name)
    a, t, x = (v[:2].clone().requires_grad_() for v in sample(name))
    assert torch.autograd.gradcheck(lambda a, t: energy.respond(a, t, f), (a, t), atol=1e-6)
    assert torch.autograd.gradcheck(lambda x, a: energy.feedback(x, a, f), (x, a), atol=1e-6)


@pytest.mark.parametrize("energy", [*ENERGIES, Quartic()], ids=lambda energy: type(energy).__name__)
def test_respond_and_feedback_carry_derivatives_of_one_argument_alone(energy):
    f = activation("tanh")
    a, t, x = (v[:2] for v in sample("tanh"))
    for function, fixed in ((energy.respond, (a, t)), (energy.feedback, (x, a))):
        for i in range(2):
            arguments = [v.clone().requires_grad_(i == j) for j, v in enumerate(fixed)]
            assert torch.autograd.gradcheck(lambda u, v, g=function: g(u, v, f), arguments, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_value_alone_against_the_closed_form(dtype, size):
    """The response of the quartic energy solves e + e^3 = t, whose real root Cardano gives as a hyperbolic sine; its
    feedback is (e + e^3) f'(a) = t f'(a) there."""
    f, energy = activation("tanh"), Quartic()
    a, t, _ = sample("tanh", dtype)
    t = size * t
    x = energy.respond(a, t, f)
    assert not x.requires_grad
    wide = t.double()
    root = 2 / math.sqrt(3) * torch.sinh(torch.asinh(3 * math.sqrt(3) / 2 * wide) / 3)
    eps = torch.finfo(dtype).eps
    assert ((x - torch.tanh(a.double()) - root).abs() <= 20 * eps * (1 + root.abs())).all()
    sent = energy.feedback(x, a, f)
    expected = wide * (1 - torch.tanh(a.double()) ** 2)
    assert ((sent - expected).abs() <= 100 * eps * (1 + wide.abs())).all()


@each_activation
def test_one_number_an_example_is_enough(name):
    f = activation(name)
    a, t, x = sample(name)
    torch.testing.assert_close(PerExample().respond(a, t, f), Predictive().respond(a, t, f))
    torch.testing.assert_close(PerExample().feedback(x, a, f), Predictive().feedback(x, a, f))


@pytest.mark.parametrize(("by_value", "closed"), [(HopfieldByValue(), Hopfield()), (LiftedByValue(), Lifted())])
@pytest.mark.parametrize("name", SMOOTH)
def test_newton_stays_inside_the_range_of_the_unit(by_value, closed, name):
    """A full Newton step from f(a) would leave (-1, 1) for a message this large."""
    f = activation(name)
    a, t, x = sample(name)
    torch.testing.assert_close(by_value.respond(a, 8 * t, f), closed.respond(a, 8 * t, f), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(by_value.feedback(x, a, f), closed.feedback(x, a, f))


def test_an_energy_without_a_minimum_says_so():
    """The first has no state of slope 9; G of a ReLU has its minimum at a kink, where no slope is 0."""
    class Bent(ByValue):
        def value(self, x, a, f):
            return torch.log1p(x.square()) + x * a

    a = torch.full((1, 1), 9.0, dtype=torch.float64)
    with pytest.raises(RunError, match="Bent.respond did not reach its minimum.*supply respond"):
        Bent().respond(a, torch.zeros_like(a), activation("identity"))
    with pytest.raises(RunError, match="HopfieldByValue.respond did not reach"):
        HopfieldByValue().respond(a, -2 * a, activation("relu"))


def test_value_alone_works_without_autograd_around_it():
    a, t, x = sample("tanh")
    with torch.no_grad():
        assert Quartic().respond(a, t, activation("tanh")).isfinite().all()
        assert Quartic().feedback(x, a, activation("tanh")).isfinite().all()


@pytest.mark.parametrize("gain", [0, 0.0, -0.5, 1.0001, 2, math.nan, math.inf, True, "1", None])
@pytest.mark.usefixtures("untyped")
def test_a_feedback_gain_outside_its_range_is_refused(gain):
    with pytest.raises(ConfigError, match=f"energy.feedback_gain={gain} must be a number in \\(0, 1\\]"):
        Predictive(feedback_gain=gain)


def test_layer_gains():
    """gamma^-h of heights h: in a chain of three layers 2, 1, 0; on a graph two layers may share one."""
    assert Hopfield(feedback_gain=0.5).layer_gains([2, 1, 0]) == [4.0, 2.0, 1.0]
    assert Hopfield(feedback_gain=0.5).layer_gains([2, 1, 1, 0]) == [4.0, 2.0, 2.0, 1.0]
    assert Hopfield(feedback_gain=1.0).layer_gains([1, 0]) == [1.0, 1.0]
    assert Hopfield(feedback_gain=1e-30).layer_gains([0]) == [1.0]


def test_layer_gains_that_are_no_numbers_are_refused_with_a_better_value():
    with pytest.raises(ConfigError, match="energy.feedback_gain=1e-160 over 3 layers overflows: use at least 1e-150"):
        Hopfield(feedback_gain=1e-160).layer_gains([2, 1, 0])
    assert all(map(math.isfinite, Hopfield(feedback_gain=1e-150).layer_gains([2, 1, 0])))


def test_an_energy_without_its_functions_is_none():
    """A value alone asks for the base class that derives the other two."""
    with pytest.raises(TypeError, match="abstract"):
        type("Mine", (Energy,), {"value": Predictive.value})()
    with pytest.raises(TypeError, match="abstract"):
        type("Mine", (ByValue,), {})()


@pytest.mark.parametrize("energy", [*ENERGIES, Quartic(), HopfieldByValue(), LiftedByValue()],
                         ids=lambda energy: type(energy).__name__)
@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "softmax"])  # which couples units
@pytest.mark.parametrize("still", ["nothing", "state", "drive"])
def test_tangents_are_derivatives(energy, name, still):
    """Where no message is, and Gauss-Newton leaves nothing out: the state's derivative along (da, dt), and the second
    derivative of E along the path of drive and state, by central differences of respond and value."""
    f = ACTIVATIONS[name]
    draw = torch.Generator().manual_seed(0)
    a, da, dt = torch.randn(3, 6, 4, generator=draw, dtype=torch.float64)
    none, h = torch.zeros_like(a), 1e-3
    with torch.no_grad():
        x = rest = energy.respond(a, none, f)
        dx, bend = tangent(energy, x, a, rest, None if still == "drive" else da, None if still == "state" else dt, f)
        da = none if still == "drive" else da
        assert still != "state" or not bool(dx.any())
        torch.testing.assert_close(dx, none if still == "state" else (energy.respond(a + h * da, h * dt, f) -
                                                             energy.respond(a - h * da, -h * dt, f)) / (2 * h),
                                   rtol=1e-4, atol=1e-5)
        # Along the straight path x + s dx, a + s da the second derivative is that of the energy alone.
        line = [energy.value(x + s * h * dx, a + s * h * da, f) for s in (-1, 0, 1)]
        expected = (line[0] - 2 * line[1] + line[2]) / h**2
    torch.testing.assert_close(bend, expected, rtol=1e-3, atol=1e-4)
