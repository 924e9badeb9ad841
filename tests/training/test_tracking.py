"""What a run leaves behind is exact, and whole after any interruption."""

import csv
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ebmrun.errors import ConfigError, RunError
from ebmrun.training.tracking import Progress, Tracker
from ebmrun.training.wandb_client import LoggerConfig

FILES_ALONE = LoggerConfig(wandb=False)
CONFIG = {"algo": {"name": "pc"}, "nudge": {"strength": 1e-6}, "arch": {"hidden": [128, 64]}, "note": "1e-6",
          "resume": None}


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def found(run_dir: Path) -> dict[str, object]:
    """The summary, but for what the run was made with."""
    summary = json.loads((run_dir / "summary.json").read_text())
    return {key: value for key, value in summary.items() if not key.startswith("provenance/")}


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, math.nan])
def test_numbers_read_back_exactly(tmp_path: Path, value: float) -> None:
    with Tracker(tmp_path, CONFIG, FILES_ALONE, ["x"]) as tracker:
        tracker.log(1, {"x": value})
    assert struct.pack("d", float(rows(tmp_path)[0]["x"])) == struct.pack("d", value)


def test_integers_and_truths_stay_integers(tmp_path: Path) -> None:
    with Tracker(tmp_path, CONFIG, FILES_ALONE, ["relax/steps", "relax/converged"]) as tracker:
        tracker.log(1, {"relax/steps": 2**53 + 1, "relax/converged": True})
    assert rows(tmp_path) == [{"step": "1", "relax/steps": "9007199254740993", "relax/converged": "1"}]


def test_rows_can_be_read_at_once_and_absent_metrics_are_empty(tmp_path: Path) -> None:
    with Tracker(tmp_path / "a" / "b", CONFIG, FILES_ALONE, ["train/loss", "test/loss"]) as tracker:
        tracker.log(10, {"test/loss": 0.5})
        assert (tmp_path / "a" / "b" / "metrics.csv").read_text() == "step,train/loss,test/loss\n10,,0.5\n"


def test_a_metric_without_a_column_is_an_error(tmp_path: Path) -> None:
    with (Tracker(tmp_path, CONFIG, FILES_ALONE, ["train/loss"]) as tracker,
          pytest.raises(KeyError, match="called train/los'")):
        tracker.log(1, {"train/loss": 0.5, "train/los": 0.5})
    assert rows(tmp_path) == []


def test_the_config_reads_back_as_it_was(tmp_path: Path) -> None:
    with Tracker(tmp_path, CONFIG, FILES_ALONE, [], overrides=["algo=pc", "note='1e-6'"]):
        pass
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / ".hydra" / "config.yaml")) == CONFIG
    assert OmegaConf.load(tmp_path / ".hydra" / "overrides.yaml") == ["algo=pc", "note='1e-6'"]


def test_the_summary_is_strict_json_in_order(tmp_path: Path) -> None:
    with Tracker(tmp_path, CONFIG, FILES_ALONE, []) as tracker:
        tracker.finish({"test/loss": 1 / 3, "algo": "pc", "relax/converged": True})
    assert found(tmp_path) == {"test/loss": 1 / 3, "algo": "pc", "relax/converged": True}
    keys = list(json.loads((tmp_path / "summary.json").read_text()))
    assert keys == sorted(keys) and keys[0] == "algo" and keys[-1] == "test/loss"


def test_the_summary_says_what_the_run_was_made_with(tmp_path: Path) -> None:
    with Tracker(tmp_path, CONFIG, FILES_ALONE, []) as tracker:
        tracker.finish({})
    facts = OmegaConf.to_container(OmegaConf.load(tmp_path / ".hydra" / "provenance.yaml"))
    assert {"ebmrun", "commit", "torch", "python", "device", "threads"} <= facts.keys()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {f"provenance/{key}": value for key, value in facts.items()}
    assert all(isinstance(value, str) for value in facts.values())


@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, -math.inf]])
def test_a_summary_that_is_not_finite_is_an_error_and_no_file(tmp_path: Path, value: object) -> None:
    with Tracker(tmp_path, CONFIG, FILES_ALONE, []) as tracker, pytest.raises(RunError, match="test/loss"):
        tracker.finish({"test/accuracy": 0.5, "test/loss": value})
    assert not (tmp_path / "summary.json").exists()


def test_a_run_begun_anew_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    with Tracker(tmp_path, CONFIG, FILES_ALONE, ["x"]) as tracker:
        tracker.log(1, {"x": 1.0})
        tracker.finish({"x": 1.0})
    with Tracker(tmp_path, CONFIG, FILES_ALONE, ["y"]):
        pass
    assert (tmp_path / "metrics.csv").read_text() == "step,y\n"
    assert not (tmp_path / "summary.json").exists()


