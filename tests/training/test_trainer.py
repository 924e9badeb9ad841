"""The training loop on a data set small enough to check every number that it reports."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebmrun.config import TrainerConfig
from ebmrun.data.sets import Dataset, Split, batches
from ebmrun.errors import ConfigError, RunError
from ebmrun.theory.algorithm import Estimate, Prediction
from ebmrun.theory.architectures import mlp
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.network import Network
from ebmrun.theory.probe import KEYS
from ebmrun.theory.references import Backprop
from ebmrun.training.checkpoint import load
from ebmrun.training.summary import show, summarise
from ebmrun.training.tracking import Tracker
from ebmrun.training.trainer import Trainer
from ebmrun.training.wandb_client import LoggerConfig

EXAMPLES, BATCH, LR = 22, 5, 0.1  # five batches an epoch, the last of two examples


def split(examples: int, seed: int) -> Split:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (examples,), generator=draw)
    targets = torch.nn.functional.one_hot(labels, 3).double()
    return Split(torch.randn(examples, 4, generator=draw, dtype=torch.float64), targets, labels)


def trainer(every: int = 1, test: int = 7, **settings: int) -> Trainer:
    """A linear layer trained by plain gradient descent on the mean of half the squared error."""
    network = initialise(mlp((4,), 3, [], "tanh", "identity"), seed=0).double()
    cost = SquaredError(network.output)
    config = TrainerConfig(**({"epochs": 2, "batch_size": BATCH, "log_every": 1} | settings))
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    dataset = Dataset("random", split(EXAMPLES, 1), split(test, 2))
    return Trainer(network, Backprop(cost), {"alignment": Backprop(cost)}, cost, optimizer, dataset, config, 3, every)


class Rows(Tracker):
    """The real tracker, which also keeps its rows at hand."""

    def __init__(self, folder: Path, columns: list[str]) -> None:
        super().__init__(folder, {}, LoggerConfig(wandb=False), columns)
        self.rows: dict[int, dict[str, Any]] = {}

    def log(self, step: int, metrics: Any) -> None:
        super().log(step, metrics)
        self.rows[step] = dict(metrics)


def train(subject: Trainer, folder: Path, done: int = 0, stop: int | None = None) -> tuple[dict, list[int]]:
    """The rows of a training and the steps at which it left checkpoints; ``stop`` asks it to end within that step."""
    saved: list[int] = []
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return stop is not None and done + asked >= stop

    with Rows(folder, subject.columns) as tracker:
        subject.train(done, tracker, saved.append, stopped)
    return tracker.rows, saved


def weights(network: Network) -> tuple[Tensor, Tensor]:
    weight, bias = network.parameters()
    return weight.detach().clone(), bias.detach().clone()


def outputs(w: Tensor, b: Tensor, part: Split, index: Tensor | slice = slice(None)) -> Tensor:
    return part.inputs[index] @ w.T + b


def test_the_probe_looks_at_its_own_steps_before_the_update(tmp_path: Path) -> None:
    """And a resumed training waits for a row of each of them."""
    seen: list[Tensor] = []

    def look(network: Network, x: Tensor, y: Tensor) -> dict[str, float]:
        seen.append(weights(network)[0])
        return {"probe/stable_step": float(len(x))}

    subject = replace(trainer(every=0, log_every=4), probe=look, probe_every=3)
    first = weights(subject.network)[0]
    rows, _ = train(subject, tmp_path)
    assert sorted(rows) == [3, 4, 5, 6, 8, 9, 10]
    assert {step: row.get("probe/stable_step") for step, row in rows.items()} == {
        3: 5, 4: None, 5: None, 6: 5, 8: None, 9: 5, 10: None}
    assert len(seen) == 3 and not torch.equal(seen[0], first)
    assert set(subject.columns) >= set(KEYS) and not set(trainer().columns) & set(KEYS)
    assert [subject.last_row(done) for done in (2, 3, 4, 7)] == [0, 3, 4, 6]


def test_what_does_not_relax_has_no_regime(tmp_path: Path) -> None:
    rows, _ = train(replace(trainer(), probe_every=1), tmp_path)
    assert not any(key in row for row in rows.values() for key in KEYS)


def test_it_is_gradient_descent_on_the_mean_cost_of_each_batch(tmp_path: Path) -> None:
    subject = trainer()
    w, b = weights(subject.network)
    rows, _ = train(subject, tmp_path)
    data, step = subject.dataset.train, 0
    for epoch in range(2):
        for index in batches(EXAMPLES, BATCH, 3, epoch):
            step += 1
            error = outputs(w, b, data, index) - data.targets[index]
            right = outputs(w, b, data, index).argmax(1) == data.labels[index]
            assert rows[step]["train/loss"] == pytest.approx(float(error.square().sum(1).mean() / 2), rel=1e-12)
            assert rows[step]["train/accuracy"] == pytest.approx(float(right.double().mean()), abs=1e-12)
            assert rows[step]["epoch"] == pytest.approx(step / 5, rel=1e-12)
            w = w - LR * error.T @ data.inputs[index] / len(index)
            b = b - LR * error.mean(0)
    torch.testing.assert_close(weights(subject.network), (w, b), rtol=1e-12, atol=1e-14)
    assert step == max(rows) == 10


@pytest.mark.parametrize("examples", [7, 2300])  # one batch of the evaluation, and two with a rest
def test_the_evaluation_is_a_mean_over_examples(examples: int) -> None:
    subject = trainer(test=examples)
    part = subject.dataset.test
    output = outputs(*weights(subject.network), part)
    found = subject.evaluate()
    assert found.keys() == {"test/loss", "test/accuracy"}
    expected = float((output - part.targets).square().sum() / 2 / examples)
    assert found["test/loss"] == pytest.approx(expected, rel=1e-12)
    assert found["test/accuracy"] == int((output.argmax(1) == part.labels).sum()) / examples


def test_the_test_set_is_measured_after_the_last_update_of_an_epoch(tmp_path: Path) -> None:
    subject = trainer()
    rows, saved = train(subject, tmp_path)
    assert [step for step, row in rows.items() if "test/loss" in row] == saved == [5, 10]
    assert rows[10]["test/loss"] == subject.evaluate()["test/loss"]


def test_the_alignment_is_taken_at_the_weights_of_the_estimate(tmp_path: Path) -> None:
    # Backpropagation beside itself, with weights that move at every step.
    rows, _ = train(trainer(), tmp_path)
    assert all(row["alignment/relative_error"] == 0 and row["alignment/norm_ratio"] == 1 for row in rows.values())
    assert all(row["alignment/cosine"] == pytest.approx(1, abs=1e-15) for row in rows.values())


class Scaled(Backprop):
    """Backpropagation, three times as long."""

    def estimate(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        estimate = super().estimate(network, x, y)
        return replace(estimate, gradients=[3 * g for g in estimate.gradients])


def test_the_gradient_is_measured_against_the_reference_and_not_the_reverse(tmp_path: Path) -> None:
    subject = trainer()
    rows, _ = train(replace(subject, algorithm=Scaled(subject.cost)), tmp_path)
    assert all(row["alignment/norm_ratio"] == pytest.approx(3, rel=1e-12) for row in rows.values())
    assert all(row["alignment/relative_error"] == pytest.approx(2, rel=1e-12) for row in rows.values())


@pytest.mark.parametrize(
    "every, log_every, logged, aligned",
    [
        (0, 3, [3, 5, 6, 9, 10], []),
        (4, 100, [4, 5, 8, 10], [4, 8]),
        (2, 3, [2, 3, 4, 5, 6, 8, 9, 10], [2, 4, 6, 8, 10]),
    ],
)
def test_rows_and_measures_come_as_often_as_asked(
    tmp_path: Path, every: int, log_every: int, logged: list[int], aligned: list[int]
) -> None:
    rows, _ = train(trainer(every, log_every=log_every), tmp_path)
    assert list(rows) == logged
    assert [step for step, row in rows.items() if "alignment/angle" in row] == aligned


class Relaxing(Backprop):
    """Backpropagation that reports what a relaxation might: steps for each example, and a free phase that does not
    settle where an input is larger than 2."""

    def predict(self, network: Network, x: Tensor) -> Prediction:
        return replace(super().predict(network, x), converged=bool(x.max() <= 2))

    def estimate(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        return replace(super().estimate(network, x, y), steps=len(x), residual=0.25, converged=len(x) == BATCH)


RELAXED = {"relax/steps", "relax/residual", "relax/converged", "relax/free_converged"}


@pytest.mark.parametrize("every", [0, 1])
def test_every_key_has_a_column_and_every_column_is_used(tmp_path: Path, every: int) -> None:
    subject = trainer(every)
    relaxing = Relaxing(subject.cost)
    subject = replace(subject, algorithm=relaxing, references={"alignment": relaxing})
    rows, _ = train(subject, tmp_path)
    assert set(subject.columns) == set(rows[10])


def test_what_was_not_measured_is_empty(tmp_path: Path) -> None:
    """Backpropagation relaxes nothing, and as a reference needs no equilibrium."""
    subject = trainer()
    rows, _ = train(subject, tmp_path)
    assert set(subject.columns) - set(rows[10]) == RELAXED | {"alignment/reference_converged"}
    fields = (tmp_path / "metrics.csv").read_text().splitlines()[-1].split(",")
    assert fields.count("") == len(RELAXED) + 1
    assert not RELAXED & set(summarise(tmp_path / "metrics.csv"))


def test_convergence_is_that_of_what_was_relaxed(tmp_path: Path) -> None:
    """The reference is measured on whole batches and the last of an epoch, which alone is smaller."""
    subject = trainer()
    subject = replace(subject, algorithm=Relaxing(subject.cost),
                      references={"alignment": Backprop(subject.cost), "alignment_implicit": Relaxing(subject.cost)})
    rows, _ = train(subject, tmp_path)
    assert [row["relax/converged"] for row in rows.values()] == [True] * 4 + [False] + [True] * 4 + [False]
    assert [row["alignment_implicit/reference_converged"] for row in rows.values()] == [True] * 4 + [False] + (
        [True] * 4 + [False])
    assert not any("alignment/reference_converged" in row for row in rows.values())
    found = summarise(tmp_path / "metrics.csv")
    assert found["relax/converged"] == found["alignment_implicit/reference_converged"] == 0.8
    assert "alignment/reference_converged" not in found


def test_a_free_phase_that_does_not_settle_shows_at_the_evaluation() -> None:
    """Of 2300 examples, the batch of 1000 with a large input in it counts as not settled."""
    subject = trainer(test=2300)
    subject.dataset.test.inputs.clamp_(-1, 1)[1500, 0] = 3
    found = replace(subject, algorithm=Relaxing(subject.cost)).evaluate()
    assert found["relax/free_converged"] == 1300 / 2300


def test_the_summary_names_the_worst_layer_of_most_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = "alignment/relative_error/worst"
    with Rows(tmp_path, [key, f"{key}_layer"]) as tracker:
        for step, (error, layer) in enumerate([(0.1, 3), (0.97, 1), (0.98, 1)], 1):
            tracker.log(step, {key: error, f"{key}_layer": layer})
    found = summarise(tmp_path / "metrics.csv")
    assert (found[key], found[f"{key}_layer"]) == (0.97, 1)
    show(found | {"alignment/reference": "backprop", "algo": "pc", "dataset": "d", "seed": 0}, tmp_path, None)
    assert "  worst layer          0.97 (layer 1)\n" in capsys.readouterr().out


@pytest.mark.parametrize("cap, steps", [(None, 10), (7, 7), (5, 5), (99, 10)])
def test_the_cap_bounds_all_steps(tmp_path: Path, cap: int | None, steps: int) -> None:
    subject = trainer() if cap is None else trainer(max_steps=cap)
    rows, saved = train(subject, tmp_path)
    assert subject.steps == max(rows) == steps
    assert saved == sorted({5, steps} & set(range(steps + 1)) | {steps})


@pytest.mark.parametrize("stop", [1, 3, 5, 8])
def test_a_stop_leaves_a_checkpoint_from_which_the_rest_is_the_same(tmp_path: Path, stop: int) -> None:
    whole, cut = trainer(), trainer()
    rows, _ = train(whole, tmp_path)
    first, saved = train(cut, tmp_path, stop=stop)
    assert saved[-1] == max(first) == stop
    rest, _ = train(cut, tmp_path, done=stop)
    clockless = [{step: row | {"time/step_ms": 0} for step, row in part.items()} for part in (rows, first | rest)]
    assert clockless[0] == clockless[1]
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), cut.network.parameters()))


def test_a_finished_training_has_no_more_steps(tmp_path: Path) -> None:
    subject = trainer()
    before = weights(subject.network)
    assert train(subject, tmp_path, done=10) == ({}, [])
    assert all(torch.equal(a, b) for a, b in zip(before, subject.network.parameters()))


def test_what_is_not_finite_ends_the_training_and_is_named(tmp_path: Path) -> None:
    subject = trainer()
    subject.dataset.train.inputs[batches(EXAMPLES, BATCH, 3, 0)[2]] = math.nan  # the third batch
    with (Rows(tmp_path, subject.columns) as tracker,
          pytest.raises(RunError, match=r"train/loss=nan at step 3.*smaller optim\.lr|alignment.* at step 3")):
        subject.train(0, tracker, lambda step: None, lambda: False)
    assert list(tracker.rows) == [1, 2]


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.batch_size=23 is not in 1\.\.22"):
        trainer(batch_size=EXAMPLES + 1).steps_per_epoch  # noqa: B018


class Slow(Backprop):
    """Backpropagation that takes 20 milliseconds more."""

    def estimate(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        time.sleep(0.02)
        return super().estimate(network, x, y)


def test_the_clock_reads_milliseconds_of_gradient_and_update_alone(tmp_path: Path) -> None:
    """The reference takes as long as the gradient, and is no part of the step."""
    subject = trainer()
    slow = Slow(subject.cost)
    start = time.perf_counter()
    rows, _ = train(replace(subject, algorithm=slow, references={"alignment": slow}), tmp_path)
    whole = 1e3 * (time.perf_counter() - start)
    readings = [row["time/step_ms"] for row in rows.values()]
    assert len(readings) == 10 and min(readings) >= 20
    assert sum(readings) <= whole - 10 * 20


@pytest.mark.slow
@pytest.mark.usefixtures("untyped")  # the checks of types cannot be compiled
@pytest.mark.parametrize("precision, error", [("float64", 1e-9), ("bf16", 1e-2)])
def test_a_compiled_gradient_trains_the_same(precision: str, error: float, tmp_path: Path) -> None:
    tight = ["relax.tol=1e-10"] if precision == "float64" else []
    for compile in ("true", "false"):  # in processes of their own, since what checks shapes cannot be compiled
        subprocess.run([sys.executable, "-m", "ebmrun", "algo=pc", "arch.hidden=[6,5]", "arch.activation=tanh",
                        "logger=csv", f"precision={precision}", *tight, "trainer.max_steps=4",
                        f"trainer.compile={compile}", f"hydra.run.dir={tmp_path / compile}"],
                       check=True, cwd=Path(__file__).parents[2])
    compiled, plain = (load(tmp_path / compile / "checkpoint.pt")["network"] for compile in ("true", "false"))
    torch.testing.assert_close(compiled, plain, rtol=error, atol=error / 1000)
