"""A run's folder tells the truth about the run: whenever a process is killed, and however many want it."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from program import Forked

from ebmrun.command import cli
from ebmrun.errors import Held
from ebmrun.training import folder

ROOT = Path(__file__).resolve().parents[2]
FILES = ("algo=bp", "logger=csv", "device=cpu", "alignment.every=0", "trainer.log_every=1")
SLOW = (*FILES, "trainer.batch_size=3", "trainer.epochs=2")  # 479 rows before the first checkpoint: time to be killed
ENDLESS = (*FILES, "trainer.epochs=100000")
Command = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in an empty folder; gives its status and the lines it wrote to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["ebmrun", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0), capfd.readouterr().err.splitlines()
        return 0, capfd.readouterr().err.splitlines()

    return run


def until(reached: Callable[[], bool], process: Forked) -> None:
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "time/step_ms"} for row in csv.DictReader(file)]


def lines(run: Path) -> int:
    """The lines of metrics.csv, which a restart removes at a moment of its own."""
    try:
        return (run / "metrics.csv").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def files(place: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(place).rglob("*") if path.is_file()}


# --- a restart -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [True, False], ids=["sweep", "single"])
def test_a_restart_that_was_killed_is_no_finished_run(command: Command, tmp_path: Path, several: bool) -> None:
    words = ("-m", "seed=0", "hydra.sweep.dir=s") if several else ("hydra.run.dir=s/run",)
    assert command(*SLOW, *words) == (0, [])
    [run] = (each for each in (tmp_path / "s").iterdir() if each.is_dir())
    whole = rows(run)
    assert len(whole) == 2 * 479
    process = Forked(tmp_path, *SLOW, *words, "resume=false")
    until(lambda: 3 < lines(run) < len(whole), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 3 <= len(rows(run)) < 479  # within its first epoch
    assert not (run / "summary.json").exists() and not (run / "checkpoint.pt").exists()
    assert command(*SLOW, *words, *(() if several else ("resume=true",))) == (0, [])
    assert rows(run) == whole
    assert json.loads((run / "summary.json").read_text())["steps"] == 2 * 479


KILLED_AT_EACH_FILE = """
import os, signal, sys
from ebmrun.command import cli

run, arguments = sys.argv[1], sys.argv[2:]
sys.stdout = open(os.devnull, "w")
sys.argv = ["ebmrun", *arguments, "hydra.run.dir=first"]  # what a process does once need not be done by each
cli.main()
for number in range(1, 100):
    child = os.fork()
    if not child:
        seen = 0
        def before(event, details):
            global seen
            if event in ("os.remove", "os.rename") and os.path.abspath(details[-3 if event == "os.rename" else 0]
                    ).startswith(os.path.abspath(run)) and ".lock" not in str(details[0]):
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(before)
        sys.argv = ["ebmrun", *arguments]
        cli.main()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.rename(run, f"{run}{number}")
    if status == 0:
        break
    assert status == -signal.SIGKILL, status
    os.system(f"cp -r before {run}")
