"""The presets: one family, composed from parts, with no branch on a name."""

from __future__ import annotations

import ast
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import distance, slope
from program import composed

from ebmrun import experiment
from ebmrun.command.cli import CONF, PACKAGE
from ebmrun.errors import ConfigError
from ebmrun.theory.cost import CrossEntropy
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.references import Backprop, Implicit

PRESETS = ["bp", "pc", "pc_weak_feedback", "pc_first_step", "pc_fixed_prediction", "pc_clamped", "ep", "ep_centered",
           "chl", "lifted", "rbp", "tbp", "pc_incremental", "dual_propagation"]
FAMILY = PRESETS[1:-4]  # those that nudge and take any energy
RANDOM = ["precision=float64", "arch.hidden=[16,12,10]", "arch.activation=tanh", "device=cpu"]
TIGHT = ["relax.tol=1e-12", "relax.max_steps=3000"]


@pytest.fixture(autouse=True)
def tests_beside_the_configuration(monkeypatch):
    """Energies of a user's own are imported from where they lie: here, from networks.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def parts(*overrides: str) -> experiment.Parts:
    return experiment.build(composed("dataset=digits", *overrides))


def examples(built: experiment.Parts, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs in the shape of the data, drawn at random, with one-hot targets."""
    draw, dtype, classes = torch.Generator().manual_seed(0), built.config.dtype, built.dataset.classes
    x = torch.randn(count, *built.dataset.shape, generator=draw, dtype=torch.float64).to(dtype)
    return x, torch.eye(classes, dtype=dtype)[torch.randint(classes, (count,), generator=draw)]


def strong(algorithm: EnergyLearning, strength: float) -> EnergyLearning:
    """The same algorithm with another strength of its nudge."""
    return replace(algorithm, nudge=replace(algorithm.nudge, strength=strength))


def error(built: experiment.Parts, algorithm=None, reference=None) -> float:
    x, y = examples(built)
    algorithm = algorithm or built.algorithm
    found = algorithm.estimate(built.network, x, y)
    unmeasured = isinstance(algorithm, Backprop) or getattr(getattr(algorithm, "relaxation", None), "frozen", False)
    assert found.converged is (None if unmeasured else True)
    right = (reference or Backprop(built.cost)).estimate(built.network, x, y)
    return distance(found.gradients, right.gradients)


# ---- what a preset is

