"""Certificates say what theory says: orders, verdicts, and each part of the error where a closed form gives it."""

import csv
import json
import math
import warnings
from pathlib import Path

import program
import pytest

from ebmrun.errors import ConfigError
from ebmrun.experiment import build
from ebmrun.studies.certify.certificate import Certificate, flat, lines
from ebmrun.studies.certify.study import certify, composition, run

SMALL = ("study=certify", "arch.hidden=[8,6]", "arch.activation=sigmoid", "trainer.batch_size=4",
         "study.gains.points=12")


def composed(*overrides: str):
    return program.composed(*overrides[:1], *SMALL, *overrides[1:])


def certificate(*overrides: str) -> Certificate:
    cfg = composed(*overrides)
    parts = build(cfg)
    assert parts.learning is not None
    return certify(parts, parts.learning, cfg)


BACKPROP, OWN = "backprop", "own equilibrium"


@pytest.mark.parametrize("overrides, verdict, order", [
    (["algo=pc"], BACKPROP, 1),
    (["algo=pc", "nudge=centered"], BACKPROP, 2),
    (["algo=pc", "nudge=fourth_order"], BACKPROP, 4),
    (["algo=pc", "energy._target_=networks.Coshine", "study.strengths.points=8"], BACKPROP, 1),
    (["algo=lifted"], BACKPROP, 1),
    (["algo=ep"], OWN, 1),
    (["algo=ep_centered"], OWN, 2),
    (["algo=chl"], BACKPROP, 1),
    (["algo=pc_weak_feedback"], BACKPROP, 1),
], ids=lambda value: "-".join(value) if isinstance(value, list) else None)
def test_the_verdict_and_order_are_those_of_theory(overrides: list[str], verdict: str, order: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # at strengths that nobody has set, no digits are worth a warning
        found = certificate(*overrides)
    assert found.verdict.name == verdict
    assert found.order.confirms(order, margin=0.1)


@pytest.mark.parametrize("algo", ["pc_first_step", "pc_fixed_prediction"])
def test_readings_that_equal_backprop_are_exact_at_any_strength(algo: str) -> None:
    found = certificate(f"algo={algo}")
    assert found.verdict.name == "exact"
    assert max(p.to_backprop for p in found.points) < 1e-12
    assert found.suggestion is None


def test_clamping_at_full_feedback_takes_no_limit_but_a_falling_gain_does() -> None:
    found = certificate("algo=pc_clamped", "relax=sweep")
    assert found.verdict.name == "neither"
    assert found.order.confirms(1, margin=0.1)
    assert found.own.bias > 0.01


def test_equilibrium_propagation_approaches_backprop_as_its_feedback_weakens() -> None:
    """Xie & Seung 2003: to first order; at full feedback its equilibrium is not the forward pass."""
    found = certificate("algo=ep_centered", "arch.activation=sigmoid")
    assert found.gain_order.confirms(1, margin=0.1)
    assert found.free_distance > 1e-3 and found.reference.gap > 1e-3


def test_where_the_free_equilibrium_is_the_forward_pass_there_is_one_reference() -> None:
    found = certificate("algo=pc", "energy.feedback_gain=0.3")
    assert found.free_distance < 1e-14
    assert (found.reference.name, found.reference.gap, found.gain_points) == ("backprop", None, [])
    assert all(p.bias == p.to_backprop for p in found.points)
    assert "error to own equilibrium" not in "\n".join(lines(found))


def test_an_energy_that_contradicts_itself_gets_no_certificate() -> None:
    with pytest.raises(ConfigError, match=r"Contradictory\.(error_)?feedback contradicts its value\(\)"):
        certificate("algo=pc", "energy._target_=networks.Contradictory")


def test_backprop_itself_is_not_certified(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="algo=bp"):
        run(composed("algo=bp"), tmp_path, [])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("override", [
    "study.strengths.smallest=0", "study.gains.largest=1e-9", "study.strengths.points=3"])
def test_a_grid_without_a_slope_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="is no grid: 0 < smallest < largest, and 4 points"):
        run(composed(override), tmp_path, [])
    assert not any(tmp_path.iterdir())


# One linear layer under squared error: the output settles at a + e with e = h (y - a) / (1 + h), so that the
# estimate is 1 / (1 + h) of the gradient; Euler steps of size s leave (1 - s (1 + h))^n of e undone.
LINEAR = ("arch.hidden=[]", "relax=gradient_flow", "relax.tol=0", "relax.max_steps=20", "relax.step_size=0.1")


def test_each_part_of_the_error_is_the_closed_form() -> None:
    found = certificate("algo=pc", *LINEAR, "nudge.strength=0.2", "precision=float64")
    for point in (p for p in [found.own, *found.points] if p.value > 1e-4):
        h, left = point.value, (1 - 0.1 * (1 + point.value)) ** 20
        assert math.isclose(point.bias, h / (1 + h), rel_tol=1e-8)
        assert math.isclose(point.unfinished, left / (1 + h), rel_tol=1e-8)
        assert math.isclose(point.total, (h + left) / (1 + h), rel_tol=1e-8)
        assert math.isnan(point.round_off)  # float64 is what precisions are held against