print(number, file=sys.__stdout__, flush=True)
"""


def test_a_restart_killed_before_any_of_its_files_is_whole_or_unfinished(command: Command, tmp_path: Path) -> None:
    """Killed before each removal and each replacement of a file, a folder is that of the old run, of no run, or of the
    new one; what it then goes on to is what the configuration that it names comes to."""
    old, new = ((*FILES, "trainer.max_steps=3", f"seed={seed}") for seed in (1, 2))
    whole = {}
    for name, settings in (("before", old), ("after", new)):
        assert command(*settings, f"hydra.run.dir={name}") == (0, [])
        whole[name] = rows(Path(name))
    (tmp_path / "before" / "best.pt").touch()
    (tmp_path / "before" / "failed.json").touch()
    shutil.copytree("before", "run")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", KILLED_AT_EACH_FILE, "run", *new, "hydra.run.dir=run", "resume=false"],
                          capture_output=True, text=True, check=False, timeout=600,
                          env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    number = int(done.stdout)
    assert number > 8  # six files of the old run go, and five of the new one come
    finished = []
    for each in range(1, number + 1):
        run = Path(f"run{each}")
        found = folder.summary(run)
        finished.append(found.get("seed"))
        if found:
            assert rows(run) == whole["before" if found["seed"] == 1 else "after"]
        if folder.begun(run):
            is_old = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())["seed"] == 1
            assert command(*(old if is_old else new), f"hydra.run.dir={run}", "resume=true") == (0, [])
            assert rows(run) == whole["before" if is_old else "after"]
        else:  # nothing is there to go on from: a run begins without further words
            assert command(*new, f"hydra.run.dir={run}") == (0, [])
            assert rows(run) == whole["after"]
    assert finished[0] == 1 and finished[-1] == 2 and None in finished


def test_a_restart_that_cannot_be_leaves_the_old_run(command: Command) -> None:
    assert command(*FILES, "trainer.max_steps=3", "hydra.run.dir=run") == (0, [])
    before = files("run")
    status, (line,) = command(*FILES, "trainer.max_steps=3", "hydra.run.dir=run", "resume=false", "optim.lr=1e300")
    assert status == 2 and "optim.lr" in line
    assert files("run") == before


# --- a folder that is in use -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["algo=bp"], ["algo=pc", "seed=4"], ["study=certify", "algo=pc"]], ids=" ".join)
@pytest.mark.parametrize("unfinished", [False, True])
def test_a_run_is_not_overwritten_without_a_word(command: Command, words: list[str], unfinished: bool) -> None:
    assert command(*FILES, "trainer.max_steps=3", "hydra.run.dir=r3") == (0, [])
    if unfinished:
        for name in ("summary.json", "checkpoint.pt"):
            Path("r3", name).unlink()
    before = files("r3")
    status, (line,) = command("logger=csv", "device=cpu", "trainer.max_steps=3", *words, "hydra.run.dir=r3")
    assert status == 2 and "r3 holds a run" in line and "resume=r3" in line and "resume=false" in line
    assert files("r3") == before


def test_resume_false_overwrites(command: Command) -> None:
    assert command(*FILES, "trainer.max_steps=3", "hydra.run.dir=r3") == (0, [])
    assert command(*FILES, "trainer.max_steps=2", "seed=4", "hydra.run.dir=r3", "resume=false") == (0, [])
    found = folder.summary(Path("r3"))
    assert (found["seed"], found["steps"], len(rows(Path("r3")))) == (4, 2, 2)


@pytest.mark.parametrize("words", [["resume=r3"], ["resume=true", "hydra.run.dir=r3"]], ids=" ".join)
def test_a_study_goes_on_from_no_other_run(command: Command, words: list[str]) -> None:
    assert command(*FILES, "trainer.max_steps=3", "hydra.run.dir=r3") == (0, [])
    before = files("r3")
    status, (line,) = command(*FILES, "study=certify", *words)
    assert status == 2 and "r3/.hydra/config.yaml does not fit" in line and "study.run: saved" in line
    assert files("r3") == before and not Path("outputs").exists()


def test_a_process_that_holds_a_folder_is_named_and_its_end_frees_it(command: Command, tmp_path: Path) -> None:
    process = Forked(tmp_path, *ENDLESS, "hydra.run.dir=run")
    until(lambda: (tmp_path / "run" / "checkpoint.pt").is_file(), process)
    for words in (["resume=true", "hydra.run.dir=run"], ["resume=run"], ["resume=false", "hydra.run.dir=run"]):
        status, (line,) = command(*ENDLESS, *words)
        assert status == 1 and f"process {process.pid} on {os.uname().nodename} since 20" in line
        assert "hydra.run.dir=PATH" in line
    assert not (tmp_path / "run" / "failed.json").exists() and not (tmp_path / "outputs").exists()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (tmp_path / "run" / ".lock").exists()  # which alone says nothing
    done = len(rows(tmp_path / "run"))
    settings = (*FILES, "trainer.epochs=100000", f"trainer.max_steps={done + 30}", "hydra.run.dir=run")
    assert command(*settings, "resume=true") == (0, [])
    assert [row["step"] for row in rows(tmp_path / "run")] == [str(step) for step in range(1, done + 31)]
    assert not (tmp_path / "run" / ".lock").exists()


def add_one(place: Path, times: int) -> None:
    while times:
        with suppress(Held), folder.locked(place):
            number = int((place / "number").read_text())
            (place / "number").write_text(str(number + 1))
            times -= 1


def test_a_lock_is_one_processs_whatever_the_others_do_at_the_time(tmp_path: Path) -> None:
    """Processes that take and release it as fast as they can: each adds to a number that all of them read and write."""
    (tmp_path / "number").write_text("0")
    workers = [multiprocessing.get_context("fork").Process(target=add_one, args=(tmp_path, 200)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=300)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "600"
    assert [each.name for each in tmp_path.iterdir()] == ["number"]


def test_a_lock_is_not_taken_twice(tmp_path: Path) -> None:
    with folder.locked(tmp_path):
        with pytest.raises(Held, match=f"written by process {os.getpid()} on"), folder.locked(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()  # of the one that has it
    with folder.locked(tmp_path):
        pass


# --- what a resume needs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "lost"), [
    (("trainer.max_steps=30", "trainer.log_every=1"), 1),  # the row of the end
    (("trainer.max_steps=30", "trainer.log_every=7"), 2),  # that of the end, and 28
    (("trainer.epochs=1", "trainer.log_every=100"), 1),  # that of the epoch
    (("trainer.max_steps=30", "trainer.log_every=1"), 26),
])
def test_a_table_that_ends_before_the_checkpoint_is_refused(
    command: Command, settings: tuple[str, ...], lost: int
) -> None:
    kept = ("algo=bp", "logger=csv", "device=cpu", "alignment.every=0", *settings)
    assert command(*kept, "hydra.run.dir=run") == (0, [])
    last = rows(Path("run"))[-1]["step"]
    table = Path("run/metrics.csv")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-lost]))
    before = files("run")
    status, (line,) = command(*kept, "trainer.epochs=7", "trainer.max_steps=99", "hydra.run.dir=run", "resume=true")
    assert status == 2 and f"run/metrics.csv has no row of step {last}" in line and "resume=false" in line
    assert files("run") == before


def test_rows_after_the_checkpoint_may_be_cut(command: Command) -> None:
    settings = (*FILES, "hydra.run.dir=run", "trainer.log_every=7", "resume=true")
    assert command(*settings, "trainer.max_steps=23", "resume=null") == (0, [])  # an epoch, whose last row is its 23rd
    assert [row["step"] for row in rows(Path("run"))] == ["7", "14", "21", "23"]
    assert command(*settings, "trainer.max_steps=40") == (0, [])
    assert [row["step"] for row in rows(Path("run"))] == ["7", "14", "21", "23", "28", "35", "40"]


@pytest.mark.parametrize("name", ["checkpoint.pt", ".hydra/config.yaml"])
def test_files_of_another_run_are_refused(command: Command, name: str) -> None:
    for seed in (0, 1):
        assert command(*FILES, "trainer.max_steps=3", f"seed={seed}", f"hydra.run.dir=run{seed}") == (0, [])
    shutil.copyfile(Path("run1", name), Path("run0", name))
    before = files("run0")
    status, (line,) = command(*FILES, "trainer.max_steps=9", "seed=0", "resume=run0")
    assert status == 2 and name in line and "seed: saved 1, now 0" in line
    assert files("run0") == before


def test_a_damaged_configuration_is_one_line(command: Command) -> None:
    assert command(*FILES, "trainer.max_steps=3", "hydra.run.dir=run") == (0, [])
    Path("run/.hydra/config.yaml").write_text("algo: ]")
    status, (line,) = command(*FILES, "trainer.max_steps=9", "resume=run")
    assert status == 2 and "run/.hydra/config.yaml" in line and "resume=false" in line


def test_moved_data_and_another_device_go_on(command: Command) -> None:
    assert command(*FILES, "trainer.max_steps=3", "dataset.root=here", "hydra.run.dir=run") == (0, [])
    words = ("trainer.max_steps=5", "dataset.root=there", "device=auto", "resume=run")
    assert command(*FILES, *words) == (0, [])
    assert len(rows(Path("run"))) == 5
