"""Orders fitted to errors whose order is known."""

import math

import numpy as np
import pytest

from ebmrun.studies.convergence import fit_order

STRENGTHS = np.geomspace(1, 1e-8, 33)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_a_power_law_has_its_order(order: int) -> None:
    fit = fit_order(STRENGTHS, 3 * STRENGTHS**order)
    assert math.isclose(fit.order, order, rel_tol=1e-9)
    assert fit.confirms(order) and not fit.confirms(order + 1) and not fit.confirms(order - 1)


def test_the_order_of_the_strengths_does_not_matter() -> None:
    errors = 3 * STRENGTHS**2 * (1 + STRENGTHS)
    assert fit_order(STRENGTHS, errors) == fit_order(STRENGTHS[::-1], errors[::-1])


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("floor", [1e-7, 1e-15])
def test_round_off_and_higher_orders_are_left_out(order: int, floor: float) -> None:
    draw = np.random.default_rng(0)
    noise = floor * draw.uniform(0.5, 2, len(STRENGTHS))
    errors = STRENGTHS**order * (1 + STRENGTHS / 2) + noise
    fit = fit_order(STRENGTHS, errors)
    assert fit.confirms(order)
    assert min(fit.points) ** order > floor  # where the power law itself is below the floor, nothing is fitted
    assert fit.floor == errors.min()


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("round_off", [1e-12, 1e-16])
def test_round_off_that_rises_at_the_smallest_strengths_is_left_out(order: int, round_off: float) -> None:
    """A displacement of h kept inside a state of size 1 loses round_off / h of itself. The law is 95 hundredths or more
    of each error that is fitted: round-off at h is then a twentieth of it at most."""
    draw, h = np.random.default_rng(0), np.geomspace(1, 1e-11, 45)
    errors = h**order + round_off / h * draw.uniform(0.5, 2, len(h))
    assert errors[-1] > 20 * errors.min()  # the smallest strength lies on the branch that rises
    fit = fit_order(h, errors)
    assert fit.confirms(order, margin=0.02) and fit.reaches_floor
    assert all(20 * round_off / each <= 2 * each**order for each in fit.points)


@pytest.mark.parametrize("broken", [1e-2, 1e-4])
def test_kinks_at_large_strengths_are_left_out(broken: float) -> None:
    """Above the nearest kink the error jumps by five orders of magnitude, and falls as no power does."""
    draw = np.random.default_rng(0)
    errors = STRENGTHS**2 * np.where(broken < STRENGTHS, 1e5 * draw.uniform(0.1, 10, len(STRENGTHS)), 1)
    fit = fit_order(STRENGTHS, errors)
    assert fit.confirms(2, margin=0.01)
    assert max(fit.points) < broken


def test_a_law_that_another_floor_ends_does_not_reach_it() -> None:
    """The power law alone would give 1e-8 where the error is 1e-3."""
    assert not fit_order(STRENGTHS, STRENGTHS + 1e-3).reaches_floor
    assert fit_order(STRENGTHS, STRENGTHS).reaches_floor


def test_an_error_that_does_not_fall_has_order_zero() -> None:
    fit = fit_order(STRENGTHS, 0.3 + STRENGTHS)
    assert fit.confirms(0) and not fit.confirms(1)


def test_the_interval_covers_the_order_as_often_as_it_says() -> None:
    """Independent relative noise on a power law of four points, which leaves no window to choose."""
    draw, h = np.random.default_rng(1), np.geomspace(1, 1e-2, 4)
    fits = [fit_order(h, h * np.exp(0.05 * draw.standard_normal(4))) for _ in range(1000)]
    covered = np.mean([fit.low <= 1 <= fit.high for fit in fits])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 1000)


@pytest.mark.parametrize("strengths, errors, message", [
    ([1, 2, 3, 4], [1, 2, 3], r"different lengths \(4 and 3\)"),
    ([1, 2, 3, 4], [1, 2, 3, math.nan], "finite"),
    ([1, 2, 3, 4], [1, 2, 3, -1.0], "0 or more"),
    ([0.0, 2, 3, 4], [1, 2, 3, 4], "positive"),
])
def test_what_are_no_errors_is_refused(strengths: list[float], errors: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_order(strengths, errors)


@pytest.mark.parametrize("errors", [[1, 2, 3], [0.0, 1, 2, 3], [4, 3, 2, 1], [2, 1, 2, 3]])
def test_fewer_than_four_points_on_a_falling_branch_have_no_order(errors: list[float]) -> None:
    assert fit_order(range(1, len(errors) + 1), errors) is None
