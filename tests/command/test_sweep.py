"""Sweeps: a run for each combination, called again, in several processes, and in the hands of other launchers."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from program import Command, Forked

from ebmrun.command import sweep
from ebmrun.training.folder import FREE_ON_RESUME
from ebmrun.training.wandb_client import LoggerConfig

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("logger=csv", "device=cpu", "trainer.max_steps=4", "hydra.sweep.dir=sweep")


@pytest.fixture
def command(command: Command) -> Command:
    """A short sweep."""
    return partial(command, "-m", *SHORT)


def summaries(folder: str = "sweep") -> dict[tuple[str, int], dict[str, object]]:
    found = [json.loads(path.read_text()) for path in Path(folder).glob("*/summary.json")]
    return {(each["algo"], each["seed"]): each for each in found}


def tables(folder: str = "sweep") -> list[list[str]]:
    return [path.read_text().splitlines() for path in sorted(Path(folder).glob("*/metrics.csv"))]


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
    assert sweep.count(sweep.parsed(overrides)) == runs


def test_a_sweep_called_again_leaves_what_finished_goes_on_with_what_did_not_and_begins_the_rest(
    command: Command,
) -> None:
    assert command("seed=range(4)", "trainer.log_every=1")[0] == 0
    whole = {run.name: (run / "metrics.csv").read_text() for run in Path("sweep").glob("seed=*")}
    one, two, three, four = sorted(Path("sweep").glob("seed=*"))
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
    assert len(list(Path("sweep").glob("seed=*"))) == 4
    after = times()
    assert command("seed=range(4)", "trainer.log_every=1", "resume=false")[0] == 0
    assert len(list(Path("sweep").glob("seed=*"))) == 4 and all(times()[name] > after[name] for name in after)


def test_a_failed_run_is_named_and_the_others_go_on(command: Command) -> None:
    status, lines = command("optim.lr=1e-2,1e30,1e-3", "trainer.max_steps=20", "dataset=digits")
    assert status == 2 and len(times()) == 2  # 1e30 squared is beyond float32 in the second step, which is rehearsed
    assert lines[-1].startswith("ebmrun: error: failed in sweep: ") and "optim.lr=1e+30;" in lines[-1]
    # Mended, and called again: what finished is left alone.
    before = times()
    assert command("optim.lr=1e-2,1e-4,1e-3", "trainer.max_steps=20", "dataset=digits")[0] == 0
    assert before.items() <= times().items() and len(times()) == 3


def test_a_sweep_that_is_extended_trains_what_is_new(command: Command) -> None:
    assert command("algo=bp,pc", "seed=0,1") == (0, [])
    before = times()
    assert len(before) == 4
    assert command("seed=0,1,2", "algo=pc,bp") == (0, [])  # in another order, too
    assert len(times()) == 6 and before.items() <= times().items()
    assert summaries().keys() == {(algo, seed) for algo in ("bp", "pc") for seed in range(3)}


def test_a_sweep_that_is_asked_for_more_epochs_goes_on(command: Command) -> None:
    assert command("algo=bp", "seed=0,1", "trainer.log_every=1") == (0, [])
    first = {path: path.read_text() for path in Path("sweep").glob("*/metrics.csv")}
    more = ("trainer.max_steps=9", "dataset.root=elsewhere", "device=auto", "logger.tags=[more]")
    assert command("algo=bp", "seed=0,1", "trainer.log_every=1", *more) == (0, [])
    assert len(times()) == 2 and all(each["steps"] == 9 for each in summaries().values())
    for path, text in first.items():  # the row of the earlier end stays as it is
        assert path.read_text().startswith(text) and path.read_text().count("\n") == 10


def test_lengths_that_are_swept_are_runs_of_their_own(command: Command) -> None:
    assert command("algo=bp", "trainer.max_steps=2,3") == (0, [])
    assert sorted(Path(name).name for name in times()) == [
        "algo=bp,trainer.max_steps=2", "algo=bp,trainer.max_steps=3"]
    assert [rows[-1].split(",")[0] for rows in tables()] == ["2", "3"]


def test_in_weights_and_biases_a_run_of_several_is_named_by_what_differs(command: Command) -> None:
    assert command("dataset=digits", "algo=bp,pc", "nudge.strength=0.1", "seed=3,4") == (0, [])
    names = [yaml.safe_load(path.read_text())["logger"]["name"] for path in Path("sweep").glob("*/.hydra/config.yaml")]
    assert sorted(names) == ["bp seed=3", "bp seed=4", "pc seed=3", "pc seed=4"]


def test_what_is_asked_for_twice_is_one_choice() -> None:
    words = ["algo=bp", "seed=0,0,1", "optim.lr=1e-3,0.001", "arch.hidden=[8],[8,8],[8]", "trainer.epochs=range(3)"]
    assert sweep.distinct(sweep.parsed(words)) == [
        "algo=bp", "seed=0,1", "optim.lr=0.001", "arch.hidden=[8],[8,8]", "trainer.epochs=range(3)"]


def test_what_is_asked_for_twice_is_trained_once(command: Command) -> None:
    assert command("algo=bp", "seed=0,0,1", "optim.lr=1e-3,0.001") == (0, [])
    assert sorted(times()) == ["algo=bp,optim.lr=0.001,seed=0", "algo=bp,optim.lr=0.001,seed=1"]


def test_a_sweep_of_nothing_has_a_folder_with_a_name(command: Command) -> None:
    assert command() == (0, [])
    assert list(times()) == ["defaults"]


def test_names_leave_out_what_may_change_on_resume() -> None:
    composed = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())
    left_out = composed["hydra"]["job"]["config"]["override_dirname"]["exclude_keys"]
    below = {f"logger.{each.name}" for each in dataclasses.fields(LoggerConfig)}
    assert set(left_out) == set(FREE_ON_RESUME) | below


def test_runs_that_another_command_holds_are_left_to_it(tmp_path: Path, command: Command) -> None:
    forever = ("algo=bp", "seed=0,1", "alignment.every=0", "trainer.log_every=1")
    process = Forked(tmp_path, "-m", *SHORT, *forever, "trainer.max_steps=null", "trainer.epochs=100000")
    while not list(tmp_path.glob("sweep/*seed=0*/checkpoint.pt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    status, said = command(*forever)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=120)[1] == ""
    assert status == 1
    first, last = said
    held = "algo=bp,alignment.every=0,seed=0,trainer.log_every=1"
    assert first.startswith(f"ebmrun: error: {held}: ") and f"process {process.pid} on" in first
    assert last.startswith(f"ebmrun: error: left to other processes in sweep: {held};")
    assert list(times()) == [held.replace("seed=0", "seed=1")]
    assert not list(tmp_path.rglob("failed.json")) and not list(tmp_path.glob("sweep/.held*"))


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_two_sweeps_at_once_in_one_folder_leave_each_run_once(tmp_path: Path, launcher: str) -> None:
    words = ("-m", *SHORT[:2], "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}", "algo=bp", "seed=0,1",
             "trainer.epochs=3", "alignment.every=0")
    both = [Forked(tmp_path, *words) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert not list(tmp_path.rglob("failed.json")), said
    for process, text in zip(both, said):
        lines = text.splitlines()
        assert process.returncode == (1 if lines else 0), text
        assert all("is being written by process" in line or "left to other processes" in line for line in lines)
    found = [json.loads(path.read_text()) for path in tmp_path.glob("sweep/*/summary.json")]
    assert sorted(each["seed"] for each in found) == [0, 1] and all(each["steps"] == 69 for each in found)
    for table in tmp_path.glob("sweep/*/metrics.csv"):
        steps = [int(line.split(",")[0]) for line in table.read_text().splitlines()[1:]]
        assert steps == sorted(set(steps)) and steps[-1] == 69


THREADS = """
import os, torch, warnings
from ebmrun.theory.energies import Predictive