# --- resuming --------------------------------------------------------------------------------------------------------

LOGGING = """
import sys
from pathlib import Path
from ebmrun.training.tracking import Tracker
from ebmrun.training.wandb_client import LoggerConfig
with Tracker(Path(sys.argv[1]), {}, LoggerConfig(wandb=False), ["x"]) as tracker:
    for step in range(10**9):
        tracker.log(step, {"x": 1 / (step + 1)})
"""


def test_a_killed_run_resumes_to_the_file_of_a_run_left_alone(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    killed = subprocess.Popen([sys.executable, "-c", LOGGING, tmp_path])
    while not (metrics.exists() and metrics.stat().st_size > 10_000):
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    with Tracker(tmp_path, {}, FILES_ALONE, ["x"], resume=Progress(200, 0)) as tracker:
        for step in range(201, 300):
            tracker.log(step, {"x": 1 / (step + 1)})
    assert metrics.read_text() == "step,x\n" + "".join(f"{step},{1 / (step + 1)!r}\n" for step in range(300))


def test_resuming_drops_a_row_cut_short(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,x\n1,0.5\n2,0.2")
    with Tracker(tmp_path, {}, FILES_ALONE, ["x"], resume=Progress(2, 0)) as tracker:
        tracker.log(2, {"x": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == "step,x\n1,0.5\n2,0.25\n"


@pytest.mark.parametrize("before", ["", "ste"])
def test_resuming_without_rows_begins_the_file(tmp_path: Path, before: str) -> None:
    (tmp_path / "metrics.csv").write_text(before)
    with Tracker(tmp_path, {}, FILES_ALONE, ["x"], resume=Progress(2, 0)) as tracker:
        tracker.log(3, {"x": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == "step,x\n3,0.25\n"


@pytest.mark.parametrize(("columns", "said"), [(["x", "z"], r"\(-y, \+z\)"), (["y", "x"], "another order")])
def test_resuming_with_other_columns_names_them_and_touches_nothing(tmp_path: Path, columns: list[str],
                                                                    said: str) -> None:
    (tmp_path / "metrics.csv").write_text("step,x,y\n1,0.5,1\n")
    with pytest.raises(ConfigError, match=said):
        Tracker(tmp_path, {}, FILES_ALONE, columns, resume=Progress(1, 0))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    assert (tmp_path / "metrics.csv").read_text() == "step,x,y\n1,0.5,1\n"


@pytest.mark.parametrize(("rows_of", "last_row", "refused"), [
    ([1, 2, 3], 3, False), ([1, 2, 3, 4], 3, False), ([1, 2], 3, True), ([], 3, True), ([1, 2, 4, 5], 3, True)])
def test_resuming_needs_the_rows_up_to_the_checkpoint(tmp_path: Path, rows_of: list[int], last_row: int,
                                                      refused: bool) -> None:
    before = "step,x\n" + "".join(f"{step},0.5\n" for step in rows_of)
    (tmp_path / "metrics.csv").write_text(before)
    try:
        with Tracker(tmp_path, {}, FILES_ALONE, ["x"], resume=Progress(3, last_row)):
            assert not refused
    except ConfigError as error:
        assert refused and f"no row of step {last_row}" in str(error) and "resume=false" in str(error)
        assert (tmp_path / "metrics.csv").read_text() == before and len(list(tmp_path.iterdir())) == 1
    else:
        assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3"]


def test_resuming_from_a_damaged_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"step,x\n1,0.5\n\0\0\0\n")
    with pytest.raises(ConfigError, match="without a step"):
        Tracker(tmp_path, {}, FILES_ALONE, ["x"], resume=Progress(1, 0))


# --- faults of the disk ----------------------------------------------------------------------------------------------


def test_a_full_disk_ends_in_one_line_and_whole_rows(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Tracker(tmp_path, CONFIG, FILES_ALONE, ["x"]) as tracker:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1001, hard))
        try:
            with pytest.raises(RunError) as error:
                for step in range(1000):
                    tracker.log(step, {"x": 1 / 3})
            with pytest.raises(RunError, match="summary.json"):
                tracker.finish({"x": "x" * 2000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path / "metrics.csv") in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "metrics.csv").read_text() == "step,x\n" + "".join(f"{n},{1 / 3!r}\n" for n in range(step))
    assert not (tmp_path / "summary.json").exists()


def test_a_run_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/run"):
        Tracker(tmp_path / "file" / "run", CONFIG, FILES_ALONE, ["x"])