def test_rounded_products_are_round_off_and_change_no_other_part() -> None:
    """Bias and unfinished relaxation are measured in float64, whatever the precision. The gradient of a linear layer
    is off by a few units of 2^-8, of 2^-24 in float32."""
    words = ("algo=pc", "arch.hidden=[]", "nudge.strength=1e-3", "study.strengths.points=5")
    low, single = (certificate(*words, f"precision={precision}").own for precision in ("bf16", "float32"))
    assert (low.bias, low.unfinished) == (single.bias, single.unfinished)
    assert 2**-12 < low.round_off < 10 * 2**-8 and single.round_off < 100 * 2**-24


def test_round_off_and_bias_meet_at_the_suggested_strength() -> None:
    """In state coordinates the bias falls as h and round-off rises as eps / h: they meet near sqrt(eps) = 3e-4."""
    found = certificate("algo=pc", "relax.coordinates=state", "relax.tol=1e-12", "relax.max_steps=30")
    assert 3e-5 < found.suggestion.value < 3e-3
    assert found.suggestion.total < min(found.points[0].total, found.points[-1].total) / 100
    first, last = found.points[12], found.points[-1]
    rise, fall = math.log(last.round_off / first.round_off), math.log(first.value / last.value)
    assert math.isclose(rise, fall, rel_tol=0.2)


def test_the_study_writes_the_same_numbers_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(composed("algo=pc", "study.strengths.points=8", "study.gains.points=5"), tmp_path, [])
    whole, summary = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("certify", "summary"))
    found = {key: value for key, value in summary.items() if not key.startswith("provenance/")}
    assert whole["summary"] == found
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["bias"]) for row in rows[:8]] == [p["bias"] for p in whole["points"]]
    assert len(rows) == 8  # backprop is the reference at any gain
    assert (tmp_path / "certify.png").read_bytes().startswith(b"\x89PNG")
    assert summary["sentence"] in capsys.readouterr().out


@pytest.mark.parametrize("overrides, said, unsaid", [
    (["nudge=centered"], "nodes [1.0, -1.0] x 0.1", "noise"),
    (["nudge=holomorphic", "arch.activation=tanh"], "x 0.1, turned to 4 points of a circle, ", "noise"),
    (["nudge=centered", "noise.readings=1e-3", "noise.reading_bits=8"], "noise of readings 0.001, reading_bits 8",
     "turned"),
])
def test_a_certificate_names_what_it_certifies(overrides: list[str], said: str, unsaid: str) -> None:
    found = composition(build(program.composed("algo=lifted", "nudge.strength=0.1", *overrides)).learning)
    assert said in found and unsaid not in found


def test_the_table_shows_the_parts_of_the_closed_form() -> None:
    """h = 0.2: h / (1 + h) = 0.1667, (1 - 0.1 (1 + h))^20 / (1 + h) = 0.0646, together 0.2313."""
    found = certificate("algo=pc", *LINEAR, "nudge.strength=0.2", "precision=float64")
    now = {line[2:27].strip(): line[27:].split()[0] for line in lines(found) if line.startswith("  ")}
    assert (now["nudge bias"], now["unfinished relaxation"], now["all of it"]) == ("0.17", "0.065", "0.23")
    assert found.verdict.sentence in "\n".join(lines(found))


def test_the_table_shows_the_regime_of_the_closed_form() -> None:
    """H = 1 + h = 1.2, so that steps up to 2 / 1.2 settle, and 0.88^20 of the way is left, 0.88^40 of the energy."""
    found = certificate("algo=pc", *LINEAR, "nudge.strength=0.2", "precision=float64")
    now = {line[2:27].strip(): line[27:].split()[0] for line in lines(found) if line.startswith("  ")}
    assert (now["largest stable step"], now["work done"], now["cosine to one sweep"]) == ("1.67", "99.4%", "1.000000")
    assert flat(found)["probe/largest_eigenvalue"] == pytest.approx(1.2, rel=1e-9)


@pytest.mark.parametrize("overrides, verdict, order", [
    (["algo=pc", "feedback=random"], "feedback alignment", 1),
    (["algo=lifted", "nudge=centered", "feedback=sign"], "feedback alignment", 2),
    (["algo=chl", "feedback=random"], "feedback alignment", 1),
], ids=lambda value: "-".join(value) if isinstance(value, list) else None)
def test_without_an_energy_the_limit_is_feedback_alignment(overrides: list[str], verdict: str, order: int) -> None:
    found = certificate(*overrides)
    said = "\n".join(lines(found))
    assert found.verdict.name == verdict and found.order.confirms(order, margin=0.1)
    assert "energy contract" not in said and "energy                   none" in said
    assert "backprop with those weights for the transposes: feedback alignment" in said
    assert "approximates feedback alignment: yes" in found.verdict.sentence
    keys = flat(found)
    assert keys["energy"] == "none" and keys["reference"] == "feedback alignment"
    assert "own/to_feedback_alignment" in keys and not any("to_backprop" in key for key in keys)
    assert keys.keys() & {"probe/stable_step", "probe/work_done"} == set()


def test_without_an_energy_equilibrium_propagation_has_no_gradient_of_its_own() -> None:
    """Its estimate tends to that of a vector field, which is no gradient (Scellier et al. 2018), and to feedback
    alignment as the gain falls."""
    found = certificate("algo=ep_centered", "feedback=random")
    assert found.verdict.name == "neither"
    assert found.verdict.sentence == "neither feedback alignment nor its own equilibrium gradient"
    assert found.gain_order.confirms(1, margin=0.1)
