"""The main job on the real MNIST: what a user runs, what it leaves behind, and how it ends when something is wrong."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import torch

from ebmrun.command import cli

ROOT = Path(__file__).resolve().parents[1]
MEASURES = ("cosine", "angle", "norm_ratio", "relative_error")
ALIGNED = [f"alignment/{key}" for key in MEASURES] + [
    f"alignment/{key}/layer{l}" for l in (1, 2, 3) for key in MEASURES
]
COLUMNS = ["step", "epoch", "train/loss", "train/accuracy", "test/loss", "test/accuracy", "relax/steps",
           "relax/residual", "relax/converged", "time/step_ms"]
Run = Callable[..., int]


def environment(mnist_root: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"EBMRUN_DATA": str(mnist_root), "PYTHONPATH": path, "WANDB_MODE": "offline"}


@pytest.fixture
def run(tmp_path: Path, mnist_root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in an empty folder, in this process, with files alone; returns its exit status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EBMRUN_DATA", str(mnist_root))

    def command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ebmrun", "logger=csv", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return command


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(run_dir: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "time/step_ms"} for row in rows(run_dir)]


def summary(run_dir: Path) -> dict[str, float]:
    return json.loads((run_dir / "summary.json").read_text())


def saved(run_dir: Path) -> dict[str, object]:
    return torch.load(run_dir / "checkpoint.pt", weights_only=True)


def same_weights(one: Path, other: Path) -> bool:
    """Whether weights and momenta of two checkpoints are the same bit for bit."""
    a, b = saved(one), saved(other)
    momenta = [[state["momentum_buffer"] for state in c["optimizer"]["state"].values()] for c in (a, b)]
    assert len(momenta[0]) == len(a["network"]) == 6  # weights and biases of three layers
    pairs = [*zip(a["network"].values(), b["network"].values()), *zip(*momenta)]
    return a["step"] == b["step"] and all(torch.equal(x, y) for x, y in pairs)


# --- the main job ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory, mnist_root: Path) -> tuple[Path, str]:
    """The run directory of the main job and what it printed, Weights & Biases included."""
    folder = tmp_path_factory.mktemp("main-job")
    command = [sys.executable, "-m", "ebmrun", "algo=pc", "dataset=mnist", "seed=0", "trainer.epochs=1",
               "alignment.every=1", "hydra.run.dir=run"]
    done = subprocess.run(command, cwd=folder, env=environment(mnist_root), capture_output=True, text=True, check=False,
                          timeout=300)
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
    assert sorted(table[0]) == sorted(COLUMNS + ALIGNED)
    assert [int(row["step"]) for row in table] == list(range(1, 939))
    for row in table:
        empty = {key for key, value in row.items() if value == ""}
        assert empty == (set() if row["step"] == "938" else {"test/loss", "test/accuracy"})
        assert all(math.isfinite(float(value)) for value in row.values() if value)


def test_the_summary_has_every_key_and_finite_numbers(main_job: tuple[Path, str]) -> None:
    run_dir, _ = main_job
    found = summary(run_dir)
    numbers = set(COLUMNS + ALIGNED) - {"step"} | {"steps"}
    assert numbers <= set(found)
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
    assert f"files: {run_dir}" in printed
    assert f"test accuracy        {summary(run_dir)['test/accuracy']:.4f}" in printed
    assert len(printed.strip().splitlines()) <= 15


# --- the nudge's own bias --------------------------------------------------------------------------------------------


def test_the_error_is_that_of_the_nudge(run: Run) -> None:
    errors = {}
    for strength in ("1e-6", "1e-4", "1e-2"):
        assert run("dataset=mnist", f"nudge.strength={strength}", "trainer.max_steps=100", "alignment.every=1",
                   f"hydra.run.dir=by{strength}") == 0
        errors[strength] = summary(Path(f"by{strength}"))["alignment/relative_error"]
    assert errors["1e-6"] <= 1e-5
    assert 1e-3 <= errors["1e-2"] <= 2e-2
    assert errors["1e-2"] / errors["1e-4"] == pytest.approx(100, rel=0.2)  # O(strength)


def test_the_published_scheme_reports_its_larger_error(run: Run) -> None:
    assert run("dataset=mnist", "relax=gradient_flow", "relax.step_size=0.3", "relax.max_steps=50",
               "trainer.max_steps=20", "alignment.every=1", "hydra.run.dir=state") == 0
    found = summary(Path("state"))
    # A displacement of 1e-4 of the state keeps three digits of float32's seven.
    assert found["alignment/relative_error"] > 1e-3
    assert found["relax/residual"] > 1e-3 and found["relax/steps"] == 50
    assert found["relax/converged"] == 0
    assert {row["relax/converged"] for row in rows(Path("state"))} == {"0"}


# --- the same again --------------------------------------------------------------------------------------------------

SHORT = ("dataset=mnist", "trainer.max_steps=40", "trainer.log_every=1", "alignment.every=1")


def test_two_runs_are_the_same_bit_for_bit(run: Run, mnist_root: Path) -> None:
    assert run(*SHORT, "hydra.run.dir=here") == 0
    elsewhere = [sys.executable, "-m", "ebmrun", "logger=csv", *SHORT, "hydra.run.dir=there"]
    subprocess.run(elsewhere, env=environment(mnist_root) | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
                   check=True, capture_output=True, timeout=120)
    assert same_weights(Path("here"), Path("there"))
    assert timeless(Path("here")) == timeless(Path("there"))
    assert run(*SHORT, "seed=1", "hydra.run.dir=other") == 0
    assert timeless(Path("here")) != timeless(Path("other"))


def test_pc_and_bp_share_their_weights_and_batches(run: Run) -> None:
    for algo in ("bp", "pc"):
        assert run(*SHORT, f"algo={algo}", "optim.lr=0", f"hydra.run.dir={algo}") == 0
    bp, pc = saved(Path("bp"))["network"], saved(Path("pc"))["network"]
    assert all(torch.equal(bp[name], pc[name]) for name in bp)
    losses = {algo: [row["train/loss"] for row in rows(Path(algo))] for algo in ("bp", "pc")}
    assert losses["bp"] == losses["pc"]  # with fixed weights, a batch's loss tells it from every other
    assert len(set(losses["bp"])) == 40


def test_rows_come_when_they_are_asked_for(run: Run) -> None:
    assert run("dataset=mnist", "trainer.max_steps=25", "alignment.every=0", "hydra.run.dir=sparse") == 0
    table = rows(Path("sparse"))
    assert [row["step"] for row in table] == ["10", "20", "25"]
    assert list(table[0]) == COLUMNS
    assert run("dataset=mnist", "trainer.max_steps=9", "trainer.log_every=4", "alignment.every=6",
               "hydra.run.dir=mixed") == 0
    table = rows(Path("mixed"))
    assert [(row["step"], row["alignment/angle"] != "") for row in table] == [
        ("4", False), ("6", True), ("8", False), ("9", False)]


# --- interruption and resumption -------------------------------------------------------------------------------------


def without_tests(run_dir: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if not key.startswith("test/")} for row in timeless(run_dir)]


def test_a_resumed_run_equals_one_that_never_stopped(run: Run) -> None:
    # Digits have 23 batches an epoch: 30 steps end inside the second, 60 inside the third.
    whole = ("trainer.epochs=10", "trainer.log_every=1")
    assert run(*whole, "trainer.max_steps=60", "hydra.run.dir=whole") == 0
    assert run(*whole, "trainer.max_steps=30", "hydra.run.dir=parts") == 0
    assert saved(Path("parts"))["step"] == 30
    assert run(*whole, "trainer.max_steps=60", "resume=true", "hydra.run.dir=parts") == 0
    assert same_weights(Path("whole"), Path("parts"))
    assert without_tests(Path("whole")) == without_tests(Path("parts"))
    assert timeless(Path("whole"))[-1] == timeless(Path("parts"))[-1]


def test_a_run_is_resumed_from_any_folder(run: Run, tmp_path: Path) -> None:
    assert run("trainer.epochs=2", "hydra.run.dir=whole") == 0
    assert run("trainer.epochs=1", "hydra.run.dir=parts") == 0
    assert run("trainer.epochs=2", "resume=parts") == 0
    assert same_weights(Path("whole"), Path("parts"))
    assert timeless(Path("whole")) == timeless(Path("parts"))
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "parts"}


def test_what_cannot_be_resumed_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("resume=true", "hydra.run.dir=none") == 2
    assert "cannot read the checkpoint" in capsys.readouterr().err and not Path("none").exists()
    assert run("trainer.max_steps=5", "hydra.run.dir=run") == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run("trainer.max_steps=9", "resume=true", "optim.lr=0.5", "hydra.run.dir=run") == 2
    error = capsys.readouterr().err
    assert "optim.lr: saved 0.0064, now 0.5" in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_can_go_on(run: Run, mnist_root: Path, number: signal.Signals, status: int) -> None:
    settings = ("dataset=mnist", "trainer.epochs=1000", "trainer.log_every=1", "alignment.every=0")
    command = [sys.executable, "-m", "ebmrun", "logger=csv", *settings, "hydra.run.dir=cut"]
    process = subprocess.Popen(command, env=environment(mnist_root) | {
        "OMP_NUM_THREADS": str(torch.get_num_threads())}, stderr=subprocess.PIPE, text=True)
    metrics = Path("cut/metrics.csv")
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", status)
    step = saved(Path("cut"))["step"]
    assert int(rows(Path("cut"))[-1]["step"]) == step
    assert not Path("cut/summary.json").exists()
    more = (*settings, f"trainer.max_steps={step + 10}")
    assert run(*more, "resume=true", "hydra.run.dir=cut") == 0
    assert run(*more, "hydra.run.dir=whole") == 0
    assert same_weights(Path("cut"), Path("whole"))
    assert timeless(Path("cut")) == timeless(Path("whole"))


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_divergence_keeps_what_was_reached(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    # One batch an epoch, and so large a step that the weights leave the range of float32 within a few epochs.
    status = run("trainer.batch_size=1437", "trainer.epochs=40", "optim.lr=30", "hydra.run.dir=run")
    error = capsys.readouterr().err
    assert status == 1 and error.count("\n") == 1
    assert "diverged at layer" in error and "relax.step_size=1.0" in error and "optim.lr" in error
    table = rows(Path("run"))
    assert saved(Path("run"))["step"] == int(table[-1]["step"]) >= 1
    assert all(math.isfinite(float(value)) for row in table for value in row.values() if value)
    assert not Path("run/summary.json").exists()


def test_a_step_size_too_large_for_the_states_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    # Overshooting every state twofold under a unit nudge grows without bound once the feedback couples the layers.
    status = run("dataset=mnist", "relax.coordinates=state", "relax.step_size=2", "nudge.strength=1",
                 "relax.order=synchronous", "relax.max_steps=5000", "trainer.max_steps=5", "hydra.run.dir=run")
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1
    assert "diverged at layer" in error and "relax.step_size=2.0" in error
    assert not Path("run").exists()


def test_backprop_diverges_as_clearly(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    # Linear outputs of a squared error overshoot by a factor of thousands a step: some steps from float32's largest.
    settings = ("algo=bp", "arch.hidden=[]", "optim.lr=1e4", "optim.momentum=0", "trainer.log_every=1")
    assert run(*settings, "hydra.run.dir=run") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "at step" in error and "use a smaller optim.lr" in error


@pytest.mark.parametrize(
    "arguments, named, mend",
    [
        (["algo=nosuch"], "algo=nosuch", "pc_first_step"),
        (["dataset=mnits"], "dataset=mnits", "mnist"),
        (["nosuchgroup=1"], "nosuchgroup", "keys are"),
        (["trainer.epoch=3"], "trainer.epoch", "did you mean epochs"),
        (["trainer.epochs=many"], "trainer.epochs", "many"),
        (["nudge.strength=0"], "nudge.strength=0", "must be a positive number"),
        (["nudge.strength=-1"], "nudge.strength=-1", "must be a positive number"),
        (["nudge.strength=nan"], "nudge.strength=nan", "must be a positive number"),
        (["nudge.strength=inf"], "nudge.strength=inf", "must be a positive number"),
        (["trainer.batch_size=0"], "trainer.batch_size=0", "1 or more"),
        (["trainer.batch_size=1438"], "trainer.batch_size=1438", "1..1437"),
        (["arch.hidden=[64,0]"], "arch.hidden=[64, 0]", "1 or more"),
        (["arch=cnn", "arch.channels=[]"], "arch.channels=[]", "arch=mlp"),
        (["optim.lr=-1"], "optim.lr=-1", "0 or more"),
        (["optim.lr=[1,2]"], "optim.lr=[1, 2]", "3 layers"),
        (["precision=float16"], "precision=float16", "float32"),
        (["device=tpu"], "device=tpu", "auto, cpu or cuda"),
        (["seed=-1"], "seed=-1", "0.."),
        (["relax.step_size=3"], "relax.step_size=3", "(0, 2]"),
        (["relax.tol=nan"], "relax.tol=nan", "positive"),
        (["algo=ep", "nudge=single"], "nudge.weights=[1.0]", "nudge=one_sided or centered"),
        (["alignment.reference=forward"], "alignment.reference=forward", "backprop"),
        (["dataset=mnist", "dataset.root=file"], "dataset.root=", "EBMRUN_DATA"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], named: str, mend: str
) -> None:
    (tmp_path / "file").touch()
    status = run(*arguments)
    captured = capsys.readouterr()
    assert status == 2, captured.err
    assert captured.err.startswith("ebmrun: error: ") and captured.err.count("\n") == 1
    assert named in captured.err and mend in captured.err
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_graphics_card_is_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run("device=cuda") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "device=cuda" in error and "use device=cpu" in error
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, mnist_root: Path
) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    shutil.copytree(mnist_root / "MNIST" / "raw", raw)
    os.truncate(raw / "train-images-idx3-ubyte", 1_000_000)
    assert run("dataset=mnist", "dataset.root=data") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(raw / "train-images-idx3-ubyte") in error and "delete it" in error
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_no_data_and_no_network_is_one_line(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there: every request is refused
    monkeypatch.setenv("no_proxy", "")
    assert run("dataset=mnist", "dataset.root=empty") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "empty") in error and "EBMRUN_DATA" in error and 'fetch("mnist"' in error
    assert list(tmp_path.iterdir()) == []
