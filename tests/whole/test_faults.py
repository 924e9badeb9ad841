"""Whatever is wrong with the configuration, disk or network, a run ends in one line, and leaves nothing torn."""

import contextlib
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from program import Command

from ebmrun.command.cli import CONF
from ebmrun.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["logger=csv", "device=cpu", "dataset=digits", "trainer.max_steps=2", "arch.hidden=[8]"]

# Numbers at the ends of their ranges and beyond.
EXTREME = ["-1", "0", "1", "2", "3", "1e-320", "1e-30", "1e-6", "0.5", "0.999", "1.5", "1e6", "1e30", "1e308", "nan",
           "inf", "-inf", "9223372036854775807", "9223372036854775808"]
NUMBERS = ["seed", "energy.feedback_gain", "nudge.strength", "nudge.nodes.0", "nudge.weights.0", "relax.step_size",
           "relax.max_steps", "relax.tol", "relax.free_steps", "dataset.range.1", "optim.lr", "+optim.momentum",
           "+optim.weight_decay", "trainer.epochs", "trainer.batch_size", "trainer.max_steps", "trainer.log_every",
           "alignment.every"]
# Values of the wrong type, and of no meaning at all.
ODD = [*EXTREME, "null", "true", "[]", "[1]", "[8,8]", "[0]", "[[1]]", "{}", "{a:1}", "''", "zebra", "3j", "${seed}",
       "${absent}", "???", "'${'", "[1,nan]", "/dev/null", "os.getcwd", "torch.nn.Linear"]
KEYS = [*(key.lstrip("+") for key in NUMBERS), "device", "precision", "resume", "algo.name", "algo.build",
        "arch.hidden", "arch.activation", "arch.output", "arch._target_", "dataset.name", "dataset.root",
        "dataset.range", "energy._target_", "cost._target_", "nudge.nodes", "nudge.weights", "relax.order",
        "relax.acceleration", "relax.coordinates", "relax.reading", "optim._target_", "alignment.reference",
        "logger.wandb", "logger.tags", "study.run", "algo", "arch", "cost", "energy", "nudge", "relax", "optim",
        "trainer", "alignment"]
GROUPS = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml"))
          for group in ("algo", "arch", "cost", "energy", "nudge", "optim", "relax")}


def malformed(number: int) -> list[str]:
    """The overrides of one configuration. Two of three have an extreme number in a preset; the others, parts drawn at
    random that may contradict each other, and odd values."""
    draw = random.Random(number)
    if number % 3:
        algo, key, value = draw.choice(GROUPS["algo"]), draw.choice(NUMBERS), draw.choice(EXTREME)
        return [f"algo={algo}", f"{key}={value}"]
    groups = [f"{group}={draw.choice(options)}" for group, options in GROUPS.items() if draw.random() < 0.3]
    odd = [f"{draw.choice(['', '', '', '', '', '', '+', '~'])}{key}={draw.choice(ODD)}"
           for key in draw.sample(KEYS, draw.randint(0, 2))]
    return [*groups, *odd]


@pytest.fixture
def command(command: Command) -> Command:
    """The command on a small network, for two batches."""
    return partial(command, *SHORT)


def launch(folder: Path, *arguments: str, mount: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own that knows no account of Weights & Biases. `mount` is what a shell does
    first, in a namespace whose mounts no other process sees; what `run` holds at the end is copied to `left`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
    path = os.pathsep.join([str(ROOT), clean.get("PYTHONPATH", "")])
    program = [sys.executable, "-m", "ebmrun", *SHORT, "hydra.run.dir=run", *arguments]
    if mount:
        script = f'{mount}; "$@" || status=$?; cp -r run left; exit $status'
        program = ["unshare", "-m" if os.geteuid() == 0 else "-Urm", "sh", "-ec", script, "sh", *program]
    return subprocess.run(program, cwd=folder, env=clean | {"PYTHONPATH": path, "HOME": str(folder)} | variables,
                          capture_output=True, text=True, timeout=120, check=False)


def not_finite(constant: str) -> float:
    raise ValueError(f"{constant} in strict JSON")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 200))])
