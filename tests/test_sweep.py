"""Sweeps: a run for each combination, called again, in several processes, and in the hands of other launchers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ebmrun.command import cli, sweep

ROOT = Path(__file__).resolve().parents[1]
SHORT = ("logger=csv", "device=cpu", "trainer.max_steps=4", "hydra.sweep.dir=sweep")
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a sweep in an empty folder; gives its status and what it wrote to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ebmrun", "-m", *SHORT, *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return end.code, capfd.readouterr().err
        return 0, capfd.readouterr().err

    return run


def summaries(folder: str = "sweep") -> dict[tuple[str, int], dict[str, object]]:
    found = [json.loads(path.read_text()) for path in Path(folder).glob("*/summary.json")]
    return {(each["algo"], each["seed"]): each for each in found}


def times(folder: str = "sweep") -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in Path(folder).glob("*/summary.json")}


def test_a_run_for_each_combination(command: Command) -> None:
    assert command("algo=bp,pc", "seed=range(3)")[0] == 0
    assert summaries().keys() == {(algo, seed) for algo in ("bp", "pc") for seed in range(3)}


@pytest.mark.parametrize(
    ("overrides", "runs"),
    [(["algo=pc"], 1), (["seed=range(5)"], 5), (["algo=pc,ep,chl", "nudge.strength=1e-1,1e-2", "seed=range(5)"], 30),
     (["arch.hidden=[8],[8,8]", "optim.lr=choice(1,2,3)"], 6)],
)
def test_the_bar_knows_how_many_runs_there_will_be(overrides: list[str], runs: int) -> None:
    assert sweep.count(overrides) == runs


def test_a_sweep_called_again_leaves_what_finished_goes_on_with_what_did_not_and_begins_the_rest(
    command: Command,
) -> None:
    assert command("seed=range(4)", "trainer.log_every=1")[0] == 0
    whole = {run.name: (run / "metrics.csv").read_text() for run in Path("sweep").glob("*-*")}
    one, two, three, four = sorted(Path("sweep").glob("*-*"))
    (two / "summary.json").unlink()  # killed at its end
    for name in ("summary.json", "checkpoint.pt"):  # killed before its first checkpoint
        (three / name).unlink()
    for path in sorted(four.rglob("*"), reverse=True):  # killed before it began
        path.unlink() if path.is_file() else path.rmdir()
    before = times()
    assert command("seed=range(4)", "trainer.log_every=1")[0] == 0
    assert sorted(summaries()) == [("pc", seed) for seed in range(4)]
    assert times()[one.name] == before[one.name]
    for run in (one, two):  # not a step was taken again: even the clock's readings are the same
        assert (run / "metrics.csv").read_text() == whole[run.name]
    for run in (three, four):
        assert len((run / "metrics.csv").read_text().splitlines()) == 5
    assert command("seed=range(4)", "trainer.log_every=1", "resume=true")[0] == 0
    assert len(list(Path("sweep").glob("*-*"))) == 4
    after = times()
    assert command("seed=range(4)", "trainer.log_every=1", "resume=false")[0] == 0
    assert len(list(Path("sweep").glob("*-*"))) == 4 and all(times()[name] > after[name] for name in after)


def test_a_failed_run_is_named_and_the_others_go_on(command: Command) -> None:
    status, said = command("optim.lr=1e-2,1e30,1e-3", "trainer.max_steps=20", "dataset=digits")
    assert status == 2 and len(times()) == 2  # 1e30 squared is beyond float32 in the second step, which is rehearsed
    last = said.splitlines()[-1]
    assert last.startswith("ebmrun: error: failed in sweep: 1-") and "1e+30" in last
    # Mended, and called again: what finished is left alone.
    before = times()
    assert command("optim.lr=1e-2,1e-4,1e-3", "trainer.max_steps=20", "dataset=digits")[0] == 0
    assert before.items() <= times().items() and len(times()) == 3


THREADS = """
import os, torch
from ebmrun.theory.energies import Predictive

class Mine(Predictive):
    def __init__(self, feedback_gain: float) -> None:
        super().__init__(feedback_gain)
        with open(os.environ["THREADS_FILE"], "a") as file:
            file.write(f"{os.getpid()} {torch.get_num_threads()}\\n")
"""


def test_joblib_shares_out_the_threads(tmp_path: Path) -> None:
    jobs = 2
    (tmp_path / "energy_with_threads.py").write_text(THREADS)
    said = tmp_path / "threads"
    done = subprocess.run(
        [sys.executable, "-m", "ebmrun", "-m", *SHORT, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}",
         "seed=range(4)", "energy._target_=energy_with_threads.Mine"],
        cwd=tmp_path, env=environment() | {"THREADS_FILE": str(said)}, capture_output=True, text=True, timeout=300,
        check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in said.read_text().splitlines()]
    assert len({process for process, _ in lines}) == jobs
    assert {int(threads) for _, threads in lines} == {max((os.cpu_count() or 1) // jobs, 1)}
    assert len(list(tmp_path.glob("sweep/*/summary.json"))) == 4


def test_submitit_runs_each_as_a_job(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ebmrun", "-m", *SHORT, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5",
         "optim.lr=1e-2,-1"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "failed in sweep: 1-" in done.stderr.splitlines()[-1]
    [run] = tmp_path.glob("sweep/*/summary.json")
    assert run.parent.name.startswith("0-") and json.loads(run.read_text())["steps"] == 4


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_an_interrupt_ends_the_sweep_and_called_again_it_goes_on(tmp_path: Path, launcher: str) -> None:
    arguments = ["-m", *SHORT, f"hydra/launcher={launcher}", "seed=0,1", "alignment.every=0", "trainer.log_every=1"]
    begin = [sys.executable, "-m", "ebmrun", *arguments, "trainer.max_steps=null", "trainer.epochs=100000"]
    process = subprocess.Popen(begin, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    running = 1 if launcher == "basic" else 2
    while len([path for path in tmp_path.glob("sweep/*/metrics.csv") if path.stat().st_size > 1000]) < running:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C on a terminal does
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert len(list(tmp_path.glob("sweep/*/checkpoint.pt"))) == running


def test_the_sweep_of_weights_and_biases_drives_the_same_command() -> None:
    asked = yaml.safe_load((ROOT / "conf" / "wandb_sweep.yaml").read_text())
    words = [word for word in asked["command"] if not word.startswith("$")]
    assert words == ["ebmrun"] and asked["command"][-1] == "${args_no_hyphens}"
    # The agent writes key=value for each parameter: a command line of one run.
    chosen = [f"{key}={each['value'] if 'value' in each else each['values'][0]}"
              for key, each in asked["parameters"].items()]
    assert sweep.count(chosen) == 1
    done = subprocess.run([sys.executable, "-m", "ebmrun", *chosen, "logger=csv", "--cfg", "job"], env=environment(),
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert asked["metric"]["name"] in {"test/accuracy", "test/loss"}


@given(st.integers(0, 10_000), st.text())
def test_any_overrides_name_one_folder(number: int, overrides: str) -> None:
    name = sweep.folder_name(number, overrides)
    assert re.fullmatch(rf"{number}(-[\w.,=+-]+)?", name, re.ASCII) and len(name) <= 255


def environment() -> dict[str, str]:
    """Without the limits that this suite sets to itself."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")} | {"PYTHONPATH": path}
