"""The command line: one line and a status for whatever goes wrong, and nothing left that no run wrote."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from program import Command, Forked

from ebmrun.command import cli

SHORT = ("trainer.max_steps=1", "trainer.epochs=1", "logger=csv", "device=cpu")

BAD = [
    (["algo=nope"], ["algo=nope", "bp", "pc"]),
    (["algoo=pc"], ["algoo", "did you mean algo?"]),
    (["sead=1"], ["sead", "did you mean seed?"]),
    (["nudge.strenght=1"], ["nudge.strenght", "did you mean strength?"]),
    (["trainer.zzz=1"], ["trainer.zzz", "epochs", "batch_size", "max_steps"]),
    (["seed.zzz=1"], ["seed.zzz=1", "Integer"]),
    (["energy.feedback_gain.zzz=1"], ["energy.feedback_gain.zzz", "is a value"]),
    (["+scheduler=cosine"], ["scheduler: no such key", "did you mean schedule?"]),
    (["+zebra=cosine"], ["zebra: no such key", "the keys are", "optim", "trainer"]),
    (["+optimm.lr=1"], ["optimm: no such key", "did you mean optim?"]),
    (["+sead=1"], ["sead: no such key", "did you mean seed?"]),
    (["+nudge.strenght=1"], ["nudge.strenght: no such key", "did you mean strength?"]),
    (["+trainer.zzz=1"], ["trainer.zzz: no such key", "epochs, log_every, max_steps"]),
    (["++logger.tag=x"], ["logger.tag: no such key", "did you mean tags?"]),
    (["+dataset.rooot=x"], ["dataset.rooot: no such key", "did you mean root?"]),
    (["seed=abc"], ["seed=abc", "Integer"]),
    (["seed"], ["'seed'", "key=value"]),
    (["arch.hidden=[1,"], ["arch.hidden=[1,", "key=value"]),
    (["algo=bp,pc"], ["algo=bp,pc", "-m"]),
    (["algo=[pc,bp]"], ["algo=[pc,bp]", "one of its options", "algo=bp,pc"]),
    (["-m", "algo=ep,[pc]"], ["algo=ep,[pc]", "one of its options"]),
    (["logger=null"], ["logger=null", "one of its options"]),
    (["algo=3"], ["algo=3", "one of its options"]),
    (["energy=nan"], ["energy=nan", "one of its options"]),
    (["optim._target_=torch.optim.LBFGS", "~optim.momentum", "~optim.weight_decay"],
     ["torch.optim.LBFGS", "use optim=sgd"]),
    (["algo="], ["algo=", "one of its options"]),
    (["~algo"], ["~algo", "one of its options"]),
    (["seed=range(3)"], ["seed=range(3)", "-m"]),
    (["-m", "algo=bp,nope"], ["algo=nope", "bp", "pc"]),
    (["-m", "seed=0,abc"], ["seed=abc", "Integer"]),
    (["nudge.strength=0"], ["nudge.strength=0"]),
    (["energy._target_=absent.Mine"], ["absent.Mine"]),
    (["+energy.zzz=1"], ["zzz"]),
    (["optim.lr=1e39"], ["optim.lr=1e+39", "up to 3.4e+38"]),
    (["hydra.run.dir=/dev/null/x"], ["/dev/null", "hydra.run.dir="]),
]


@pytest.mark.parametrize(("arguments", "fragments"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(
    command: Command, tmp_path: Path, arguments: list[str], fragments: list[str]
) -> None:
    status, lines = command(*arguments)
    assert status == 2
    (line,) = lines
    assert line.startswith("ebmrun: error: ") and all(fragment in line for fragment in fragments), line
    assert not list(tmp_path.iterdir())


def test_a_folder_that_the_user_made_stays(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert command("nudge.strength=0", "hydra.run.dir=mine/deep/run")[0] == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_broken_configuration_file_is_named_with_its_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf/algo").mkdir(parents=True)
    (tmp_path / "conf/algo/mine.yaml").write_text("name: mine\nenergy: ]\n")
    status, (line,) = command("algo=mine")
    assert status == 2 and "conf/algo/mine.yaml, line 2" in line


def test_a_preset_of_ones_own_with_an_unknown_key_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf/algo").mkdir(parents=True)
    (tmp_path / "conf/algo/mine.yaml").write_text("# @package _global_\nalgo: {name: mine}\nnugde: {strength: 1}\n")
    status, (line,) = command("algo=mine")
    assert status == 2 and "algo/mine.yaml: nugde: no such key" in line and "did you mean nudge?" in line


def test_keys_of_ones_own_go_where_parts_of_ones_own_do(command: Command, tmp_path: Path) -> None:
    extra = ("+algo.note=mine", "+study.note=mine", "+optim.dampening=0.0")
    assert command(*extra, "hydra.run.dir=run", *SHORT) == (0, [])
    composed = yaml.safe_load((tmp_path / "run/.hydra/config.yaml").read_text())
    assert composed["algo"]["note"] == composed["study"]["note"] == "mine"


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_several_runs_go_on_past_those_that_fail(command: Command, tmp_path: Path, launcher: str) -> None:
    sweep = ("-m", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep", *SHORT)
    status, lines = command(*sweep, "nudge.strength=0,1e-3,-1")
    failed = {
        path.parent.name: json.loads(path.read_text())
        for path in tmp_path.glob("sweep/*/failed.json")
    }
    assert status == 2 and failed.keys() == {"nudge.strength=0", "nudge.strength=-1"}
    assert all(each["exit_status"] == 2 and "nudge.strength" in each["error"] for each in failed.values())
    assert [path.parent.name for path in tmp_path.glob("sweep/*/summary.json")] == ["nudge.strength=0.001"]
    assert "nudge.strength=-1, nudge.strength=0;" in lines[-1] and "0.001" not in lines[-1]
    # Again in the same folder, now with good values alone: the failures of before are not this command's.
    assert command(*sweep, "nudge.strength=1e-2,1e-3,1e-4")[0] == 0


def test_a_run_that_fails_among_bad_configurations_decides_the_status(
    command: Command, tmp_path: Path
) -> None:
    many = ("trainer.max_steps=20", "trainer.epochs=1", "logger=csv", "device=cpu")
    # Steps of 20 make the weights grow from step to step, beyond float32 within some; the first two are still in range.
    status, _ = command("-m", "hydra.sweep.dir=sweep", *many, "optim.lr=20,-1")
    failures = {
        path.parent.name: json.loads(path.read_text())["exit_status"] for path in tmp_path.glob("sweep/*/failed.json")
    }
    assert status == 1 and failures == {"optim.lr=20": 1, "optim.lr=-1": 2}
    assert command("optim.lr=20", *many)[0] == 1


ENERGY = """
from ebmrun.theory.energies import Predictive

