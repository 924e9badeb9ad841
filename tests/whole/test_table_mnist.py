"""The table of results/mnist: its statistics are those of scipy, and it is that of the committed runs."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "mnist"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    import table_mnist

    yield table_mnist
    sys.path.remove(str(ROOT / "scripts"))


def test_the_paired_statistics_are_those_of_scipy(script) -> None:
    difference = np.random.default_rng(0).normal(0.1, 0.2, 5)
    mean, low, high, p = script.paired(difference)
    interval = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    above = stats.ttest_1samp(difference, -script.MARGIN, alternative="greater").pvalue
    below = stats.ttest_1samp(difference, script.MARGIN, alternative="less").pvalue
    assert np.allclose([mean, low, high, p], [difference.mean(), *interval, max(above, below)], rtol=1e-12)


def test_runs_that_end_the_same_are_equivalent_and_runs_a_point_apart_are_not(script) -> None:
    assert script.paired(np.zeros(5)) == (0, 0, 0, 0)
    assert script.paired(np.ones(5))[3] == 1


def test_the_committed_table_is_that_of_the_committed_runs(script) -> None:
    with (RESULTS / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert script.table(rows) in (RESULTS / "README.md").read_text()


def test_members_with_the_gradient_of_backprop_train_as_it_does(script) -> None:
    """Members whose gradient is that of backprop to a few parts in ten thousand, or exactly, train as it does."""
    with (RESULTS / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    accuracy = {(r["algo"], r["activation"], r["seed"]): 100 * float(r["test/accuracy"]) for r in rows}
    seeds = sorted({r["seed"] for r in rows})
    assert len(seeds) == 5
    for algo in ("pc", "pc_first_step", "pc_fixed_prediction", "lifted"):
        gaps = np.array([accuracy[algo, "relu", s] - accuracy["bp", "relu", s] for s in seeds])
        assert script.paired(gaps)[3] < 0.05


def test_runs_of_a_folder_come_in_the_order_of_their_seeds(script, tmp_path: Path) -> None:
    for algo in ("pc", "bp"):
        for seed in (10, 9, 0, 11):
            (tmp_path / f"algo={algo},seed={seed}").mkdir()
            (tmp_path / f"algo={algo},seed={seed}" / "summary.json").touch()
    assert [run.name for run in script.runs(tmp_path)] == [
        f"algo={algo},seed={seed}" for algo in ("bp", "pc") for seed in (0, 9, 10, 11)]
