"""The unification study: the committed table comes from the code as it is, and says what theory says."""

import csv
import json
import math
from pathlib import Path

import pytest
import yaml
from program import composed

from ebmrun.experiment import build
from ebmrun.studies.convergence import at
from ebmrun.studies.unification import Curve, curves

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "unification"


@pytest.fixture(scope="module")
def study() -> tuple:
    cfg = composed(*yaml.safe_load((RESULTS / "overrides.yaml").read_text()))
    parts = build(cfg)
    return parts, {curve.name: curve for curve in curves(cfg, parts)}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, float]]:
    with (RESULTS / "errors.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


MEMBERS = [
    "pc/single", "pc/centered", "pc/fourth_order", "lifted/one_sided", "lifted/centered", "ep/one_sided",
    "ep/centered", "lifted/holomorphic", "ep_eight_nodes/holomorphic_8", "pc_weak_feedback/clamped", "chl/clamped",
    "ep_weak_feedback/fourth_order",
]


@pytest.mark.parametrize("name", MEMBERS)
def test_the_committed_errors_are_rebuilt(study: tuple, rows: list[dict[str, float]], name: str) -> None:
    """To a thousandth of themselves and 1e-10 besides, which round-off and the references' tolerance may take."""
    parts, found = study
    chosen, curve = rows[::12], found[f"{name}/float64"]
    errors = curve.errors(parts, curve.truth(parts), [row["strength"] for row in chosen])
    for row, error in zip(chosen, errors):
        assert math.isclose(error, row[f"{name}/float64"], rel_tol=1e-3, abs_tol=1e-10)


def test_every_committed_order_is_the_predicted_one(study: tuple) -> None:
    orders = json.loads((RESULTS / "orders.json").read_text())
    stencils = {"single": 1, "one_sided": 1, "centered": 2, "fourth_order": 4,  # Fornberg 1988
                "holomorphic": 4, "holomorphic_8": 8}  # of N complex nodes, Laborieux & Zenke 2022
    names = {key.rsplit("/", 1)[0] for key in orders}
    assert names == set(study[1])
    for name in names:
        member, nudge, _ = name.split("/")
        expected = 1 if member == "chl" or member.endswith("weak_feedback") else stencils[nudge]
        assert orders[f"{name}/predicted"] == expected
        assert expected - 0.25 < orders[f"{name}/low"] < orders[f"{name}/high"] < expected + 0.25


def test_weak_nudges_reach_the_rounding_of_the_precision(rows: list[dict[str, float]]) -> None:
    """A fourth-order stencil has no bias left at 1e-6: what remains is round-off, a few units of it."""
    weak = min(rows, key=lambda row: abs(math.log(row["strength"] / 1e-6)))
    for member in ("pc", "lifted"):
        assert weak[f"{member}/fourth_order/float64"] < 50 * 2**-53
        assert weak[f"{member}/fourth_order/float32"] < 50 * 2**-24


def test_the_moving_number_moves_alone(study: tuple) -> None:
    curve: Curve = study[1]["chl/clamped/float64"]
    moved = at(curve.learning, curve.moves, 0.01)
    assert moved.energy.feedback_gain == 0.01 and moved.nudge == curve.learning.nudge
    curve = study[1]["ep/centered/float64"]
    moved = at(curve.learning, curve.moves, 0.01)
    assert moved.nudge.strength == 0.01 and moved.energy == curve.learning.energy