def test_the_presets_are_the_family():
    assert sorted(path.stem for path in (CONF / "algo").glob("*.yaml")) == sorted(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_few_lines_that_name_their_paper(name):
    lines = (CONF / "algo" / f"{name}.yaml").read_text().splitlines()
    assert sum(not line.startswith("#") for line in lines) <= 12
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# ") and re.search(r"(19|20)\d\d", lines[1]), "the header cites its source with a year"


def test_no_code_knows_the_name_of_a_preset():
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert not said & set(PRESETS), path


def test_no_code_outside_the_energies_knows_which_energies_there_are():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name != "energies":
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not names & {"Predictive", "Hopfield", "Lifted"}, path


# ---- what a preset estimates

@pytest.mark.parametrize("cost", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("name", ["bp", "pc_first_step", "pc_fixed_prediction"])
def test_exact_presets_are_backprop(name, cost):
    assert error(parts(f"algo={name}", f"cost={cost}", *RANDOM)) < 1e-12


@pytest.mark.parametrize("name", ["pc", "lifted"])
def test_weakly_nudged_presets_tend_to_backprop_with_their_strength(name):
    built, strengths = parts(f"algo={name}", *RANDOM, *TIGHT), (1e-2, 1e-3, 1e-4)
    found = [error(built, strong(built.algorithm, s)) for s in strengths]
    assert slope(found, strengths) == pytest.approx(1, abs=0.1)
    assert error(parts(f"algo={name}", *RANDOM)) == pytest.approx(found[-1], rel=0.05)  # as shipped, at 1e-4


@pytest.mark.parametrize("name", ["pc_weak_feedback", "chl"])
def test_clamped_presets_tend_to_backprop_with_their_feedback_gain(name):
    gains = (1e-1, 1e-2, 1e-3)
    found = [error(parts(f"algo={name}", f"energy.feedback_gain={g}", *RANDOM, *TIGHT)) for g in gains]
    assert slope(found, gains) == pytest.approx(1, abs=0.1)
    assert error(parts(f"algo={name}", *RANDOM)) == pytest.approx(found[1], rel=0.05)  # as shipped, at 0.01


@pytest.mark.parametrize("name, order, strengths", [
    ("ep", 1, (1e-2, 1e-3, 1e-4)), ("ep_centered", 2, (1e-1, 3e-2, 1e-2)),
])
def test_equilibrium_propagation_tends_to_the_implicit_gradient(name, order, strengths):
    built = parts(f"algo={name}", *RANDOM, *TIGHT)
    found = [error(built, strong(built.algorithm, s), Implicit(built.algorithm)) for s in strengths]
    assert slope(found, strengths) == pytest.approx(order, abs=0.1)
    assert error(built, Implicit(built.algorithm)) > 0.01  # which is not backprop's at full feedback


@pytest.mark.parametrize("name, overrides", [("rbp", []), ("tbp", ["algo.steps=1000"])])
def test_recurrent_backpropagation_is_the_implicit_gradient(name, overrides):
    built = parts(f"algo={name}", *overrides, *RANDOM, *TIGHT)
    assert error(built, reference=Implicit(built.algorithm.learning)) < 1e-9


def test_truncated_backpropagation_is_on_its_way_there():
    built = parts("algo=tbp", *RANDOM, *TIGHT)
    reference, (x, y) = Implicit(built.algorithm.learning), examples(built)
    truth = reference.estimate(built.network, x, y).gradients
    found = [distance(replace(built.algorithm, steps=k).estimate(built.network, x, y).gradients, truth)
             for k in (4, built.algorithm.steps, 60)]
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("name", ["rbp", "tbp"])
def test_recurrent_backpropagation_takes_any_energy_and_asks_for_no_nudge(name):
    for energy in ("predictive", "lifted", "hopfield"):
        learning = parts(f"algo={name}", f"energy={energy}", "nudge=single", "relax.tol=1e-5").algorithm.learning
        assert learning.relaxation.tol == 1e-5


def test_prospective_configuration_is_not_backprop():
    assert error(parts("algo=pc_clamped", *RANDOM, *TIGHT)) > 0.05


# ---- what a user may override

@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("key, value, found", [
    ("nudge.strength", 0.01, lambda a: a.nudge.strength),
    ("energy.feedback_gain", 0.5, lambda a: a.energy.feedback_gain),
    ("relax.max_steps", 77, lambda a: a.relaxation.max_steps),
    ("relax.tol", 1e-7, lambda a: a.relaxation.tol),
    ("relax.check_every", 3, lambda a: a.relaxation.check_every),
    ("relax.coordinates", "state", lambda a: a.relaxation.coordinates),
])
def test_any_key_of_a_preset_can_be_set(name, key, value, found):
    assert found(parts(f"algo={name}", f"{key}={value}").algorithm) == value


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("energy, kind", [("predictive", Predictive), ("hopfield", Hopfield), ("lifted", Lifted)])
def test_any_preset_takes_any_energy_nudge_relaxation_and_cost(name, energy, kind):
    algorithm = parts(f"algo={name}", f"energy={energy}", "nudge=centered", "relax=gradient_flow",
                      "cost=cross_entropy").algorithm
    assert isinstance(algorithm, EnergyLearning) and isinstance(algorithm.energy, kind)
    assert algorithm.nudge.nodes == [1.0, -1.0] and algorithm.relaxation.step_size == 0.1
    assert isinstance(algorithm.cost, CrossEntropy) and algorithm.energy.feedforward == (kind is not Hopfield)


def test_a_preset_with_its_energy_replaced_keeps_the_rest():
    plain = parts("algo=ep").algorithm
    algorithm = parts("algo=ep", "energy=lifted", "nudge.strength=0.01").algorithm
    assert isinstance(algorithm.energy, Lifted) and algorithm.nudge.strength == 0.01
    assert algorithm.nudge.nodes == [1.0, 0.0] and algorithm.relaxation == plain.relaxation


@pytest.mark.parametrize("name", ["pc", "lifted", "ep_centered", "chl", "pc_first_step"])
def test_presets_take_a_convolutional_network(name):
    built = parts(f"algo={name}", "arch=cnn", "arch.channels=[3,4]", "arch.kernel=3", "arch.activation=tanh",
                  "precision=float64")
    x, y = examples(built, 4)
    estimate = built.algorithm.estimate(built.network, x, y)
    assert [g.shape for g in estimate.gradients] == [p.shape for p in built.network.parameters()]
    assert all(bool(g.isfinite().all()) for g in estimate.gradients)


def test_a_stencil_can_be_written_on_the_command_line():
    built = parts("algo=ep", "nudge.nodes=[1.0,2.0,0.0]", "nudge.weights=[2.0,-0.5,-1.5]", *RANDOM, *TIGHT)
    assert built.algorithm.nudge.order == 2
    strengths = (3e-2, 1e-2)
    found = [error(built, strong(built.algorithm, s), Implicit(built.algorithm)) for s in strengths]
    assert slope(found, strengths) == pytest.approx(2, abs=0.2)


def test_the_stencils_that_ship_have_the_orders_they_say():
    orders = {name: parts("algo=ep_centered", "energy=predictive", "arch.activation=tanh",
                           f"nudge={name}").algorithm.nudge.order
              for name in (path.stem for path in (CONF / "nudge").glob("*.yaml"))}
    assert orders == {"single": 1, "one_sided": 1, "negative": 1, "centered": 2, "fourth_order": 4, "clamped": None,
                      "coupled": 1, "coupled_negative": 1, "coupled_centered": 2, "holomorphic": 4,
                      "richardson": 2, "joint": 4}


def test_an_energy_of_ones_own_needs_its_value_alone():
    built = parts("algo=pc", "energy._target_=networks.Coshine", "nudge.strength=1e-3", "relax.tol=1e-9", *RANDOM)
    assert built.algorithm.energy.feedforward
    assert error(built) < 0.01


# ---- what is refused

@pytest.mark.parametrize("overrides, said", [
    (["algo=ep", "nudge=single"], ["nudge.weights", "Hopfield", "one_sided"]),
    (["algo=chl", "nudge.nodes=[inf]", "nudge.weights=[1.0]"], ["nudge.weights", "Hopfield"]),
    (["algo=pc", "energy.feedback_gain=0"], ["energy.feedback_gain=0", "(0, 1]"]),
    (["algo=chl", "energy.feedback_gain=1.5"], ["energy.feedback_gain=1.5", "(0, 1]"]),
    (["algo=chl", "energy.feedback_gain=-0.1"], ["energy.feedback_gain=-0.1"]),
    (["algo=chl", "energy.feedback_gain=nan"], ["energy.feedback_gain=nan"]),
    (["algo=pc_first_step", "relax.order=synchronous"], ["relax.order=synchronous", "relax.order=sweep"]),
    (["algo=pc_first_step", "relax.acceleration=anderson"], ["relax.acceleration=anderson", "relax.acceleration=none"]),
    (["algo=ep", "relax=frozen"], ["relax.frozen=True", "Hopfield"]),
    (["algo=ep_centered", "nudge.strength=1.0"], ["nudge.strength=1.0", "below 1"]),
    (["algo=ep", "nudge=fourth_order", "nudge.strength=1.0"], ["nudges by -2", "below 0.5"]),
    (["algo=pc_first_step", "relax.step_size=0.5"], ["relax.step_size=0.5", "relax.step_size=1"]),
    (["algo=chl", "arch.output=softmax", "cost=squared_error"], ["arch.output=softmax", "SquaredError"]),
    (["algo=chl", "arch.output=tanh"], ["arch.output=tanh", "SquaredError"]),
    (["algo=chl", "cost=cross_entropy"], ["arch.output=identity", "CrossEntropy"]),
    (["algo=tbp", "algo.steps=0"], ["algo.steps=0", "1 or more", "algo=rbp"]),
    (["algo=rbp", "relax=frozen"], ["relax.frozen=True", "Hopfield"]),
    (["algo=rbp", "nudge.random_sign=true"], ["nudge.random_sign=True", "algo=rbp", "leave it out"]),
    (["algo=bp", "nudge.random_sign=true"], ["nudge.random_sign=True", "algo=bp", "leave it out"]),
    (["algo=ep_centered", "nudge.random_sign=true"], ["nudge.random_sign=True", "[1.0, -1.0]", "nudge=one_sided"]),
    (["algo=chl", "nudge.random_sign=true"], ["nudge.random_sign=True", "nudge=one_sided"]),
    (["algo=ep", "nudge.random_sign=true", "nudge.strength=1.0"], ["nudges by -1", "below 1"]),
    (["algo=ep", "nudge=coupled", "arch.output=tanh"], ["arch.output=tanh", "SquaredError"]),
    (["algo=ep", "nudge=coupled", "nudge.strength=1e-7"], ["nudge.strength=1e-07", "float32", "1e-05"]),
    (["algo=ep", "nudge=clamped", "nudge.holds=true"], ["nudge.holds=True", "nudge.holds=false"]),
    (["algo=pc", "arch.output=tanh", "cost=cross_entropy"], ["cross_entropy", "Tanh", "arch.output"]),
    (["algo=pc", "energy._target_=networks.Contradictory"], ["Contradictory.feedback", "value()"]),
    (["algo=pc", "arch._target_=networks.batch_normed"], ["layer1", "BatchNorm"]),
    (["algo=pc", "nudge.strength=0"], ["nudge.strength=0"]),
])
@pytest.mark.usefixtures("untyped")
def test_what_cannot_be_is_refused_with_its_name_and_a_mend(overrides, said):
    with pytest.raises(Exception) as caught:  # Hydra wraps what a part raises as it is built
        parts(*overrides)
    error = caught.value if isinstance(caught.value, ConfigError) else caught.value.__cause__
    assert isinstance(error, ConfigError)
    assert all(word in str(error) for word in said) and "\n" not in str(error), error


@pytest.mark.parametrize("name, output, cost", [
    ("chl", "softmax", "cross_entropy"), ("chl", "identity", "squared_error"), ("pc_clamped", "tanh", "squared_error"),
    ("ep nudge=coupled_centered nudge.strength=1.0", "identity", "squared_error"),  # where a pull has no minimum
])
def test_clamping_is_welcome_where_it_follows_the_cost(name, output, cost):
    assert parts(*f"algo={name}".split(), f"arch.output={output}", f"cost={cost}").algorithm.nudge.clamps


def test_clamped_softmax_follows_cross_entropy_as_the_gain_falls():
    """For G + G* the clamped output sends y - softmax(a), which is the message of cross-entropy."""
    gains = (1e-2, 1e-3)
    found = [error(parts("algo=chl", "arch.output=softmax", "cost=cross_entropy", f"energy.feedback_gain={g}", *RANDOM,
                         *TIGHT)) for g in gains]
    assert slope(found, gains) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("hidden", ["[8]", "[8,8]", "[8,8,8,8]"])
def test_a_gain_that_drowns_a_layer_is_warned_of_with_a_better_one(hidden, precision):
    depth = hidden.count("8") + 1
    eps = torch.finfo(torch.float32 if precision == "float32" else torch.float64).eps
    drowning = f"{eps ** (1 / (depth - 1)) / 2:.1g}"  # layer 1 moves by less than one digit
    case = ["algo=chl", "relax.coordinates=state", f"precision={precision}", f"arch.hidden={hidden}"]
    with pytest.warns(UserWarning, match=f"energy.feedback_gain={float(drowning)} leaves layer . of {depth}") as caught:
        parts(*case, f"energy.feedback_gain={drowning}")
    better = float(re.search(r"use (\S+) or more", str(caught[0].message))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts(*case, f"energy.feedback_gain={better}")
    assert math.log10(better) * (depth - 1) < math.log10(eps) + 4  # and it asks for no more than it needs


def test_a_gain_as_shipped_is_warned_of_nowhere():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in FAMILY:
            parts(f"algo={name}")
