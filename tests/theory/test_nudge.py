"""Nudges as finite-difference formulas: exact on polynomials up to their order, and refused when they are none. How a
target pulls: a message against the cost's gradient, a clamp, several nodes side by side."""

import cmath
import math
from pathlib import Path

import pytest
import torch
import yaml

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import activation
from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.nudge import Pull, Weights
from ebmrun.theory.stencil import Nudge

CONF = Path(__file__).resolve().parents[2] / "conf" / "nudge"
ORDERS = {"single": 1, "one_sided": 1, "negative": 1, "centered": 2, "fourth_order": 4, "coupled": 1,
          "coupled_negative": 1, "coupled_centered": 2, "holomorphic": 4, "richardson": 2, "joint": 4}


def shipped(name: str, **changes: float) -> Nudge:
    return Nudge(**yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes)


def estimate(nudge: Nudge, power: int) -> float:
    """The formula applied to F(lambda) = lambda^power; nodes at 0 have their own weight."""
    weights = Weights(*nudge.coefficients, [1.0])
    return math.fsum((w * s**power).real for w, s in zip(weights.nodes, nudge.strengths)) + weights.free * 0.0**power


def test_every_shipped_stencil_is_tested():
    assert {path.stem for path in CONF.glob("*.yaml")} == {*ORDERS, "clamped"}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("strength", [0.3, 1.0, 2.5])
def test_exact_on_polynomials_up_to_its_order(name, strength):
    """dF/dlambda at 0 of lambda^m is 1 for m = 1 and 0 for the others. ``single`` alone is not exact on constants."""
    nudge = shipped(name, strength=strength)
    for power in range(0 if name != "single" else 1, ORDERS[name] + 1):
        assert estimate(nudge, power) == pytest.approx(1.0 if power == 1 else 0.0, abs=1e-13), power
    assert abs(estimate(nudge, ORDERS[name] + 1)) > 0.1 * strength ** ORDERS[name]


@pytest.mark.parametrize("name", ORDERS)
def test_order_from_the_moments(name):
    assert shipped(name).order == ORDERS[name]


@pytest.mark.parametrize("name", ORDERS)
def test_error_falls_with_the_order(name):
    """The estimate of d exp(lambda)/dlambda at 0, less the constant where the formula asks for that, is 1 to within
    O(strength^order): a fitted slope, where no term is near round-off."""
    errors = []
    for strength in (0.1, 0.05):
        nudge = shipped(name, strength=strength)
        offset = 1.0 if nudge.needs_no_free_gradient else 0.0
        weights = Weights(*nudge.coefficients, [1.0])
        found = math.fsum((w * (cmath.exp(s) - offset)).real for w, s in zip(weights.nodes, nudge.strengths))
        errors.append(abs(found + weights.free * (1 - offset) - 1))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.1)


@pytest.mark.parametrize("name", [*ORDERS, "clamped"])
def test_only_single_needs_an_energy_without_free_gradient(name):
    assert shipped(name).needs_no_free_gradient == (name == "single")


def test_clamped_is_a_difference_whatever_its_strength():
    """{(inf, 1), (0, -1)}."""
    for strength in (0.1, 1.0, 7.0):
        nudge = shipped("clamped", strength=strength)
        assert nudge.clamps and nudge.order is None
        weights = Weights(*nudge.coefficients, [1.0])
        assert (nudge.strengths, weights.nodes, weights.free) == ([math.inf], [1.0], -1.0)


@pytest.mark.parametrize("names", [("one_sided", "negative", "centered"),
                                   ("coupled", "coupled_negative", "coupled_centered")])
def test_one_sided_both_ways_is_centered(names):
    """The mean of the weights at +strength and -strength: the free node cancels."""
    right, left, centered = (shipped(name, strength=0.2) for name in names)
    a, b, both = (Weights(*each.coefficients, [1.0]) for each in (right, left, centered))
    assert [a.nodes[0] / 2, b.nodes[0] / 2] == pytest.approx(both.nodes)
    assert right.strengths + left.strengths == centered.strengths
    assert a.free + b.free == 0 == both.free


def test_a_stencil_of_ones_own():
    """Three points on one side, second order: (-3 F(0) + 4 F(h) - F(2h)) / 2h."""
    nudge = Nudge([0.0, 1.0, 2.0], [-1.5, 2.0, -0.5], 0.25)
    assert nudge.order == 2
    weights = Weights(*nudge.coefficients, [1.0])
    assert nudge.strengths == [0.25, 0.5] and weights.nodes == [8.0, -2.0] and weights.free == -6.0


@pytest.mark.parametrize(("nodes", "weights", "strength", "message"), [
    ([1.0], [1.0], 0.0, "nudge.strength=0.0 must be a positive number"),
    ([1.0], [1.0], -0.1, "nudge.strength=-0.1 must be a positive number.*nudge=centered"),
    ([1.0], [1.0], math.inf, "nudge.strength=inf must be a positive number"),
    ([1.0], [1.0], math.nan, "nudge.strength=nan must be a positive number"),
    ([1.0, -1.0], [0.5], 0.1, "must be as many"),
    ([], [], 0.1, "one node at least other than 0"),
    ([0.0], [1.0], 0.1, "one node at least other than 0"),
    ([1.0, 1.0], [0.5, 0.5], 0.1, "must differ from each other"),
    ([math.nan], [1.0], 0.1, "be numbers or infinity"),
    ([-math.inf], [1.0], 0.1, "be numbers or infinity"),
    ([1.0, 0.0], [1.0, 0.0], 0.1, "leave out unused nodes"),
    ([1.0, 0.0], [1.0, math.inf], 0.1, "must be finite"),
    ([math.inf, 1.0], [1.0, -1.0], 0.1, "mix clamping"),
    ([1.0, -1.0], [1.0, -1.0], 0.1, "estimate 2 times the derivative: scale the weights"),
    ([1.0, -1.0], [0.5, 0.5], 0.1, "estimate 0 times the derivative"),
    ([math.inf, 0.0], [2.0, -2.0], 1.0, "estimate 2 times the derivative"),
])
def test_what_is_no_first_derivative_is_refused(nodes, weights, strength, message):
    with pytest.raises(ConfigError, match=message):
        Nudge(nodes, weights, strength)


