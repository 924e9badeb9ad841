"""Nudges as finite-difference formulas: exact on polynomials up to their order, and refused when they are none."""

import math
from pathlib import Path

import pytest
import yaml

from ebmrun.errors import ConfigError
from ebmrun.theory.nudge import Nudge

CONF = Path(__file__).resolve().parents[1] / "conf" / "nudge"
ORDERS = {"single": 1, "one_sided": 1, "centered": 2, "fourth_order": 4}


def shipped(name: str, **changes: float) -> Nudge:
    return Nudge(**yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes)


def estimate(nudge: Nudge, power: int) -> float:
    """The formula applied to F(lambda) = lambda^power; nodes at 0 have their own coefficient."""
    moved = math.fsum(w * s**power for w, s in zip(nudge.coefficients, nudge.strengths))
    return moved + nudge.free_coefficient * 0.0**power


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
        found = math.fsum(w * (math.exp(s) - offset) for w, s in zip(nudge.coefficients, nudge.strengths))
        errors.append(abs(found + nudge.free_coefficient * (1 - offset) - 1))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[name], abs=0.1)


@pytest.mark.parametrize("name", [*ORDERS, "clamped"])
def test_only_single_needs_an_energy_without_free_gradient(name):
    assert shipped(name).needs_no_free_gradient == (name == "single")


def test_clamped_is_a_difference_whatever_its_strength():
    """{(inf, 1), (0, -1)}."""
    for strength in (0.1, 1.0, 7.0):
        nudge = shipped("clamped", strength=strength)
        assert nudge.clamps and nudge.order is None
        assert (nudge.strengths, nudge.coefficients, nudge.free_coefficient) == ([math.inf], [1.0], -1.0)


def test_one_sided_both_ways_is_centered():
    """The mean of the coefficients at +strength and -strength: the free node cancels."""
    right = Nudge([1.0, 0.0], [1.0, -1.0], 0.2)
    left = Nudge([-1.0, 0.0], [-1.0, 1.0], 0.2)
    centered = Nudge([1.0, -1.0], [0.5, -0.5], 0.2)
    assert [right.coefficients[0] / 2, left.coefficients[0] / 2] == pytest.approx(centered.coefficients)
    assert right.strengths + left.strengths == centered.strengths
    assert right.free_coefficient + left.free_coefficient == 0 == centered.free_coefficient


def test_a_stencil_of_ones_own():
    """Three points on one side, second order: (-3 F(0) + 4 F(h) - F(2h)) / 2h."""
    nudge = Nudge([0.0, 1.0, 2.0], [-1.5, 2.0, -0.5], 0.25)
    assert nudge.order == 2
    assert nudge.strengths == [0.25, 0.5] and nudge.coefficients == [8.0, -2.0] and nudge.free_coefficient == -6.0


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
