"""Activations: f, f', and the convex pair G and G*, each against autograd, convex duality, or 90-digit arithmetic."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import spence

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import ACTIVATIONS, activation

ELEMENTWISE = [name for name in ACTIVATIONS if name != "softmax"]
INVERTIBLE = ["identity", "leaky_relu", "elu", "softplus", "tanh", "sigmoid"]
CLIPS = {"relu6": (0, 6), "hard_tanh": (-1, 1), "hard_sigmoid": (0, 1)}


def drives(scale: float = 2.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(50, 6, generator=draw, dtype=dtype)


def exact(name: str, a: float | Decimal) -> Decimal:
    """f(a) in 90 digits."""
    with localcontext() as context:
        context.prec = 90
        z = Decimal(a)
        match name:
            case "identity":
                return z
            case "relu":
                return max(z, Decimal(0))
            case "leaky_relu":
                return max(z, Decimal("0.01") * z)
            case "hard_sigmoid" | "hard_tanh" | "relu6":
                low, high = CLIPS[name]
                return min(max(z, Decimal(low)), Decimal(high))
            case "elu":
                return max(z, Decimal(0)) + min(z, Decimal(0)).exp() - 1
            case "softplus":
                return (1 + z.exp()).ln()
            case "sigmoid":
                return 1 / (1 + (-z).exp())
            case "tanh":
                return 1 - 2 / (1 + (2 * z).exp())


def exact_increment(name: str, a: float, d: float) -> Decimal:
    with localcontext() as context:
        context.prec = 90
        return exact(name, Decimal(a) + Decimal(d)) - exact(name, Decimal(a))


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activation_is_its_definition(name):
    a = drives()
    expected = torch.tensor([float(exact(name, v)) for v in a.flatten().tolist()], dtype=a.dtype).view_as(a)
    torch.testing.assert_close(activation(name)(a), expected, rtol=1e-14, atol=1e-15)


def test_softmax_is_its_definition():
    a = drives()
    expected = a.exp() / a.exp().sum(1, keepdim=True)
    torch.testing.assert_close(activation("softmax")(a), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_pullback_is_the_vector_jacobian_product(name):
    f, a, v = activation(name), drives().requires_grad_(), drives(seed=1)
    y = f(a)
    expected = torch.autograd.grad(y, a, v)[0]
    torch.testing.assert_close(f.pullback(y.detach(), v), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_pullback_is_differentiable_in_both_arguments(name):
    """Implicit differentiation goes through it."""
    f, v = activation(name), drives(seed=1)[:2].requires_grad_()
    y = (0.1 + 0.8 * torch.sigmoid(drives()[:2])).requires_grad_()  # in the range of each activation, away from kinks
    assert torch.autograd.gradcheck(f.pullback, (y, v))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dual_has_the_activation_as_its_gradient(name):
    f, a = activation(name), drives().requires_grad_()
    gradient = torch.autograd.grad(f.dual(a).sum(), a)[0]
    torch.testing.assert_close(gradient, f(a.detach()), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", INVERTIBLE)
def test_primal_has_the_inverse_activation_as_its_gradient(name):
    f, a = activation(name), drives()
    x = f(a).requires_grad_()
    gradient = torch.autograd.grad(f.primal(x).sum(), x)[0]
    torch.testing.assert_close(gradient, a, rtol=1e-9, atol=1e-12)


def test_softmax_primal_has_the_drive_as_its_gradient_up_to_the_normal_of_the_simplex():
    f, a = activation("softmax"), drives()
    x = f(a).requires_grad_()
    gap = torch.autograd.grad(f.primal(x).sum(), x)[0] - a
    torch.testing.assert_close(gap, gap[:, :1].expand_as(gap), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fenchel_young(name):
    """G(x) + G*(a) - <x, a> is 0 at x = f(a) and positive at other states in the range of f."""
    f, a = activation(name), drives()
    x = f(drives(seed=1))

    def gap(x):
        return (f.primal(x) + f.dual(a) - x * a).sum(1)

    torch.testing.assert_close(gap(f(a)), torch.zeros(len(a), dtype=a.dtype), rtol=0, atol=1e-12)
    assert (gap(x) > 0).all()


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
@pytest.mark.parametrize("a", [-700.0, -25.0, 25.0, 700.0])
def test_dual_of_a_saturated_unit(name, a):
    """log cosh a = |a| - log 2 + log(1 + exp(-2|a|)), and log(1 + exp a) = max(a, 0) + log(1 + exp(-|a|))."""
    tail = {"tanh": abs(a) - math.log(2) + math.log1p(math.exp(-2 * abs(a))),
            "sigmoid": max(a, 0.0) + math.log1p(math.exp(-abs(a)))}[name]
    found = activation(name).dual(torch.tensor([[a]], dtype=torch.float64)).item()
    assert found == pytest.approx(tail, rel=1e-14)


@pytest.mark.parametrize(("name", "outside"), [
    ("relu", -0.1), ("relu6", -0.1), ("relu6", 6.1), ("elu", -1.1), ("softplus", -0.1), ("tanh", 1.1), ("tanh", -1.1),
    ("hard_tanh", -1.1), ("hard_tanh", 1.1), ("sigmoid", 1.1), ("sigmoid", -0.1), ("hard_sigmoid", -0.1),
    ("hard_sigmoid", 1.1), ("softmax", -0.1)])
def test_primal_is_no_finite_number_outside_the_range(name, outside):
    assert not activation(name).primal(torch.full((1, 2), outside)).isfinite().any()


@pytest.mark.parametrize(("name", "ends", "value"), [
    ("tanh", [-1.0, 1.0], math.log(2)), ("sigmoid", [0.0, 1.0], 0.0), ("softmax", [0.0, 1.0], 0.0),
    ("softplus", [0.0, 0.0], 0.0), ("elu", [-1.0, -1.0], 1.0), ("relu6", [0.0, 6.0], [0.0, 18.0])])
def test_primal_at_the_ends_of_the_range_is_the_limit(name, ends, value):
    found = activation(name).primal(torch.tensor([ends], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(value, dtype=torch.float64).expand(1, 2))


@pytest.mark.parametrize("a", [0.0, 0.1, 0.3, 0.6931471, 0.6931472, 1.0, 5.0, 30.0, 800.0])
def test_the_pair_of_softplus_is_made_of_dilogarithms(a):
    """G*(a) = -Li2(-exp a) with Li2(-exp a) + Li2(-exp(-a)) = -pi^2/6 - a^2/2; G(x) = x^2/2 + Li2(exp(-x)) - pi^2/6,
    where scipy's spence(z) is Li2(1 - z)."""
    f, x, zeta = activation("softplus"), torch.tensor([[a]], dtype=torch.float64), math.pi**2 / 6
    below = -spence(1 + math.exp(-a))
    assert f.dual(-x).item() == pytest.approx(below, rel=1e-14)
    assert f.dual(x).item() == pytest.approx(a**2 / 2 + zeta - below, rel=1e-14)
    assert f.primal(x).item() == pytest.approx(a**2 / 2 + spence(-math.expm1(-a)) - zeta, rel=1e-14, abs=1e-14)