def test_only_what_clamps_holds():
    """The output is held by ``clamped`` at the target, and by coupled learning on the way there."""
    held = {name: shipped(name).clamps for name in (*ORDERS, "clamped")}
    assert {name for name, clamps in held.items() if clamps} == {
        "clamped", "coupled", "coupled_negative", "coupled_centered"}
    with pytest.raises(ConfigError, match="nudge.holds=True.*nudge.holds=false, or use finite nodes"):
        Nudge([math.inf, 0.0], [1.0, -1.0], holds=True)


def test_signs_need_another_side():
    """A stencil that is its own mirror image, and a clamp, which has none; the lowest strength counts both sides."""
    for name in ("centered", "fourth_order", "coupled_centered", "clamped"):
        with pytest.raises(ConfigError, match="nudge.random_sign=True has no use on nudge.nodes=.*one_sided"):
            shipped(name, random_sign=True)
    assert (shipped("one_sided").lowest, shipped("one_sided", random_sign=True).lowest) == (0.1, -0.1)
    assert (shipped("fourth_order").lowest, shipped("clamped").lowest) == (-0.2, math.inf)


# ---- sums over nodes

@pytest.mark.parametrize("name", [*ORDERS, "clamped"])
def test_sums_over_nodes_that_are_stacked_along_the_batch(name):
    """scale w_k m_k row by row, and its sums over k, in plain loops."""
    nudge, examples, scale = shipped(name, strength=0.5), 3, -0.25
    count = len(nudge.strengths)
    draw = torch.Generator().manual_seed(1)
    message = torch.randn(count * examples, 4, generator=draw, dtype=torch.float64)
    weights = Weights(*nudge.coefficients, [1.0, scale])
    wanted = [[scale * weights.nodes[k] * message[k * examples + i] for i in range(examples)] for k in range(count)]
    rows = torch.stack([row for node in wanted for row in node])
    torch.testing.assert_close(weights.of(1, message), rows)
    for layer, row in zip(weights.of_layers([message, message]), (rows / scale, rows), strict=True):
        torch.testing.assert_close(layer, row)
    total = torch.stack([sum(node[i] for node in wanted) for i in range(examples)])
    torch.testing.assert_close(weights.sum(rows), total)
    torch.testing.assert_close(weights.shift(message), total / scale)  # the shift of the signals is not scaled


# ---- a pull

def batch() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, generator=draw, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[:3]


def test_the_message_is_minus_lambda_times_the_gradient_of_the_cost():
    x, y = batch()
    for cost in (SquaredError(activation("identity")), CrossEntropy(activation("identity"))):
        leaf = x.clone().requires_grad_()
        slope = torch.autograd.grad(0.3 * cost.value(leaf, y).sum(), leaf)[0]
        torch.testing.assert_close(Pull(cost, y, 0.3).message(x), -slope)


def test_no_strength_no_message_even_where_the_cost_is_infinite():
    y = torch.eye(2)
    assert torch.equal(Pull(CrossEntropy(activation("softmax")), y, 0.0).message(torch.zeros(2, 2)), torch.zeros(2, 2))


def test_only_an_infinite_strength_clamps():
    _, y = batch()
    cost = SquaredError(activation("identity"))
    assert Pull.stacked(cost, y, [math.inf]).clamps
    assert not Pull(cost, y, 1e30).clamps and not Pull.stacked(cost, y, [0.1, -0.1]).clamps


def test_nodes_side_by_side_pull_as_each_alone():
    x, y = batch()
    cost, strengths = SquaredError(activation("identity")), [0.2, -0.2, 0.4]
    together = Pull.stacked(cost, y, strengths).message(x.repeat(3, 1))
    alone = torch.cat([Pull.stacked(cost, y, [strength]).message(x) for strength in strengths])
    torch.testing.assert_close(together, alone)


def test_the_part_of_the_way_that_an_output_has_to_go():
    """From any x, 1 / (1 + lambda) of the way to the answer z - lambda (x - y) of identity units under squared error is
    the solution (z + lambda y) / (1 + lambda); a cost without a constant curvature goes all the way."""
    x, y = batch()
    z, strengths = x.flip(0), [0.5, -0.5]
    pull = Pull.stacked(SquaredError(activation("identity")), y, strengths)
    both = torch.cat([x, x])
    answer = torch.cat([z, z]) + pull.message(both)
    solved = torch.cat([(z + strength * y) / (1 + strength) for strength in strengths])
    torch.testing.assert_close(both + pull.step * (answer - both), solved)
    assert Pull(CrossEntropy(activation("identity")), y, 0.5).step == 1
    assert Pull(SquaredError(activation("tanh")), y, 0.5).step == 1
