"""Whatever is wrong with the configuration, the disk or the network, a run ends in one line, and leaves nothing torn."""

import contextlib
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ebmrun import checkpoint, cli

ROOT = Path(__file__).resolve().parents[1]
SHORT = ["logger=csv", "device=cpu", "dataset=digits", "trainer.max_steps=2", "arch.hidden=[8]"]
Command = Callable[..., tuple[int, list[str]]]

# Numbers at the ends of their ranges and beyond.
EXTREME = ["-1", "0", "1", "2", "3", "1e-320", "1e-30", "1e-6", "0.5", "0.999", "1.5", "1e6", "1e30", "1e308", "nan", "inf",
           "-inf", "9223372036854775807", "9223372036854775808"]
NUMBERS = ["seed", "energy.feedback_gain", "nudge.strength", "nudge.nodes.0", "nudge.weights.0", "relax.step_size",
           "relax.max_steps", "relax.tol", "relax.free_steps", "optim.lr", "+optim.momentum", "+optim.weight_decay",
           "trainer.epochs", "trainer.batch_size", "trainer.max_steps", "trainer.log_every", "alignment.every"]
# Values of the wrong type, and of no meaning at all.
ODD = [*EXTREME, "null", "true", "[]", "[1]", "[8,8]", "[0]", "[[1]]", "{}", "{a:1}", "''", "zebra", "3j", "${seed}",
       "${absent}", "???", "'${'", "[1,nan]", "/dev/null", "os.getcwd", "torch.nn.Linear"]
KEYS = [*(key.lstrip("+") for key in NUMBERS), "device", "precision", "resume", "algo.name", "algo.build",
        "arch.hidden", "arch.activation", "arch.output", "arch._target_", "dataset.name", "dataset.root",
        "energy._target_", "cost._target_", "nudge.nodes", "nudge.weights", "relax.order", "relax.acceleration",
        "relax.coordinates", "relax.reading", "optim._target_", "alignment.reference", "logger.wandb", "logger.tags",
        "study.run", "algo", "arch", "cost", "energy", "nudge", "relax", "optim", "trainer", "alignment"]
GROUPS = {group: sorted(path.stem for path in (cli.CONF / group).glob("*.yaml"))
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
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in an empty folder; gives its status and the lines it wrote to stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["ebmrun", *SHORT, *arguments])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cli.main()
        except SystemExit as end:
            return int(end.code or 0), capfd.readouterr().err.splitlines()
        return 0, capfd.readouterr().err.splitlines()

    return run


def not_finite(constant: str) -> float:
    raise ValueError(f"{constant} in strict JSON")


@pytest.mark.parametrize("number", [*range(50), *(pytest.param(n, marks=pytest.mark.slow) for n in range(50, 200))])
def test_a_malformed_configuration_ends_in_one_line_or_trains(command: Command, tmp_path: Path, number: int) -> None:
    overrides = malformed(number)
    start = time.monotonic()
    status, lines = command("hydra.run.dir=run", *overrides)
    assert time.monotonic() - start < 30, overrides  # the limit of what counts as a hang
    # Numbers at the ends of their ranges are no mistakes: where a training overflows, it is the run that failed.
    assert status in (0, 1, 2), overrides
    assert not any("Traceback" in line for line in lines), (overrides, lines)
    if status:
        assert len(lines) == 1 and lines[0].startswith("ebmrun: error: "), (overrides, lines)
        assert status == 2 or "diverged" in lines[0] or "overflow" in lines[0], (overrides, lines)
        assert not list(tmp_path.rglob("summary.json"))
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


def whole(run: Path, columns: int) -> None:
    """Every file of a run reads back."""
    checkpoint.load(run / "checkpoint.pt")
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    assert all(line.endswith("\n") and line.count(",") == columns for line in lines)


def test_a_disk_that_fills_up_in_the_middle_of_a_run_keeps_what_was_there(command: Command, tmp_path: Path) -> None:
    settings = ("trainer.max_steps=null", "trainer.epochs=200", "trainer.log_every=1", "hydra.run.dir=run")
    with limit(60_000):  # enough for some epochs of rows, and for the checkpoint of a small network
        status, lines = command(*settings)
    assert status == 1 and len(lines) == 1
    assert "run/metrics.csv" in lines[0] and "free some space" in lines[0]
    columns = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].count(",")
    whole(tmp_path / "run", columns)
    step = checkpoint.load(tmp_path / "run" / "checkpoint.pt")["step"]
    assert step > 0 and not (tmp_path / "run" / "summary.json").exists()
    # With space again it goes on, to the end.
    end = (f"trainer.max_steps={step + 5}", "trainer.epochs=200", "trainer.log_every=1", "hydra.run.dir=run")
    assert command(*end, "resume=true")[0] == 0
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, step + 6))


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


def test_a_read_only_run_directory(command: Command, tmp_path: Path) -> None:
    # What is in it can be read and not be replaced, for root too: the names of its files are those of folders.
    assert command("hydra.run.dir=run")[0] == 0
    (tmp_path / "run" / ".metrics.csv.new").mkdir()
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    status, lines = command("hydra.run.dir=run")
    assert status == 1 and len(lines) == 1 and "run/metrics.csv" in lines[0]
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 2


# --- Weights & Biases ------------------------------------------------------------------------------------------------


def with_wandb(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "NETRC"))}
    path = os.pathsep.join([str(ROOT), clean.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, "-m", "ebmrun", *SHORT[1:], "logger=wandb", "hydra.run.dir=run"], cwd=folder,
                          env=clean | {"PYTHONPATH": path, "HOME": str(folder)} | variables, capture_output=True, text=True,
                          timeout=120, check=False)


def test_a_folder_that_weights_and_biases_cannot_write_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").touch()
    done = with_wandb(tmp_path)
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith("ebmrun: warning: the run goes on without Weights & Biases")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 2


def test_no_secret_reaches_a_file(tmp_path: Path) -> None:
    marker = "5ec2e7" * 7
    done = with_wandb(tmp_path, WANDB_API_KEY=marker, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1
    assert (tmp_path / "run" / "wandb").is_dir()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if marker.encode() in path.read_bytes()] == []
    assert marker not in done.stdout + done.stderr
