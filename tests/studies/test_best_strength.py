"""The best strength under noise: the formula is the minimum, and what certify measures has it there."""

import json
import math
from pathlib import Path

import pytest
from program import Command
from scipy.optimize import minimize_scalar

from ebmrun.studies.certify.best_strength import Best, best
from ebmrun.studies.certify.error_parts import Point

STRENGTHS = [0.3 / 2**k for k in range(14)]


def points(bias: float, order: float, noise: float, exponent: float = -1) -> list[Point]:
    return [Point(h, bias=bias * h**order, to_backprop=bias * h**order, residual=0.0, unfinished=0.0, round_off=0.0,
                  noise=noise * h**exponent, total=1.0) for h in STRENGTHS]


@pytest.mark.parametrize("b, p, s", [(1.0, 1, 1e-3), (2.0, 2, 1e-4), (30.0, 4, 1e-6)])
def test_the_formulas_are_the_minima_of_both_sums(b: float, p: int, s: float) -> None:
    found = Best(b, p, s)
    for total, strength, error in (
        (lambda h: b * h**p + s / h, found.strength, found.error),
        (lambda h: math.hypot(b * h**p, s / h), found.strength_in_square, found.error_in_square),
    ):
        least = minimize_scalar(lambda log, f=total: math.log(f(math.exp(log))), bounds=(-15, 3), method="bounded",
                                options={"xatol": 1e-10})
        assert strength == pytest.approx(math.exp(least.x), rel=1e-5)
        assert error == pytest.approx(math.exp(least.fun), rel=1e-9)
    assert found.strength == pytest.approx((s / (p * b)) ** (1 / (p + 1)))
    assert 1 <= found.strength_in_square / found.strength < 1.155


@pytest.mark.parametrize("p", [1, 2, 4])
def test_laws_are_read_off_points_that_follow_them(p: int) -> None:
    found = best(points(3.0, p, 1e-4))
    assert found is not None
    assert (found.bias, found.order, found.noise) == pytest.approx((3.0, p, 1e-4))


@pytest.mark.parametrize("law", [(3.0, 1, math.nan), (3.0, 1, 0.0), (3.0, 1, 1e-4, -0.5), (3.0, 0, 1e-4)],
                         ids=["not measured", "none", "not 1/strength", "a bias that stays"])
def test_without_both_laws_there_is_no_best_strength(law: tuple[float, ...]) -> None:
    assert best(points(*law)) is None


def test_noise_is_one_of_the_parts_that_a_suggestion_weighs() -> None:
    by_sum = {p.value: p.sum for p in points(1.0, 1, 1e-3)}
    assert by_sum[0.3] == pytest.approx(0.3 + 1e-3 / 0.3)


def test_certify_measures_the_least_error_where_it_says(command: Command) -> None:
    ended = command("study=certify", "algo=lifted", "nudge=centered", "nudge.strength=0.01", "noise.readings=1e-3",
                    "arch.hidden=[8]", "arch.activation=tanh", "trainer.batch_size=16", "precision=float64",
                    "study.strengths.largest=0.5", "study.strengths.smallest=0.01", "study.strengths.points=15",
                    "hydra.run.dir=run")
    assert ended.status == 0
    whole = json.loads(Path("run/certify.json").read_text())
    said, measured = whole["summary"], {p["value"]: p for p in whole["points"]}
    assert said["best/order"] == 2
    least = min(measured, key=lambda h: measured[h]["total"])
    assert 1 / 1.5 < least / said["best/strength"] < 1.5
    assert measured[least]["total"] == pytest.approx(said["best/error_in_square"], rel=0.3)
    for p in measured.values():  # bias and the noise of 16 draws are independent
        assert p["total"] == pytest.approx(math.hypot(p["bias"], p["noise"]), rel=0.25)
