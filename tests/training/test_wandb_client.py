"""Weights & Biases holds what a run's files hold; whatever becomes of it, the run goes on and keeps its secrets."""

import json
import os
import platform
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_tracking import CONFIG, found, rows
from wandb.proto.wandb_internal_pb2 import Record

from ebmrun.training.folder import FREE_ON_RESUME
from ebmrun.training.run_name import among, run_name
from ebmrun.training.wandb_client import axes, study, torn

ROOT = Path(__file__).resolve().parents[2]
KEY = "marker" * 7  # as long as a real one

TRACKING = """
import json, os, sys
from pathlib import Path
from ebmrun.training.tracking import Progress, Tracker
from ebmrun.training.wandb_client import LoggerConfig
arguments = json.loads(sys.argv[1])
done = arguments.get("done", 0)
with Tracker(Path(arguments["run_dir"]), arguments["config"], LoggerConfig(**arguments["logger"]),
             ["train/loss", "relax/steps"], Progress(done, done) if done else None) as tracker:
    exec(arguments.get("before", ""))
    for step in range(done + 1, 601):
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
    assert found(run_dir) == {"test/loss": 1 / 3}
    return *json.loads(run.stdout), run.stderr.splitlines()


def records(location: str) -> Iterator[Record]:
    """The records of an offline run."""
    return (record for record, _ in records_and_ends(location))


def records_and_ends(location: str) -> Iterator[tuple[Record, int]]:
    """Each record, and the byte at which it ends: a LevelDB log of blocks of 32 KiB, after seven bytes of the file's
    own."""
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
            yield Record.FromString(whole), at
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
    facts = config(location).pop("provenance")
    assert facts["python"] == platform.python_version()
    assert config(location) == {**CONFIG, "provenance": facts}
    [run] = [record.run for record in records(location) if record.HasField("run")]
    assert (run.project, run.run_group, list(run.tags)) == ("p", "g", ["a", "b"])
    summaries = [item for record in records(location) for item in record.summary.update]
    assert [json.loads(item.value_json) for item in summaries if "test/loss" in (item.key, *item.nested_key)] == [1 / 3]
    assert (run.display_name, run.job_type) == ("pc", "")  # nothing was overridden; this configuration has no study


def summary(location: str) -> dict[str, object]:
    """What each key of the summary was last set to, but for what the client adds."""
    items = [item for record in records(location) if record.HasField("summary") for item in record.summary.update]
    last = {"/".join([item.key, *item.nested_key]).strip("/"): json.loads(item.value_json) for item in items}
    return {key: value for key, value in last.items() if not key.startswith("_")}


def test_the_summary_there_is_that_of_the_run_key_by_key(tmp_path: Path) -> None:
    # The last row differs from the summary in every key that is a share or a median.
    settings = ["trainer.max_steps=30", "trainer.log_every=7", "alignment.every=5", "device=cpu", "dataset=digits",
                "relax.tol=4.8e-5", "relax.max_steps=2"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
    path = os.pathsep.join([str(ROOT), clean.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-m", "ebmrun", *settings, "hydra.run.dir=a/name"], cwd=tmp_path, check=True,
                   env=clean | {"HOME": str(tmp_path), "PYTHONPATH": path}, capture_output=True, timeout=120)
    [location] = (tmp_path / "a" / "name" / "wandb").glob("offline-run-*")
    expected = json.loads((tmp_path / "a" / "name" / "summary.json").read_text())
    last = rows(tmp_path / "a" / "name")[-1]
    assert 0 < expected["relax/converged"] < 1 and float(last["relax/residual"]) != expected["relax/residual"]
    assert summary(str(location)) == expected
    [run] = [record.run for record in records(str(location)) if record.HasField("run")]
    # Its name is what the command set but for what a resumed run may change, and for device, which says where.
    assert (run.display_name, run.job_type) == (
        "pc trainer.log_every=7 alignment.every=5 dataset=digits relax.tol=4.8e-5 relax.max_steps=2", "train")


def metrics(location: str) -> dict[str, tuple[str, bool]]:
    """What each metric, or each section of them, is drawn over, and whether it is hidden."""
    found = [record.metric for record in records(location) if record.HasField("metric")]
    return {each.name or each.glob_name: (each.step_metric, each.options.hidden) for each in found}


def test_each_section_has_its_axis(tmp_path: Path) -> None:
    location, _, _ = track(tmp_path / "run")
    assert metrics(location) == {"step": ("", True), "train/*": ("step", False), "relax/*": ("step", False)}
    steps = [json.loads(item.value_json) for record in records(location) if record.HasField("history")
             for item in record.history.item if "step" in (item.key, *item.nested_key)]
    assert steps == list(range(1, 601))  # the axis is in each row
    assert "step" not in summary(location)


def test_evaluations_are_drawn_over_epochs_and_a_study_over_what_it_moves() -> None:
    over = axes(["epoch", "train/loss", "test/loss", "test/accuracy", "val/loss", "optim/lr/image"], "step")
    assert over == {"step": None, "epoch": None, "train/*": "step", "test/*": "epoch", "val/*": "epoch",
                    "optim/*": "step"}
    assert list(over)[:2] == ["step", "epoch"]  # an axis is defined before what is drawn over it
    assert axes(["strength", "pc/single/float32", "bias"], "strength") == {
        "strength": None, "pc/*": "strength", "bias": "strength"}


@pytest.mark.parametrize(("words", "name"), [
    (["algo=pc", "nudge.strength=0.1", "seed=3"], "pc nudge.strength=0.1 seed=3"),
    (["+optim.alpha=0.9", "study=certify"], "pc optim.alpha=0.9"),
    (["dataset.root=a/b", "logger.tags=[x]", "device=cpu", "trainer.epochs=2", "resume=true"], "pc"),
    (["arch.hidden=[" + ",".join(["64"] * 60) + "]"], "pc arch.hidden=[" + ",".join(["64"] * 38)[:112]),
])
def test_a_run_is_named_by_what_it_sets(words: list[str], name: str) -> None:
    free = among(words, FREE_ON_RESUME)
    assert run_name("pc", [word for word in words if word not in free]) == name and len(name) <= 128


@pytest.mark.parametrize(("path", "name"), [
    ("ebmrun.training.run.train", "train"), ("ebmrun.studies.certify.study.run", "certify"),
    ("ebmrun.studies.search.run", "search"), ("mine.probe", "probe")])
def test_a_job_has_the_type_of_its_study(path: str, name: str) -> None:
    assert study({"study": {"run": path}}) == name


def test_a_name_and_a_job_type_of_ones_own(tmp_path: Path) -> None:
    location, _, _ = track(tmp_path / "run", logger={"name": "mine", "job_type": "try"})
    [run] = [record.run for record in records(location) if record.HasField("run")]
    assert (run.display_name, run.job_type) == ("mine", "try")


def test_a_file_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    location, _, _ = track(tmp_path / "run")
    [path] = Path(location).glob("*.wandb")
    whole, cut = path.read_bytes(), tmp_path / "cut"
    assert len(whole) > 32768 and not torn(path)
    *between, end = (end for _, end in records_and_ends(location))
    assert end == len(whole)
    for at in (0, 5, 7, 8, 4096, 28672, 32767, 32769, len(whole) - 4096, len(whole) - 1, *between[::100], between[-1]):
        cut.write_bytes(whole[:at])
        assert torn(cut), at


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    first, _, _ = track(tmp_path / "run")
    time.sleep(1)  # the client names its folders by the second
    second, _, _ = track(tmp_path / "run", done=500)
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
