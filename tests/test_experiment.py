"""From a configuration to its parts: what the defaults are, what fits together, and what is refused."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from image_files import write_idx
from program import composed

from ebmrun.command import cli
from ebmrun.errors import ConfigError
from ebmrun.experiment import build, first_batch, references, run
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.energies import Predictive
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.references import Backprop, Implicit
from ebmrun.training.optimizers import optimizer
from ebmrun.training.run import train
from ebmrun.training.summary import summarise


def test_the_defaults_are_the_setting_of_the_paper(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", train=100)
    cfg = composed("algo=pc", "dataset=mnist", f"dataset.root={tmp_path}")
    parts = build(cfg)
    shapes = [tuple(p.shape) for p in parts.network.parameters()]
    assert shapes == [(128, 784), (128,), (64, 128), (64,), (10, 64), (10,)]
    assert [type(f).__name__ for f in parts.network.activations] == ["Relu", "Relu", "Identity"]
    assert isinstance(parts.cost, SquaredError) and isinstance(parts.algorithm, EnergyLearning)
    assert isinstance(parts.algorithm.energy, Predictive) and parts.algorithm.energy.feedback_gain == 1
    assert parts.algorithm.nudge.strengths == [1e-4] and parts.algorithm.nudge.coefficients == ([1e4], 0)
    assert parts.config.trainer.batch_size == 64 and parts.config.alignment.every == 10
    inputs = parts.dataset.train.inputs
    assert (inputs.shape, float(inputs.min()), float(inputs.max())) == ((100, 1, 28, 28), -1, 1)
    (group,) = optimizer(cfg, parts.network).param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (6.4e-3, 0.9, 0)
    assert group["lr"] == pytest.approx(1e-4 * 64)  # on the mean of a batch, 1e-4 on its sum


def test_every_algorithm_starts_from_the_same_weights() -> None:
    nets = [build(composed(f"algo={algo}")).network for algo in ("bp", "pc", "lifted", "chl")]
    for parameters in zip(*(net.parameters() for net in nets)):
        assert all(torch.equal(parameters[0], p) for p in parameters)
    single, double = (build(composed(f"precision={p}")).network for p in ("float32", "float64"))
    for p, q in zip(single.parameters(), double.parameters()):
        assert (p.dtype, q.dtype) == (torch.float32, torch.float64) and torch.equal(p, q.float())
    other = build(composed("seed=1")).network
    assert not torch.equal(next(other.parameters()), next(nets[0].parameters()))


def test_the_references_are_those_that_were_asked_for() -> None:
    kinds = {}
    for wanted in ("backprop", "implicit", "both"):
        cfg = composed("algo=ep", f"alignment.reference={wanted}")
        kinds[wanted] = {name: type(r) for name, r in references(build(cfg), cfg).items()}
    assert kinds == {
        "backprop": {"alignment": Backprop},
        "implicit": {"alignment": Implicit},
        "both": {"alignment": Backprop, "alignment_implicit": Implicit},
    }


def test_backprop_can_be_held_against_the_equilibrium_of_any_energy() -> None:
    cfg = composed("algo=bp", "energy=hopfield", "nudge=centered", "alignment.reference=implicit",
                   "arch.activation=tanh", "arch.hidden=[8]", "precision=float64", "energy.feedback_gain=1e-3")
    parts = build(cfg)
    x, y = parts.dataset.test.inputs[:20], parts.dataset.test.targets[:20]
    (reference,) = references(parts, cfg).values()
    found, truth = reference.estimate(parts.network, x, y), parts.algorithm.estimate(parts.network, x, y)
    assert found.converged
    gap = math.sqrt(sum(float((g - t).square().sum()) for g, t in zip(found.gradients, truth.gradients)))
    size = math.sqrt(sum(float(t.square().sum()) for t in truth.gradients))
    assert 0 < gap / size < 1e-2  # O(feedback gain)


def test_a_learning_rate_for_each_layer() -> None:
    cfg = composed("optim.lr=[0.1,0.2,0.3]")
    network = build(cfg).network
    groups = optimizer(cfg, network).param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.2, 0.3]
    for group, layer in zip(groups, network.layers):
        assert [id(p) for p in group["params"]] == [id(p) for p in layer.parameters()]


def test_another_optimizer() -> None:
    cfg = composed("optim=adam", "optim.lr=1e-2")
    adam = optimizer(cfg, build(cfg).network)
    assert isinstance(adam, torch.optim.Adam) and adam.param_groups[0]["lr"] == 1e-2


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["optim.lr=[0.1,0.2]"], r"optim\.lr=\[0\.1, 0\.2\] has 2 entries for 3 layers"),
        (["optim.lr=[]"], r"optim\.lr=\[\] has 0 entries"),
        (["optim.lr=-0.1"], r"optim\.lr=-0\.1 must be"),
        (["optim.lr=nan"], r"optim\.lr=nan must be"),
        (["optim.lr=true"], r"optim\.lr=True must be"),
        (["optim.lr=fast"], r"optim\.lr=fast must be"),
        (["optim.momentum=-1"], r"optim=.*does not build.*momentum"),
        (["+optim.speed=1"], r"optim=.*does not build.*speed"),
    ],
)
def test_optimizers_that_cannot_be(overrides: list[str], message: str) -> None:
    cfg = composed(*overrides)
    with pytest.raises(ConfigError, match=message):
        optimizer(cfg, build(cfg).network)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["algo=ep", "nudge=single"], r"Hopfield does not declare feedforward = True: use nudge=one_sided or centered"),
        (["algo=pc_first_step", "relax.order=synchronous"], r"order=synchronous has no .*set relax\.order=sweep"),
        (["algo=chl", "relax=frozen"], r"relax\.frozen=True holds the forward pass.* no equilibrium of Hopfield"),
        (["algo=chl", "cost=cross_entropy"], "match them"),
        (["algo=chl", "cost=cross_entropy", "arch.output=tanh"], r"arch\.output to identity or softmax"),
        (["arch.activation=gelu"], "activation 'gelu' is unknown: choose one of identity, relu"),
        (["arch.activation=softmax"], "layer1 has softmax units: they belong at the output"),
        (["energy.feedback_gain=0"], r"energy\.feedback_gain=0 must be a number in \(0, 1\]"),
        (["energy.feedback_gain=1.5"], r"energy\.feedback_gain=1\.5 must be"),
    ],
)
def test_parts_that_do_not_fit(overrides: list[str], message: str) -> None:
    with pytest.raises(Exception) as caught:  # Hydra wraps what a part itself raises
        build(composed(*overrides))
    status, line = cli.judge(caught.value)
    assert status == 2 and "\n" not in line
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(line)


def test_a_gain_that_drowns_a_layer_is_warned_of() -> None:
    # In float32 states carry seven digits; 1e-4 to the power of two is below the last of them.
    weak = ("algo=pc_weak_feedback", "relax.coordinates=state", "energy.feedback_gain=1e-4")
    with pytest.warns(UserWarning, match=r"feedback_gain=0\.0001 leaves layer 1 of 3 no digits in float32: use 0\.00"):
        build(composed(*weak))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(composed(*weak, "precision=float64"))
        build(composed(*weak, "relax.coordinates=error"))


@pytest.mark.parametrize("algo", ["bp", "pc", "ep", "rbp"])
def test_an_algorithm_has_rounded_products_and_its_reference_has_not(algo: str) -> None:
    words = (f"algo={algo}", "arch.hidden=[12]", "alignment.reference=both")
    cfg, whole_cfg = composed(*words, "precision=bf16"), composed(*words)
    parts, whole = build(cfg), build(whole_cfg)
    x, y = parts.dataset.test.inputs[:20], parts.dataset.test.targets[:20]
    for name, reference in references(parts, cfg).items():
        exact = references(whole, whole_cfg)[name].estimate(whole.network, x, y)
        for g, r in zip(reference.estimate(parts.network, x, y).gradients, exact.gradients, strict=True):
            assert torch.equal(g, r)
    found, exact = (each.algorithm.estimate(each.network, x, y) for each in (parts, whole))
    apart = [float((g - r).norm() / r.norm()) for g, r in zip(found.gradients, exact.gradients, strict=True)]
    assert all(2**-12 < gap < 2**-3 for gap in apart)  # float32 rounds by 2^-24, bfloat16 by 2^-8
    output = parts.algorithm.predict(parts.network, x).output
    assert torch.equal(output, found.output) and not torch.equal(output, exact.output)


def test_whole_products_are_those_of_the_algorithm_itself() -> None:
    for precision in ("float32", "float64"):
        parts = build(composed(f"precision={precision}"))
        assert isinstance(parts.algorithm, EnergyLearning) and parts.learning is parts.algorithm
    assert isinstance(build(composed("precision=bf16")).learning, EnergyLearning)
    assert build(composed("precision=bf16", "algo=bp")).learning is None


@pytest.mark.parametrize("words", [
    ["algo=pc", "arch=cnn", "arch.pooling=max"], ["algo=lifted", "arch=resnet", "arch.channels=[2,3]", "arch.blocks=1"],
    ["algo=pc", "energy._target_=networks.Coshine"], ["algo=pc", "nudge=holomorphic", "arch.activation=tanh"],
    ["algo=ep", "nudge.random_sign=true"], ["algo=pc_clamped"], ["algo=chl"], ["algo=tbp"],
    ["algo=pc", "relax=gradient_flow", "relax.coordinates=error"], ["algo=pc", "probe.every=1"],
], ids=" ".join)
def test_any_composition_may_round_its_products(words: list[str], tmp_path: Path, monkeypatch) -> None:
    """By little more than float32 the gradient of the first batch differs, and a training goes its way."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    small = ("trainer.batch_size=16", "trainer.max_steps=2", "trainer.log_every=1", "alignment.every=1", "logger=csv")
    cfg = composed(*words, *small, "precision=bf16", "dataset.limit=64")
    run(cfg, tmp_path, [])
    assert summarise(tmp_path / "metrics.csv")["steps"] == 2
    parts, whole = build(cfg), build(composed(*words, *small, "dataset.limit=64"))
    (x, y), drawn = first_batch(parts), {}
    if parts.config.nudge.random_sign:
        drawn = {"signs": torch.ones(16, 1)}
    found, exact = (each.algorithm.estimate(each.network, x, y, **drawn) for each in (parts, whole))
    gap = math.hypot(*(float((g - r).norm()) for g, r in zip(found.gradients, exact.gradients, strict=True)))
    assert 2**-12 < gap / math.hypot(*(float(r.norm()) for r in exact.gradients)) < 2**-3


def test_a_study_is_named_by_its_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed("trainer.max_steps=3", "alignment.every=2")
    assert cfg.study.run == "ebmrun.training.run.train"
    run(cfg, tmp_path / "by-name", [])
    train(cfg, tmp_path / "itself", [])
    found = [summarise(tmp_path / name / "metrics.csv") for name in ("by-name", "itself")]
    for each in found:
        del each["time/step_ms"]
    assert found[0] == found[1] and found[0]["steps"] == 3


def test_the_summary_reduces_each_key_as_it_should(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,epoch,train/loss,test/accuracy,relax/converged,alignment/angle,alignment/cosine\n"
        "1,0.5,3,,1,10,\n2,1,2,0.5,0,60,\n3,1.5,1,,1,20,\n4,2,4,0.75,1,,\n")
    assert summarise(tmp_path / "metrics.csv") == {
        "steps": 4, "epoch": 2, "train/loss": 4, "test/accuracy": 0.75, "relax/converged": 0.75, "alignment/angle": 20}