class {name}(Predictive):
    {body}
"""


def test_energies_and_configurations_of_the_current_folder(command: Command, tmp_path: Path) -> None:
    (tmp_path / "conf/energy").mkdir(parents=True)
    target = "_target_: energy_of_a_user.Mine\nfeedback_gain: 1.0\n"
    (tmp_path / "conf/energy/mine.yaml").write_text(target)
    (tmp_path / "energy_of_a_user.py").write_text(ENERGY.format(name="Mine", body="pass"))
    status, lines = command("energy=mine", "hydra.run.dir=run", *SHORT)
    assert status == 0, lines
    composed = yaml.safe_load((tmp_path / "run/.hydra/config.yaml").read_text())
    assert composed["energy"] == yaml.safe_load(target)


@pytest.mark.parametrize(
    ("module", "raised", "expected"), [("dividing", "1 / 0", 1), ("stopping", "raise KeyboardInterrupt", 130)]
)
def test_a_bug_shows_where_it_is_and_an_interrupt_is_silent(
    command: Command, tmp_path: Path, module: str, raised: str, expected: int
) -> None:
    body = f"def __init__(self, feedback_gain: float) -> None:\n        {raised}"
    (tmp_path / f"{module}.py").write_text(ENERGY.format(name="Mine", body=body))
    status, lines = command(f"energy._target_={module}.Mine")
    assert status == expected
    assert any(f"{module}.py" in line for line in lines) == (expected == 1) == bool(lines)


COUNTING = """
import torch

class Counting(torch.optim.SGD):
    def __init__(self, params, lr, period):
        super().__init__(params, lr)
        self.period, self.steps = period, 0

    def step(self, closure=None):
        self.steps += 1
        if self.steps % self.period == 0:
            super().step(closure)
"""


def test_an_optimizer_with_attributes_of_its_own_trains(command: Command, tmp_path: Path) -> None:
    """It steps every second time alone: two batches move the weights as far as the first step of its period."""
    (tmp_path / "counting_optimizer.py").write_text(COUNTING)
    settings = ("algo=bp", "logger=csv", "device=cpu", "trainer.max_steps=3", "trainer.log_every=1", "optim.lr=0.5",
                "~optim.momentum", "~optim.weight_decay", "optim._target_=counting_optimizer.Counting")
    losses = {}
    for period in (2, 1000):
        assert command(*settings, f"+optim.period={period}", f"hydra.run.dir=by{period}") == (0, [])
        table = (tmp_path / f"by{period}/metrics.csv").read_text().splitlines()
        at = table[0].split(",").index("train/loss")
        losses[period] = [line.split(",")[at] for line in table[1:]]
    assert losses[2][:2] == losses[1000][:2] and losses[2][2] != losses[1000][2]


WAITING = """
import time
from pathlib import Path

Path("loading").touch()
time.sleep(100)
"""


@pytest.mark.parametrize("arguments", [["hydra.run.dir=deep/run"], [], ["-m", "seed=0,1"]], ids=" ".join)
def test_a_termination_while_a_run_loads_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    process = Forked(tmp_path, *SHORT, "energy._target_=waiting.Mine", *arguments)
    while not (tmp_path / "loading").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 128 + signal.SIGTERM
    assert sorted(each.name for each in tmp_path.iterdir()) == ["loading", "waiting.py"]


def test_a_log_shows_what_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are in the file as they are printed, and not when the command ends."""
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="utf8"))
    monkeypatch.setattr(sys, "argv", ["ebmrun", "--completion", "bash"])
    cli.main()
    assert b"complete" in file.getvalue()


def test_module_and_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ebmrun", "--help"], capture_output=True, text=True, check=True
    )
    assert all(re.search(rf"^{group}: \w", done.stdout, re.MULTILINE) for group in cli.GROUPS)
    assert not done.stderr