class Mine(Predictive):
    def __init__(self, feedback_gain: float) -> None:
        super().__init__(feedback_gain)
        warnings.warn("an energy of two\\nlines")
        with open(os.environ["THREADS_FILE"], "a") as file:
            file.write(f"{os.getpid()} {torch.get_num_threads()}\\n")
"""


def test_joblib_shares_out_the_threads_and_passes_warnings_on(tmp_path: Path) -> None:
    jobs = 2
    (tmp_path / "energy_with_threads.py").write_text(THREADS)
    said = tmp_path / "threads"
    done = subprocess.run(
        [sys.executable, "-m", "ebmrun", "-m", *SHORT, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}",
         "seed=0,1", "trainer.max_steps=2,3", "energy._target_=energy_with_threads.Mine"],
        cwd=tmp_path, env=environment() | {"THREADS_FILE": str(said)}, capture_output=True, text=True, timeout=300,
        check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == 4 * ["ebmrun: warning: an energy of two lines"]  # once a run
    lines = [line.split() for line in said.read_text().splitlines()]
    assert len({process for process, _ in lines}) == jobs
    assert {int(threads) for _, threads in lines} == {max((os.cpu_count() or 1) // jobs, 1)}
    assert {path.parent.name for path in tmp_path.glob("sweep/*/summary.json")} == {
        f"energy._target_=energy_with_threads.Mine,seed={seed},trainer.max_steps={steps}"
        for seed in (0, 1) for steps in (2, 3)}


def test_submitit_runs_each_as_a_job(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ebmrun", "-m", *SHORT, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5",
         "optim.lr=1e-2,-1"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "failed in sweep: optim.lr=-1" in done.stderr.splitlines()[-1]
    [run] = tmp_path.glob("sweep/*/summary.json")
    assert run.parent.name == "optim.lr=0.01" and json.loads(run.read_text())["steps"] == 4


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_an_interrupt_ends_the_sweep_and_called_again_it_goes_on(tmp_path: Path, launcher: str) -> None:
    arguments = ["-m", *SHORT, f"hydra/launcher={launcher}", "seed=0,1", "alignment.every=0", "trainer.log_every=1"]
    process = Forked(tmp_path, *arguments, "trainer.max_steps=null", "trainer.epochs=100000")
    running = 1 if launcher == "basic" else 2
    while len([path for path in tmp_path.glob("sweep/*/metrics.csv") if path.stat().st_size > 1000]) < running:
        assert process.poll() is None, process.communicate()
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
    assert sweep.count(sweep.parsed(chosen)) == 1
    done = subprocess.run([sys.executable, "-m", "ebmrun", *chosen, "logger=csv", "--cfg", "job"], env=environment(),
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert asked["metric"]["name"] == "val/accuracy"  # never by the test set
    assert asked["parameters"]["dataset.validation"]["value"] > 0


@given(st.text(), st.text())
def test_any_overrides_name_one_folder_of_their_own(one: str, other: str) -> None:
    names = [sweep.folder_name(overrides) for overrides in (one, other)]
    assert all(re.fullmatch(r"[\w,=+-][\w.,=+-]*", name, re.ASCII) and len(name) <= 255 for name in names)
    assert (names[0] == names[1]) == (one == other)


def test_long_overrides_name_folders_of_their_own() -> None:
    one, other = (f"arch.hidden=[{','.join(['64'] * 100)},{last}]" for last in (8, 9))
    assert sweep.folder_name(one) != sweep.folder_name(other)
    assert len(sweep.folder_name(one)) <= 255 and sweep.folder_name(one).startswith("arch.hidden=_64,64")


def environment() -> dict[str, str]:
    """Without the limits that this suite sets to itself."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")} | {"PYTHONPATH": path}
