"""The main job on the real MNIST: what a user runs, and what it leaves behind."""

import math
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
from program import environment
from run_folder import rows, summary

MEASURES = ("cosine", "angle", "norm_ratio", "relative_error")
ALIGNED = [f"alignment/{key}" for key in (*MEASURES, "relative_error/worst", "relative_error/worst_layer")] + [
    f"alignment/{key}/layer{l}" for l in (1, 2, 3) for key in MEASURES
]
COLUMNS = ["step", "epoch", "train/loss", "train/accuracy", "test/loss", "test/accuracy", "optim/lr",
           "relax/steps", "relax/residual", "relax/converged", "relax/free_converged", "time/step_ms"]
# Of predictive coding against backprop: the forward pass is its free equilibrium, and the reference needs none.
UNMEASURED = {"relax/free_converged", "alignment/reference_converged"}


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory, mnist_root: Path) -> tuple[Path, str]:
    """The run directory of the main job and what it printed, Weights & Biases included."""
    folder = tmp_path_factory.mktemp("main-job")
    command = [sys.executable, "-m", "ebmrun", "algo=pc", "dataset=mnist", "seed=0", "trainer.epochs=1",
               "alignment.every=1", "hydra.run.dir=run"]
    done = subprocess.run(command, cwd=folder, env=environment(EBMRUN_DATA=str(mnist_root)), capture_output=True,
                          text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


def test_it_learns_and_follows_backprop(main_job: tuple[Path, str]) -> None:
    run_dir, _ = main_job
    table = rows(run_dir)
    assert len(table) == 938  # 60000 examples in batches of 64
    assert float(table[-1]["test/accuracy"]) >= 0.92
    assert median(1 - float(row["alignment/cosine"]) for row in table) <= 1e-8
    assert median(float(row["alignment/relative_error"]) for row in table) <= 2e-4


def test_every_row_is_there_and_complete(main_job: tuple[Path, str]) -> None:
    run_dir, _ = main_job
    table = rows(run_dir)
    assert set(table[0]) == {*COLUMNS, *ALIGNED} | UNMEASURED
    assert [int(row["step"]) for row in table] == list(range(1, 939))
    for row in table:
        empty = {key for key, value in row.items() if value == ""}
        assert empty - UNMEASURED == (set() if row["step"] == "938" else {"test/loss", "test/accuracy"})
        assert empty >= UNMEASURED
        assert all(math.isfinite(float(value)) for value in row.values() if value)


def test_the_summary_has_every_key_and_finite_numbers(main_job: tuple[Path, str]) -> None:
    run_dir, _ = main_job
    found = summary(run_dir)
    numbers = {*COLUMNS, *ALIGNED, "steps"} - UNMEASURED - {"step"}
    assert numbers <= set(found) and not UNMEASURED & set(found)
    assert all(math.isfinite(found[key]) for key in numbers)
    assert (found["algo"], found["dataset"], found["seed"]) == ("pc", "mnist", 0)
    assert (found["precision"], found["alignment/reference"]) == ("float32", "backprop")
    table = rows(run_dir)
    assert found["steps"] == 938
    assert found["test/accuracy"] == float(table[-1]["test/accuracy"])
    assert found["train/loss"] == float(table[-1]["train/loss"])
    for key in ("time/step_ms", "alignment/angle"):
        assert found[key] == median(float(row[key]) for row in table)


def test_it_leaves_its_files_and_says_where(main_job: tuple[Path, str]) -> None:
    run_dir, printed = main_job
    assert {path.name for path in run_dir.iterdir()} == {".hydra", "metrics.csv", "summary.json", "checkpoint.pt",
                                                         "wandb"}
    assert "files: run\nwandb: run/wandb/offline-run-" in printed  # from the folder where the command was given
    assert f"test accuracy        {summary(run_dir)['test/accuracy']:.4f}" in printed
    assert len(printed.strip().splitlines()) <= 15
