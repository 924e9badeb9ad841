"""No certificate says what theory denies: energies of known limit, smooth and kinked, in both precisions; and errors
drawn from known laws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from known_energies import BACKPROP, CONTRADICTORY, OWN, HardlyShrunk, Hopfield, Lifted, Shifted, Shrunk, Skewed
from omegaconf import DictConfig

import ebmrun.config  # noqa: F401  (registers the schema)
from ebmrun.errors import ConfigError
from ebmrun.experiment import Parts, build, first_batch
from ebmrun.studies.certify.certificate import Certificate, lines
from ebmrun.studies.certify.error_parts import Bench, Point
from ebmrun.studies.certify.study import certify, referred
from ebmrun.studies.certify.verdict import judge, judge_clamped, power
from ebmrun.theory.learning import EnergyLearning

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("arch.hidden=[6]", "trainer.batch_size=4", "study.strengths.points=9", "study.gains.points=4")
KINKED = {"relu", "hard_sigmoid"}


def composed(energy: type, *overrides: str) -> tuple[Parts, EnergyLearning, DictConfig]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", ["study=certify", "device=cpu", "logger=csv", "algo=pc",
                                 f"energy._target_=known_energies.{energy.__name__}", *overrides])
    parts = build(cfg)
    return parts, parts.algorithm, cfg


def certificate(energy: type, *overrides: str) -> Certificate:
    return certify(*composed(energy, *overrides))


def require_truth(found: Certificate, truth: str, order: int, units: str) -> None:
    """The verdict is that of theory. Between the nearest kink and round-off too few points may be left to tell an
    order, and then none is told."""
    assert found.verdict.name == truth, found.verdict.sentence
    assert power(found.order) in ((order, None) if units in KINKED else (order,)), found.order


@pytest.mark.parametrize("energy", [energy for energy in (*BACKPROP, *OWN) if energy not in (Skewed, Hopfield)],
                         ids=lambda energy: energy.__name__)
def test_the_verdict_is_that_of_theory(energy: type) -> None:
    found = certificate(energy, "nudge=centered", "arch.activation=tanh", *SMALL)
    require_truth(found, "backprop" if energy in BACKPROP else "own equilibrium", 2, "tanh")


@pytest.mark.parametrize("nudge, order", [("single", 1), ("centered", 2), ("fourth_order", 4)])
def test_kinks_decide_nothing(nudge: str, order: int) -> None:
    """Of twelve thousand rectified units one lies within any strength but the smallest of its kink."""
    found = certificate(Lifted, f"nudge={nudge}", "arch.activation=relu")
    require_truth(found, "backprop", order, "relu")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("units", ["tanh", "relu"])
@pytest.mark.parametrize("energy", [*BACKPROP, *OWN], ids=lambda energy: energy.__name__)
def test_no_verdict_is_false(energy: type, units: str, precision: str, seed: int) -> None:
    if energy is Hopfield and units == "relu":
        units = "hard_sigmoid"  # rectified units with full feedback need not have an equilibrium
    found = certificate(energy, "nudge=centered", f"arch.activation={units}", f"precision={precision}", f"seed={seed}",
                        "arch.hidden=[8,6]", "trainer.batch_size=4", "study.gains.points=4")
    require_truth(found, "backprop" if energy in BACKPROP else "own equilibrium", 2, units)


@pytest.mark.parametrize("energy", CONTRADICTORY, ids=lambda energy: energy.__name__)
def test_a_wrong_feedback_gets_no_verdict(energy: type) -> None:
    with pytest.raises(ConfigError, match=rf"{energy.__name__}\.(error_)?feedback contradicts its value\(\)"):
        certificate(energy, "nudge=centered", "arch.activation=tanh", *SMALL)


@pytest.mark.parametrize("energy, h", [(Shrunk, lambda y: 0.9 * y), (HardlyShrunk, lambda y: 0.999 * y),
                                       (Shifted, lambda y: y + 0.1)], ids=["Shrunk", "HardlyShrunk", "Shifted"])
def test_the_reference_of_a_moved_equilibrium_is_backprop_in_its_network(energy: type, h) -> None:
    """The network of units h(f), by autograd."""
    parts, learning, _ = composed(energy, "nudge=centered", "arch.activation=tanh", "precision=float64", *SMALL)
    (x, y), network, bench = first_batch(parts), parts.network, Bench(parts)
    state = x
    for ((_, affine),), f in zip(network.edges, network.activations):
        state = h(f(affine(state)))
    own = torch.cat([g.flatten() for g in torch.autograd.grad(parts.cost.value(state, y).mean(), network.weights)])
    reference, gradient = referred(bench, learning, bench.free_distance(learning))
    assert reference.name == "implicit" and reference.settled
    torch.testing.assert_close(gradient, own, rtol=1e-9, atol=1e-12)
    assert math.isclose(reference.gap, float((own - bench.backprop).norm() / bench.backprop.norm()), rel_tol=1e-6)


def test_a_single_layer_has_no_feedback_to_settle() -> None:
    """No layer above sends anything: the free equilibrium of the Hopfield energy is the forward pass."""
    found = certificate(Hopfield, "nudge=centered", "arch.output=sigmoid", *SMALL, "arch.hidden=[]")
    assert found.reference.name == "implicit" and found.reference.gap < 1e-9
    require_truth(found, "backprop", 2, "sigmoid")


def test_nothing_is_fitted_to_a_reference_that_did_not_settle() -> None:
    """A chain of rectified units that feed each other by weights beyond 1 has no equilibrium."""
    found = certificate(Hopfield, "nudge=centered", "arch.activation=relu", "arch.gain=3", *SMALL)
    assert not found.reference.settled
    assert found.verdict.name == "cannot tell" and "energy.feedback_gain" in found.verdict.sentence
    assert found.points == found.gain_points == [] and found.order is None
    assert found.verdict.sentence in "\n".join(lines(found))


# ---- errors of known laws, all of them of relaxations that settled

STRENGTHS = np.geomspace(0.3, 1e-8, 24)


def points(errors: np.ndarray, residuals: np.ndarray | float = 0.0) -> list[Point]:
    left = np.broadcast_to(residuals, errors.shape)
    return [Point(h, e, e, r) for h, e, r in zip(STRENGTHS.tolist(), errors.tolist(), left.tolist())]


@pytest.mark.parametrize("errors, verdict, words", [
    (STRENGTHS, "backprop", "order 1 in"),
    (STRENGTHS**2 + 1e-16 / STRENGTHS, "backprop", "order 2 in"),
    (STRENGTHS ** (1 / 3), "backprop", "order 0.33 in"),
    (1e-16 + 0 * STRENGTHS, "exact", "exactly"),
    (STRENGTHS**4 + 5e-16, "backprop", "order 4 in"),
    (STRENGTHS**2 + 0.3, "neither", "neither"),
    (STRENGTHS + 1e-5, "neither", "neither"),
    # One kink within 1e-7, which counts for a thousandth: it is crossed by all strengths but the last few.
    (STRENGTHS**2 + 1e-3 * (STRENGTHS > 1e-7), "backprop", "to 1e-16, at an order that the points do not tell"),
    # As many kinks as strengths, each of another weight: the error falls by its root, and by no law.
    (STRENGTHS**0.5 * np.tile([1.0, 30.0, 0.05, 2.0], 6), "cannot tell", "neither falls to nothing nor stays"),
    (1e-5 * np.tile([1.0, 30.0, 3.0, 100.0], 6), "cannot tell", "neither falls to nothing nor stays"),
], ids=["first", "second with round-off", "a third", "nothing", "fourth", "other limit", "close limit", "one kink",
        "many kinks", "noise"])
def test_errors_of_a_known_law(errors: np.ndarray, verdict: str, words: str) -> None:
    found = judge(points(errors), "λ", None)
    assert found.name == verdict and words in found.sentence


def test_the_distance_of_the_reference_tells_backprop_from_an_equilibrium_of_its_own() -> None:
    assert judge(points(STRENGTHS), "λ", 1e-12).name == "backprop"
    found = judge(points(STRENGTHS), "λ", 0.25)
    assert found.name == "own equilibrium" and "0.25 from backprop" in found.sentence


def test_unsettled_points_decide_nothing() -> None:
    """What is left to relax exceeds the error itself at all strengths but three."""
    left = np.where(np.arange(24) < 3, 0, 1.0)
    found = judge(points(STRENGTHS, left), "λ", None)
    assert found.name == "cannot tell" and "settles at 3 of 24 values of λ" in found.sentence
    exact_where_settled = points(np.full(24, 1e-16), np.where(np.arange(24) < 12, 1.0, 0))
    assert "at any strength" not in judge(exact_where_settled, "λ", None).sentence


def test_a_strength_that_states_cannot_hold_is_no_limit() -> None:
    """Below 1e-16 a state in float64 loses the whole displacement, and the estimate is 0: an error of 1 for ever."""
    faint = [Point(h, 1.0, 1.0, 0.0) for h in np.geomspace(1e-10, 1e-20, 24).tolist()]
    assert judge(faint, "λ", None).name == "cannot tell"


def test_clamping_takes_no_limit_at_full_feedback() -> None:
    """Three layers lose 1e-16 / gain^2 of their first message: least where both errors are 6e-6."""
    falling = points(STRENGTHS + 1e-16 / STRENGTHS**2)
    own = Point(1.0, 0.3, 0.3, 0.0)
    found = judge_clamped(falling, "γ", 1.0, own)
    assert found.name == "neither" and "backprop, order 1 in γ" in found.sentence
    weak = judge_clamped(falling, "γ", 0.01, Point(0.01, 0.01, 0.01, 0.0))
    assert weak.name == "backprop" and "order 1 in γ" in weak.sentence
    # Digits that are lost at a falling gain leave an error that stays, which is no limit of the gradient's.
    assert judge_clamped(points(0.7 + 0 * STRENGTHS), "γ", 0.01, own).name == "cannot tell"