def test_a_malformed_configuration_ends_in_one_line_or_trains(command: Command, tmp_path: Path, number: int) -> None:
    overrides = malformed(number)
    start = time.monotonic()
    status, lines = command("hydra.run.dir=run", *overrides)
    assert time.monotonic() - start < 30, overrides  # the limit of what counts as a hang
    assert status in (0, 2), overrides
    assert not any("Traceback" in line for line in lines), (overrides, lines)
    if status:
        assert len(lines) == 1 and lines[0].startswith("ebmrun: error: "), (overrides, lines)
        assert not (tmp_path / "run").exists()
    else:
        summary = json.loads((tmp_path / "run" / "summary.json").read_text(), parse_constant=not_finite)
        assert all(math.isfinite(value) for value in summary.values() if isinstance(value, float))


# --- the disk --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def limit(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a full disk does to each file, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def whole(run: Path) -> list[int]:
    """Reads every file of a run; the steps of its rows."""
    checkpoint.load(run / "checkpoint.pt")
    OmegaConf.load(run / ".hydra" / "config.yaml")
    header, *rows = (run / "metrics.csv").read_text().splitlines(keepends=True)
    assert all(row.endswith("\n") and row.count(",") == header.count(",") for row in rows)
    assert not list(run.glob(".*.new"))
    return [int(row.split(",")[0]) for row in rows]


LONG = ("trainer.epochs=200", "trainer.log_every=1")


def goes_on(command: Command, run: Path, *settings: str) -> None:
    """With space again, a run goes on from its checkpoint to its end, with each step once."""
    steps, done = whole(run), checkpoint.load(run / "checkpoint.pt")["step"]
    assert steps == list(range(1, len(steps) + 1)) and 0 < done <= len(steps)
    assert not (run / "summary.json").exists()
    end = len(steps) + 5
    assert command(*LONG, *settings, f"hydra.run.dir={run}", f"trainer.max_steps={end}", "resume=true")[0] == 0
    assert whole(run) == list(range(1, end + 1))
    assert json.loads((run / "summary.json").read_text())["steps"] == end


def test_a_file_that_cannot_grow_in_the_middle_of_a_run_keeps_what_was_there(command: Command, tmp_path: Path) -> None:
    with limit(60_000):  # enough for some epochs of rows, and for the checkpoint of a small network
        status, lines = command(*LONG, "trainer.max_steps=null", "hydra.run.dir=run")
    assert status == 1 and len(lines) == 1
    assert "run/metrics.csv" in lines[0] and "free some space" in lines[0]
    goes_on(command, tmp_path / "run")


@pytest.mark.mounts
@pytest.mark.parametrize(("size", "batch_size", "name"), [
    ("200k", 64, "checkpoint.pt"),  # epochs of 23 rows, which take less than a second checkpoint beside the first
    ("300k", 1, "metrics.csv"),  # epochs of 1437 rows, which take most of the disk
])
def test_a_disk_that_fills_up_in_the_middle_of_a_run_keeps_what_was_there(
    command: Command, tmp_path: Path, size: str, batch_size: int, name: str
) -> None:
    (tmp_path / "run").mkdir()
    batches = f"trainer.batch_size={batch_size}"
    done = launch(tmp_path, *LONG, batches, "trainer.max_steps=null", mount=f"mount -t tmpfs -o size={size} disk run")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"run/{name}: No space left" in done.stderr and "free some space" in done.stderr
    goes_on(command, tmp_path / "left", batches)


def test_a_checkpoint_that_does_not_fit_the_disk_is_named(command: Command, tmp_path: Path) -> None:
    with limit(20_000):
        status, lines = command("hydra.run.dir=run", "arch.hidden=[512]")
    assert status == 1 and len(lines) == 1 and "run/checkpoint.pt" in lines[0]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".hydra", "metrics.csv"]


def test_an_earlier_run_survives_a_disk_too_full_for_the_next(command: Command, tmp_path: Path) -> None:
    assert command("hydra.run.dir=run")[0] == 0
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with limit(1_000):
        status, lines = command("hydra.run.dir=run", "resume=true", "trainer.max_steps=9")
    assert status == 1 and len(lines) == 1
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 2


