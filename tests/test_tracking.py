"""What a run leaves behind is exact, whole after any interruption, and the same in Weights & Biases."""

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
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from wandb.proto.wandb_internal_pb2 import Record

from ebmrun.errors import ConfigError, RunError
from ebmrun.tracking import LoggerConfig, Tracker

FILES_ALONE = LoggerConfig(wandb=False)
CONFIG = {"algo": {"name": "pc"}, "nudge": {"strength": 1e-6}, "arch": {"hidden": [128, 64]}, "note": "1e-6",
          "resume": None}
KEY = "marker" * 7  # as long as a real one


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text) == {"test/loss": 1 / 3, "algo": "pc", "relax/converged": True}
    assert list(json.loads(text)) == ["algo", "relax/converged", "test/loss"]


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
from ebmrun.tracking import LoggerConfig, Tracker
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
    with Tracker(tmp_path, {}, FILES_ALONE, ["x"], resume_step=200) as tracker:
        for step in range(201, 300):
            tracker.log(step, {"x": 1 / (step + 1)})
    assert metrics.read_text() == "step,x\n" + "".join(f"{step},{1 / (step + 1)!r}\n" for step in range(300))


def test_resuming_drops_a_row_cut_short(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,x\n1,0.5\n2,0.2")
    with Tracker(tmp_path, {}, FILES_ALONE, ["x"], resume_step=2) as tracker:
        tracker.log(2, {"x": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == "step,x\n1,0.5\n2,0.25\n"


@pytest.mark.parametrize("before", [None, "", "ste"])
def test_resuming_without_rows_begins_the_file(tmp_path: Path, before: str | None) -> None:
    if before is not None:
        (tmp_path / "metrics.csv").write_text(before)
    with Tracker(tmp_path, {}, FILES_ALONE, ["x"], resume_step=2) as tracker:
        tracker.log(3, {"x": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == "step,x\n3,0.25\n"


@pytest.mark.parametrize(("columns", "said"), [(["x", "z"], r"\(-y, \+z\)"), (["y", "x"], "another order")])
def test_resuming_with_other_columns_names_them_and_touches_nothing(tmp_path: Path, columns: list[str],
                                                                    said: str) -> None:
    (tmp_path / "metrics.csv").write_text("step,x,y\n1,0.5,1\n")
    with pytest.raises(ConfigError, match=said):
        Tracker(tmp_path, {}, FILES_ALONE, columns, resume_step=1)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    assert (tmp_path / "metrics.csv").read_text() == "step,x,y\n1,0.5,1\n"


def test_resuming_from_a_damaged_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"step,x\n1,0.5\n\0\0\0\n")
    with pytest.raises(ConfigError, match="without a step"):
        Tracker(tmp_path, {}, FILES_ALONE, ["x"], resume_step=1)


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


# --- Weights & Biases ------------------------------------------------------------------------------------------------

TRACKING = """
import json, os, sys
from pathlib import Path
from ebmrun.tracking import LoggerConfig, Tracker
arguments = json.loads(sys.argv[1])
with Tracker(Path(arguments["run_dir"]), arguments["config"], LoggerConfig(**arguments["logger"]),
             ["train/loss", "relax/steps"], arguments.get("resume_step")) as tracker:
    exec(arguments.get("before", ""))
    for step in range(arguments.get("resume_step", 0) + 1, 601):
        tracker.log(step, {"train/loss": 1 / step, "relax/steps": 2})
    tracker.finish({"test/loss": 1 / 3})
print(json.dumps([tracker.wandb_location, "wandb" in sys.modules]))
"""


def track(run_dir: Path, environment: dict[str, str] | None = None, logger: dict[str, object] | None = None,
          **arguments: object) -> tuple[str | None, bool, list[str]]:
    """A whole run in a process of its own, with no key but those given: its location, whether wandb was imported,
    and what it wrote to stderr. Its own files must be right whatever becomes of wandb."""
    home = run_dir.parent / "home"
    home.mkdir(exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
    request = {"run_dir": str(run_dir), "config": CONFIG, "logger": logger or {}, **arguments}
    run = subprocess.run([sys.executable, "-c", TRACKING, json.dumps(request)], text=True, capture_output=True,
                         env={**clean, "HOME": str(home), **(environment or {})}, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert [row["step"] for row in rows(run_dir)] == [str(step) for step in range(1, 601)]
    assert json.loads((run_dir / "summary.json").read_text()) == {"test/loss": 1 / 3}
    return *json.loads(run.stdout), run.stderr.splitlines()


def records(location: str) -> Iterator[Record]:
    """The records of an offline run: a LevelDB log of blocks of 32 KiB, after seven bytes of the file's own."""
    [path] = Path(location).glob("*.wandb")
    data, at, whole = path.read_bytes(), 7, b""
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        body = data[at + 7:at + 7 + length]
        assert zlib.crc32(bytes([kind]) + body) == checksum
        at += 7 + length
        whole += body
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def history(location: str) -> list[tuple[float, ...]]:
    logged = [{"/".join([item.key, *item.nested_key]).strip("/"): json.loads(item.value_json)
               for item in record.history.item} for record in records(location) if record.HasField("history")]
    return [(row["_step"], row["train/loss"], row["relax/steps"]) for row in logged]


def config(location: str) -> dict[str, object]:
    [run] = [record.run for record in records(location) if record.HasField("run")]
    return {item.key: json.loads(item.value_json) for item in run.config.update if item.key != "_wandb"}


def files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_offline_without_a_key_it_holds_the_same_metrics_and_config(tmp_path: Path) -> None:
    location, _, said = track(tmp_path / "run", logger={"project": "p", "group": "g", "tags": ["a", "b"]})
    assert said == []
    assert Path(location).parent == tmp_path / "run" / "wandb"
    assert history(location) == [(step, 1 / step, 2) for step in range(1, 601)]
    assert config(location) == CONFIG
    [run] = [record.run for record in records(location) if record.HasField("run")]
    assert (run.project, run.run_group, list(run.tags)) == ("p", "g", ["a", "b"])
    summaries = [item for record in records(location) for item in record.summary.update]
    assert [json.loads(item.value_json) for item in summaries if "test/loss" in (item.key, *item.nested_key)] == [1 / 3]


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    first, _, _ = track(tmp_path / "run")
    time.sleep(1)  # the client names its folders by the second
    second, _, _ = track(tmp_path / "run", resume_step=500)
    assert first != second
    assert [step for step, *_ in history(second)] == list(range(501, 601))
    assert len({record.run.run_id for place in (first, second) for record in records(place)
                if record.HasField("run")}) == 1


def test_files_alone_never_import_it(tmp_path: Path) -> None:
    assert track(tmp_path / "run", logger={"wandb": False}) == (None, False, [])
    assert not (tmp_path / "run" / "wandb").exists()


def test_disabled_by_the_environment_it_leaves_nothing(tmp_path: Path) -> None:
    location, _, said = track(tmp_path / "run", {"WANDB_MODE": "disabled", "WANDB_API_KEY": KEY})
    assert (location, said) == (None, [])
    assert not (tmp_path / "run" / "wandb").exists()


def test_offline_by_the_environment_a_key_is_not_tried(tmp_path: Path) -> None:
    location, _, said = track(tmp_path / "run", {"WANDB_MODE": "offline", "WANDB_API_KEY": KEY})
    assert len(history(location)) == 600
    assert said == []
    assert files_with(KEY, tmp_path) == []


@pytest.mark.parametrize("place", ["environment", "netrc"])
def test_out_of_reach_it_records_offline_with_one_warning_and_no_secret(tmp_path: Path, place: str) -> None:
    environment = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY}
    if place == "netrc":
        del environment["WANDB_API_KEY"]
        environment["NETRC"] = str(tmp_path / "netrc")
        Path(environment["NETRC"]).write_text(f"machine 127.0.0.1:9 login user password {KEY}\n")
    location, _, said = track(tmp_path / "run", environment)
    assert len(said) == 1 and "offline" in said[0] and "127.0.0.1:9" in said[0]
    assert history(location) == [(step, 1 / step, 2) for step in range(1, 601)]
    assert files_with(KEY, tmp_path / "run") == []


def test_a_key_that_cannot_be_one_is_said_but_not_told(tmp_path: Path) -> None:
    location, _, said = track(tmp_path / "run", {"WANDB_API_KEY": "marker"})
    assert len(history(location)) == 600
    assert len(said) == 1 and "WANDB_API_KEY" in said[0] and "marker" not in said[0]
    assert files_with("marker", tmp_path / "run") == []


def test_a_folder_that_it_cannot_write_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").touch()
    location, _, said = track(tmp_path / "run")
    assert location is None
    assert len(said) == 1 and str(tmp_path / "run" / "wandb") in said[0]


def test_a_client_that_dies_costs_one_warning(tmp_path: Path) -> None:
    kill = ("children = Path(f'/proc/{os.getpid()}/task').glob('*/children')\n"
            "for child in {pid for path in children for pid in path.read_text().split()}: os.kill(int(child), 9)")
    _, _, said = track(tmp_path / "run", before=kill)
    assert len(said) == 1 and "without Weights & Biases" in said[0]
