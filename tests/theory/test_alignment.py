"""Measures between two gradients: by hand, at their edges, and where rounding would hide a small angle."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmrun.theory.alignment import MEASURES, alignment, columns


def V(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def measures(gradient: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    found = alignment([[gradient]], [[reference]])
    return {key: found[f"alignment/{key}"] for key in MEASURES}


def test_by_hand():
    """g = (3, 4), r = (4, 3): <g, r> = 24 of 25, |g - r| = sqrt 2 of 5."""
    assert measures(V(3, 4), V(4, 3)) == pytest.approx(
        {"cosine": 0.96, "angle": math.degrees(math.acos(0.96)), "norm_ratio": 1, "relative_error": math.sqrt(2) / 5})


@pytest.mark.parametrize(("gradient", "cosine", "angle", "ratio", "error"), [
    ((2.0, 0.0), 1, 0, 2, 1),
    ((0.0, 3.0), 0, 90, 3, math.sqrt(10)),
    ((-1.0, 0.0), -1, 180, 1, 2),
    ((-0.5, 0.0), -1, 180, 0.5, 1.5),
    ((1.0, 1.0), math.sqrt(0.5), 45, math.sqrt(2), 1),
])
def test_against_a_unit_vector(gradient, cosine, angle, ratio, error):
    expected = {"cosine": cosine, "angle": angle, "norm_ratio": ratio, "relative_error": error}
    assert measures(V(*gradient), V(1.0, 0.0)) == pytest.approx(expected, abs=1e-6)


def test_layers_and_the_whole():
    """Layer 1: (3, 0) against (1, 0). Layer 2 has a weight and a bias: (0), (4) against (0), (-4)."""
    found = alignment([[V(3, 0)], [V(0), V(4)]], [[V(1, 0)], [V(0), V(-4)]], prefix="other")
    assert set(found) == set(columns(["layer1", "layer2"], "other"))
    assert found["other/cosine/layer1"] == pytest.approx(1)
    assert found["other/norm_ratio/layer1"] == pytest.approx(3)
    assert found["other/cosine/layer2"] == pytest.approx(-1)
    assert found["other/relative_error/layer2"] == pytest.approx(2)
    assert found["other/cosine"] == pytest.approx((3 - 16) / (5 * math.sqrt(17)))
    assert found["other/norm_ratio"] == pytest.approx(5 / math.sqrt(17))
    assert found["other/relative_error"] == pytest.approx(math.sqrt(4 + 64) / math.sqrt(17))


def test_a_layer_without_any_gradient_is_named_beside_a_small_error_of_the_whole():
    """The output layer's gradient is a thousand times the others', and right; the first layer has none."""
    reference = [[V(1, 0)], [V(2, 0)], [V(1000, 0)]]
    found = alignment([[V(0, 0)], [V(2, 0.2)], [V(1000, 0)]], reference)
    assert found["alignment/relative_error"] < 2e-3
    assert found["alignment/relative_error/worst"] == 1
    assert found["alignment/relative_error/worst_layer"] == 1
    found = alignment([[V(1, 0)], [V(2, 0.2)], [V(1000, 1)]], reference)
    assert found["alignment/relative_error/worst"] == pytest.approx(0.1)
    assert found["alignment/relative_error/worst_layer"] == 2


@pytest.mark.parametrize("angle", [1e-9, 1e-7, 1e-4, 1e-2, 1.0, 3.0])
@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
def test_small_angles_are_not_rounded_away(angle, size):
    """A rotation by an angle that cos(angle) = 1 - angle^2 / 2 cannot show below 1e-8."""
    found = measures(size * V(math.cos(angle), math.sin(angle)), size * V(1.0, 0.0))
    assert math.radians(found["angle"]) == pytest.approx(angle, rel=1e-6)
    assert found["relative_error"] == pytest.approx(2 * math.sin(angle / 2), rel=1e-6)


@pytest.mark.parametrize("angle", [1e-6, 1e-4])
def test_small_angles_between_float32_gradients(angle):
    """The sum of many squares in float32 would round at 1e-7, and an angle of 1e-4 has a versine of 5e-9."""
    r = torch.ones(10_000)
    g = r + angle * torch.ones(10_000).index_fill(0, torch.arange(0, 10_000, 2), -1)  # perpendicular to r
    exact = (g - r).double().norm() / r.double().norm()  # its entries round to float32 before alignment sees them
    found = measures(g, r)
    assert found["relative_error"] == pytest.approx(exact.item(), rel=1e-9)
    assert math.radians(found["angle"]) == pytest.approx(math.atan(angle), rel=0.1)


def test_equal_gradients_agree_exactly():
    g = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert measures(g, g.clone()) == {"cosine": 1, "angle": 0, "norm_ratio": 1, "relative_error": 0}


@pytest.mark.parametrize(("gradient", "reference", "expected"), [
    (V(0, 0), V(0, 0), {"cosine": 1, "angle": 0, "norm_ratio": 1, "relative_error": 0}),
    (V(0, 0), V(1, 2), {"cosine": 0, "angle": 90, "norm_ratio": 0, "relative_error": 1}),
    (V(1, 2), V(0, 0), {"cosine": 0, "angle": 90, "norm_ratio": 0, "relative_error": 1}),
])
def test_zero_gradients_as_documented(gradient, reference, expected):
    assert measures(gradient, reference) == expected


def test_a_layer_without_parameters_has_two_zero_gradients():
    found = alignment([[], [V(1, 0)]], [[], [V(0, 1)]])
    assert found["alignment/cosine/layer1"] == 1 and found["alignment/relative_error/layer1"] == 0
    assert found["alignment/angle"] == pytest.approx(90)


finite = st.floats(-1e6, 1e6).map(lambda v: 0.0 if abs(v) < 1e-6 else v)
vector = st.lists(finite, min_size=3, max_size=3)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(gradient=vector, reference=vector)
def test_finite_gradients_have_finite_measures_in_range(gradient, reference):
    found = measures(V(*gradient), V(*reference))
    assert all(map(math.isfinite, found.values()))
    assert -1 <= found["cosine"] <= 1 and 0 <= found["angle"] <= 180
    assert found["norm_ratio"] >= 0 and found["relative_error"] >= 0


@settings(derandomize=True, deadline=None, max_examples=100)
@given(gradient=vector, reference=vector)
def test_the_cosine_is_the_inner_product_of_directions(gradient, reference):
    g, r = V(*gradient), V(*reference)
    if g.norm() > 0 and r.norm() > 0:
        # Rounding is relative to the square of the ratio of norms, which stand in the formula as a difference.
        ratio = max(g.norm() / r.norm(), r.norm() / g.norm()).item()
        expected = torch.dot(g / g.norm(), r / r.norm()).item()
        assert measures(g, r)["cosine"] == pytest.approx(expected, abs=1e-14 * (1 + ratio))


def test_a_gradient_that_is_not_finite_shows():
    """It is not clipped into a number that looks like a measurement."""
    assert math.isnan(measures(V(math.nan, 1), V(1, 1))["cosine"])


def test_columns_name_every_measure_of_every_layer():
    found = columns(["layer1"])
    assert found == ["alignment/cosine", "alignment/angle", "alignment/norm_ratio", "alignment/relative_error",
                          "alignment/relative_error/worst", "alignment/relative_error/worst_layer",
                          "alignment/cosine/layer1", "alignment/angle/layer1", "alignment/norm_ratio/layer1",
                          "alignment/relative_error/layer1"]
