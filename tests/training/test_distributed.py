"""Several processes train one network as one process would."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks import batch, distance, member, random_mlp
from torch import Tensor

from ebmrun.theory.algorithm import Estimate, Prediction
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.energies import Hopfield
from ebmrun.theory.network import Network
from ebmrun.theory.references import Backprop
from ebmrun.theory.stencil import Nudge
from ebmrun.training import checkpoint
from ebmrun.training.distributed import Job, Shared

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ["dataset=digits", "logger=csv", "device=cpu", "trainer.epochs=3", "trainer.max_steps=50",
            "trainer.log_every=1"]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def begin(folder: Path, processes: int, *arguments: str) -> "subprocess.Popen[str]":
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return subprocess.Popen([sys.executable, *many, "-m", "ebmrun", *SETTINGS, *arguments], cwd=folder,
                            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def train(folder: Path, processes: int, *arguments: str) -> str:
    process = begin(folder, processes, *arguments)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return said


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: float(value or "nan") for key, value in row.items()} for row in csv.DictReader(file)]


def furthest(one: Path, other: Path) -> float:
    nets = [checkpoint.load(run / "checkpoint.pt")["network"] for run in (one, other)]
    return max(float((nets[0][key] - nets[1][key]).abs().max()) for key in nets[0])


# Batches of 64 leave 29 examples for the last of an epoch; batches of 718 leave one: a share is then empty.
@pytest.mark.parametrize(
    "overrides",
    [["algo=pc", "augment=crop_flip", "augment.padding=1", "schedule=cosine"],
     pytest.param(["algo=pc", "trainer.batch_size=718", "trainer.epochs=17"], marks=pytest.mark.slow),
     pytest.param(["algo=bp", "optim=adam", "optim.lr=1e-3", "precision=float64"], marks=pytest.mark.slow),
     pytest.param(["algo=pc", "feedback=kolen_pollack", "optim.weight_decay=0.01"], marks=pytest.mark.slow),
     pytest.param(["algo=ep_centered", "precision=float64", "relax.tol=1e-9", "relax.max_steps=1000",
                   "alignment.every=0"], marks=pytest.mark.slow)],
    ids=["pc", "share-of-none", "bp", "feedback", "ep"],
)
def test_two_processes_give_the_weights_of_one(tmp_path: Path, overrides: list[str]) -> None:
    said = [train(tmp_path, processes, *overrides, f"hydra.run.dir=by{processes}") for processes in (1, 2)]
    one, two = tmp_path / "by1", tmp_path / "by2"
    assert furthest(one, two) < 1e-6
    assert [each.count("50 steps") for each in said] == [1, 1]  # the first process alone speaks
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by1", "by2"]
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    # What is logged is of the whole batch, not of the first process's share.
    for single, double in zip(rows(one), rows(two), strict=True):
        assert single["step"] == double["step"]
        for key in ("train/loss", "train/accuracy", "test/loss", "test/accuracy", "relax/converged"):
            assert double[key] == pytest.approx(single[key], rel=1e-5, nan_ok=True)


@pytest.mark.slow
def test_processes_leave_one_folder_and_resume_from_it(tmp_path: Path) -> None:
    settings = ["algo=bp", "alignment.every=0"]
    train(tmp_path, 2, *settings, "trainer.max_steps=30")  # inside the second epoch; in a folder named by the clock
    [run] = (tmp_path / "outputs").glob("*/*")
    assert len(rows(run)) == 30
    train(tmp_path, 2, *settings, f"resume={run}")
    train(tmp_path, 1, *settings, "hydra.run.dir=whole")
    assert [row["step"] for row in rows(run)] == list(range(1, 51))
    assert furthest(run, tmp_path / "whole") < 1e-6


def children(process: int) -> list[int]:
    lines = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return [int(child) for line in lines for child in line.split()]


def running(tmp_path: Path) -> "subprocess.Popen[str]":
    """A job that has begun to train and would go on for very long."""
    job = begin(tmp_path, 2, "trainer.epochs=100000", "trainer.max_steps=null", "hydra.run.dir=run",
                "alignment.every=0")
    metrics = tmp_path / "run" / "metrics.csv"
    while not (metrics.exists() and metrics.read_text().count("\n") > 30):
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    return job


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_process_that_dies_takes_the_job_down_with_a_message(tmp_path: Path, rank: int) -> None:
    job = running(tmp_path)
    ranks = {dict(line.split("=", 1) for line in Path(f"/proc/{child}/environ").read_text().split("\0")
                  if "=" in line)["RANK"]: child for child in children(job.pid)}
    os.kill(ranks[str(rank)], signal.SIGKILL)
    said = job.communicate(timeout=120)[1]
    assert job.returncode == 1
    assert f"ebmrun: error: process {1 - rank} waited for one that has ended" in said
    assert not (tmp_path / "run" / "summary.json").exists()
    assert checkpoint.load(tmp_path / "run" / "checkpoint.pt")["step"] % 23 == 0


@pytest.mark.slow
def test_an_interrupt_saves_the_step_that_all_have_done(tmp_path: Path) -> None:
    job = running(tmp_path)
    os.kill(job.pid, signal.SIGTERM)
    said = job.communicate(timeout=120)[1]
    assert "143" in said or job.returncode in (1, 143, -signal.SIGTERM), said
    run = tmp_path / "run"
    assert checkpoint.load(run / "checkpoint.pt")["step"] == rows(run)[-1]["step"]


@pytest.mark.slow
def test_a_bad_configuration_is_said_once(tmp_path: Path) -> None:
    job = begin(tmp_path, 2, "trainer.batch_size=0", "hydra.run.dir=run")
    said = job.communicate(timeout=120)[1]
    assert job.returncode == 1 and said.count("ebmrun: error: ") == 1  # torchrun's own status
    assert "trainer.batch_size=0" in said
    assert not (tmp_path / "run").exists()


def test_shares_are_a_partition_of_nearly_equal_parts() -> None:
    for examples in range(30):
        for size in range(1, 8):
            parts = [Job(rank, size).part(examples) for rank in range(size)]
            assert [index for part in parts for index in range(examples)[part]] == list(range(examples))
            lengths = [part.stop - part.start for part in parts]
            assert max(lengths) - min(lengths) <= 1


class Reported(Backprop):
    """Backpropagation that reports what a relaxation of these inputs might."""

    def predict(self, network: Network, x: Tensor) -> Prediction:
        return Prediction(super().predict(network, x).output, len(x) > 3)

    def estimate(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        plain = super().estimate(network, x, y)
        return Estimate(plain.gradients, plain.output, len(x), float(x.max()), len(x) > 3)


class Partly(Backprop):
    """One pass down, which counts its steps and measures nothing else."""

    def estimate(self, network: Network, x: Tensor, y: Tensor) -> Estimate:
        plain = super().estimate(network, x, y)
        return Estimate(plain.gradients, plain.output, 0)


def put_together(patch: pytest.MonkeyPatch, ask: Callable[[Job], object], size: int) -> list:
    """What each of so many processes is told, one after the other: a reduction adds what each of them sends."""
    sent: list[Tensor] = []
    patch.setattr("torch.distributed.all_reduce", lambda values, _: sent.append(values.clone()))
    for rank in range(size):
        ask(Job(rank, size))
    total = sum(sent)
    patch.setattr("torch.distributed.all_reduce", lambda values, _: values.copy_(total))
    return [ask(Job(rank, size)) for rank in range(size)]


@pytest.mark.parametrize("examples, size", [(7, 2), (2, 3)])  # of three processes, one gets no example
def test_what_no_share_measured_stays_unmeasured(monkeypatch: pytest.MonkeyPatch, examples: int, size: int) -> None:
    network = random_mlp()
    x, y = batch(network, examples=examples)
    cost = SquaredError(network.output)
    for found in put_together(monkeypatch, lambda job: Shared(Backprop(cost), job).estimate(network, x, y), size):
        assert (found.steps, found.residual, found.converged) == (None, None, None)
    for found in put_together(monkeypatch, lambda job: Shared(Partly(cost), job).estimate(network, x, y), size):
        assert (found.steps, found.residual, found.converged) == (0, None, None)
    for found in put_together(monkeypatch, lambda job: Shared(Backprop(cost), job).predict(network, x), size):
        assert found.converged is None
        torch.testing.assert_close(found.output, network(x).detach(), rtol=1e-13, atol=1e-15)


def test_every_share_has_the_signs_of_its_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_mlp(activation="sigmoid")
    x, y = batch(network, examples=7)
    signs = torch.tensor([1.0, -1, -1, 1, -1, 1, 1], dtype=x.dtype)[:, None]
    learning = member(Hopfield(), Nudge([1.0, 0.0], [1.0, -1.0], 0.1, random_sign=True), network)
    whole = learning.estimate(network, x, y, signs)
    for found in put_together(monkeypatch, lambda job: Shared(learning, job).estimate(network, x, y, signs=signs), 2):
        assert distance(found.gradients, whole.gradients) < 1e-9


@pytest.mark.parametrize("examples, settles", [(7, False), (8, True)])
def test_a_prediction_settles_where_every_share_does(
    monkeypatch: pytest.MonkeyPatch, examples: int, settles: bool
) -> None:
    """Shares of 3 and 4 examples, of which one settles; shares of 4 and 4, of which both do."""
    network = random_mlp()
    x, _ = batch(network, examples=examples)
    subject = Reported(SquaredError(network.output))
    for found in put_together(monkeypatch, lambda job: Shared(subject, job).predict(network, x), 2):
        assert found.converged is settles


def test_an_estimate_put_together_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_mlp()
    cost = SquaredError(network.output)
    x, y = batch(network, examples=7)
    whole = Backprop(cost).estimate(network, x, y)
    for found in put_together(monkeypatch, lambda job: Shared(Reported(cost), job).estimate(network, x, y), 2):
        torch.testing.assert_close(found.gradients, whole.gradients, rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(found.output, whole.output, rtol=1e-13, atol=1e-15)
        assert (found.steps, found.residual, found.converged) == (4, float(x.max()), False)
