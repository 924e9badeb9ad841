"""The command line: one line and a status for whatever goes wrong, and nothing left that no run wrote."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ebmrun.command import cli

SHORT = ("trainer.max_steps=1", "trainer.epochs=1", "logger=csv", "device=cpu")
Command = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in an empty folder; gives its status and the lines it wrote to stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # set by the command; put back after the test
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["ebmrun", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return end.code, capfd.readouterr().err.splitlines()
        return 0, capfd.readouterr().err.splitlines()

    return run


BAD = [
    (["algo=nope"], ["algo=nope", "bp", "pc"]),
    (["algoo=pc"], ["algoo", "did you mean algo?"]),
    (["sead=1"], ["sead", "did you mean seed?"]),
    (["nudge.strenght=1"], ["nudge.strenght", "did you mean strength?"]),
    (["trainer.zzz=1"], ["trainer.zzz", "epochs", "batch_size", "max_steps"]),
    (["seed.zzz=1"], ["seed.zzz=1", "Integer"]),
    (["energy.feedback_gain.zzz=1"], ["energy.feedback_gain.zzz", "is a value"]),
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


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_several_runs_go_on_past_those_that_fail(command: Command, tmp_path: Path, launcher: str) -> None:
    sweep = ("-m", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep", *SHORT)
    status, lines = command(*sweep, "nudge.strength=0,1e-3,-1")
    failed = {
        int(path.parent.name[0]): json.loads(path.read_text())
        for path in tmp_path.glob("sweep/*/failed.json")
    }
    assert status == 2 and failed.keys() == {0, 2}
    assert all(each["exit_status"] == 2 and "nudge.strength" in each["error"] for each in failed.values())
    assert [path.parent.name[0] for path in tmp_path.glob("sweep/*/summary.json")] == ["1"]
    assert lines[-1].count("nudge.strength=") == 2 and "nudge.strength=1e-3" not in lines[-1].replace(
        ",1e-3,", ""
    )
    # Again in the same folder, now with good values alone: the failures of before are not this command's.
    assert command(*sweep, "nudge.strength=1e-2,1e-3,1e-4")[0] == 0


def test_a_run_that_fails_among_bad_configurations_decides_the_status(
    command: Command, tmp_path: Path
) -> None:
    many = ("trainer.max_steps=20", "trainer.epochs=1", "logger=csv", "device=cpu")
    # Steps of 20 make the weights grow from step to step, beyond float32 within some; the first two are still in range.
    status, _ = command("-m", "hydra.sweep.dir=sweep", *many, "optim.lr=20,-1")
    failures = [
        json.loads(path.read_text())["exit_status"] for path in sorted(tmp_path.glob("sweep/*/failed.json"))
    ]
    assert status == 1 and failures == [1, 2]
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


def test_module_and_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ebmrun", "--help"], capture_output=True, text=True, check=True
    )
    assert all(re.search(rf"^{group}: \w", done.stdout, re.MULTILINE) for group in cli.GROUPS)
    assert not done.stderr
