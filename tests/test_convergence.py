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


def test_an_error_that_does_not_fall_has_order_zero() -> None:
    fit = fit_order(STRENGTHS, 0.3 + STRENGTHS)
    assert fit.confirms(0) and not fit.confirms(1)


def test_the_interval_covers_the_order_as_often_as_it_says() -> None:
    """Independent relative noise on a power law of four points, which leaves no window to choose."""
    draw, h = np.random.default_rng(1), np.geomspace(1, 1e-2, 4)
    fits = [fit_order(h, h * np.exp(0.05 * draw.standard_normal(4))) for _ in range(1000)]
    covered = np.mean([fit.low <= 1 <= fit.high for fit in fits])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 1000)


@pytest.mark.parametrize("errors", [[1, 2, 3], [1, 2, 3, 0.0], [1, 2, 3, math.nan], [1, 2, 3, 4, 5]])
def test_what_has_no_order_is_refused(errors: list[float]) -> None:
    with pytest.raises(ValueError):
        fit_order([1, 2, 3, 4][: max(3, min(len(errors), 4))], errors)