@pytest.mark.parametrize("x", [1e-4, 1e-9, 1e-30])
def test_the_primal_of_a_small_softplus_keeps_its_digits(x):
    """The integral of log(exp x - 1) = log x + x/2 + x^2/24 + O(x^4)."""
    found = activation("softplus").primal(torch.tensor([[x]], dtype=torch.float64)).item()
    assert found == pytest.approx(x * math.log(x) - x + x**2 / 4 + x**3 / 72, rel=1e-15)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_slope_jumps_at_the_kinks_and_nowhere_else(name):
    """By one-sided difference quotients on a grid that holds them."""
    a = torch.linspace(-8, 8, 65, dtype=torch.float64)[:, None]
    above, below = (activation(name).increment(a, torch.full_like(a, d)) / d for d in (1e-9, -1e-9))
    jumps = a[(above - below).abs() > 1e-6]
    assert tuple(jumps.tolist()) == activation(name).kinks


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3, 1.0])
def test_increment_keeps_its_digits_in_float32(name, size):
    """Relative accuracy 1e-6 for drives that are not saturated, however small the increment; kinks are crossed both
    ways at the larger sizes."""
    a = torch.linspace(-0.98, 0.98, 41)[:, None].repeat(1, 2) + torch.tensor([0.0, 1.0 if "hard" in name else 0.0])
    d = size * torch.linspace(-1, 1, 41).roll(7)[:, None].repeat(1, 2)
    found = activation(name).increment(a, d).flatten().tolist()
    for i, (drive, step) in enumerate(zip(a.flatten().tolist(), d.flatten().tolist())):
        assert found[i] == pytest.approx(float(exact_increment(name, drive, step)), rel=1e-6, abs=0), (drive, step)


@pytest.mark.parametrize("name", ELEMENTWISE)
@settings(derandomize=True, deadline=None, max_examples=100)
@given(a=st.floats(-30, 30), d=st.floats(-60, 60).filter(lambda d: abs(d) > 1e-25))
def test_increment_is_within_round_off_of_the_step(name, a, d):
    """Everywhere: saturated, across kinks, with large steps. The scale is the step, or 1 for a bounded unit."""
    drive, step = (torch.tensor([[value]], dtype=torch.float64) for value in (a, d))
    found = activation(name).increment(drive, step)
    scale = min(abs(d), 1.0) if name in ("tanh", "sigmoid") else abs(d)
    assert abs(Decimal(found.item()) - exact_increment(name, a, d)) <= Decimal(8 * 2.0**-52 * scale)


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-3, 0.9, 3.0, 50.0])
def test_softmax_increment_in_float32(size):
    """Against p_i (exp d_i / sum_j p_j exp d_j - 1) in 90 digits."""
    a, d = drives(seed=2, dtype=torch.float32)[:8], size * torch.tanh(drives(seed=3, dtype=torch.float32)[:8])
    found = activation("softmax").increment(a, d)
    with localcontext() as context:
        context.prec = 90
        for row in range(len(a)):
            before = [Decimal(v).exp() for v in a[row].tolist()]
            after = [(Decimal(v) + Decimal(s)).exp() for v, s in zip(a[row].tolist(), d[row].tolist())]
            for i in range(len(before)):
                exact_value = float(after[i] / sum(after) - before[i] / sum(before))
                assert abs(found[row, i].item() - exact_value) <= 2e-6 * min(size, 1.0)


def test_softmax_increment_of_a_unit_far_below_the_others():
    """A message that lifts a unit of probability 1e-30 to the top leaves no NaN and no lost mass."""
    a, d = torch.tensor([[-69.0, 0.0, 0.0]]), torch.tensor([[200.0, 0.0, 0.0]])
    torch.testing.assert_close(activation("softmax").increment(a, d), torch.tensor([[1.0, -0.5, -0.5]]))


def test_unknown_activation_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match="'swish' is unknown.*relu"):
        activation("swish")