def test_a_run_directory_that_cannot_be_written(command: Command) -> None:
    # /proc takes no files from anyone, where a folder without permissions would take those of root.
    status, lines = command("hydra.run.dir=/proc/ebmrun")
    assert status == 2 and len(lines) == 1
    assert "/proc/ebmrun" in lines[0] and "hydra.run.dir=" in lines[0]


@pytest.mark.mounts
def test_a_sweep_on_a_disk_that_fills_up_goes_on_with_space(command: Command, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    sweep = ("-m", *LONG, "trainer.max_steps=400", "seed=0,1")
    done = launch(tmp_path, *sweep, "hydra.sweep.dir=run", mount="mount -t tmpfs -o size=64k disk run")
    lines, left = done.stderr.splitlines(), tmp_path / "left"
    assert done.returncode == 1 and lines and all(line.startswith("ebmrun: error: ") for line in lines), done.stderr
    assert "seed=0" in lines[0] and "No space left" in lines[0] and "free some space" in lines[0]
    assert all(json.loads(path.read_text())["exit_status"] == 1 for path in left.glob("*/failed.json"))
    assert command(*sweep, "hydra.sweep.dir=left")[0] == 0
    assert [whole(path.parent) for path in left.glob("*/summary.json")] == [list(range(1, 401))] * 2
    assert not list(left.glob("*/failed.json"))


@pytest.mark.mounts
def test_a_run_directory_on_a_read_only_disk(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    done = launch(tmp_path, "hydra.run.dir=run/deep", mount="mount -t tmpfs -o ro disk run")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "run/deep: Read-only file system" in done.stderr and "hydra.run.dir=" in done.stderr


@pytest.mark.mounts
@pytest.mark.parametrize("arguments", [("resume=false",), ("resume=true", "trainer.max_steps=9")])
def test_an_earlier_run_on_a_read_only_disk_is_left_as_it_is(
    command: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert command("hydra.run.dir=run")[0] == 0
    mount = "cp -r run before; mount -t tmpfs disk run; cp -r before/. run; mount -o remount,ro run"
    done = launch(tmp_path, *arguments, mount=mount)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "run: Read-only file system" in done.stderr and "hydra.run.dir=" in done.stderr
    assert contents(tmp_path / "left") == contents(tmp_path / "before")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- Weights & Biases ------------------------------------------------------------------------------------------------


@pytest.mark.mounts
def test_a_folder_that_weights_and_biases_cannot_write_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    done = launch(tmp_path, "logger=wandb", mount="mount -t tmpfs -o ro disk run/wandb")
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("ebmrun: warning: the run goes on without Weights & Biases")
    assert "run/wandb" in line and "Read-only file system" in line
    assert whole(tmp_path / "left") == [2] and not list((tmp_path / "left" / "wandb").iterdir())
    assert json.loads((tmp_path / "left" / "summary.json").read_text())["steps"] == 2


@pytest.mark.mounts
@pytest.mark.parametrize("size", ["4k", pytest.param("12k", marks=pytest.mark.slow), "40k"])
def test_a_full_disk_of_weights_and_biases_alone_costs_one_warning(tmp_path: Path, size: str) -> None:
    (tmp_path / "run" / "wandb").mkdir(parents=True)
    done = launch(tmp_path, "logger=wandb", "algo=bp", "trainer.max_steps=300", "trainer.epochs=20",
                  "trainer.log_every=1", mount=f"mount -t tmpfs -o size={size} disk run/wandb")
    assert done.returncode == 0, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("ebmrun: warning: ") and "Weights & Biases" in line
    assert "No space left on device" in line or "was cut short" in line
    assert whole(tmp_path / "left") == list(range(1, 301))
    assert json.loads((tmp_path / "left" / "summary.json").read_text())["steps"] == 300


def test_no_secret_reaches_a_file(tmp_path: Path) -> None:
    marker = "5ec2e7" * 7
    done = launch(tmp_path, "logger=wandb", WANDB_API_KEY=marker, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1
    assert (tmp_path / "run" / "wandb").is_dir()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if marker.encode() in path.read_bytes()] == []
    assert marker not in done.stdout + done.stderr
