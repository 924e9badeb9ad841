"""What the README says about parts of one's own and about the command line runs as it is written there."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ebmrun.command import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", README, re.DOTALL))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README.replace("\\\n", ""), re.DOTALL)
            for line in block.splitlines() if line.startswith("ebmrun ")]
Run = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the README's files, each below its own first line."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n{text}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in that folder, in this process; returns its exit status."""

    def command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ebmrun", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return command


def error_of_one_batch(run: Run, *arguments: str) -> float:
    """The relative error to the reference at the initial weights, in float64 and tightly relaxed."""
    assert run("logger=csv", "precision=float64", "trainer.max_steps=1", "alignment.every=1", "relax.tol=1e-12",
               "relax.max_steps=2000", "arch.hidden=[16,12]", "hydra.run.dir=run", *arguments) == 0
    with Path("run/metrics.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["relax/converged"] == "1"
    return float(row["alignment/relative_error"])


def test_the_readme_shows_an_energy_and_a_nudge() -> None:
    assert set(FILES) == {"my_energy.py", "conf/energy/mine.yaml", "conf/nudge/third_order.yaml"}
    assert FILES["conf/energy/mine.yaml"].count("\n") == 1
    assert any("energy=mine" in line for line in COMMANDS) and any("nudge=third_order" in line for line in COMMANDS)


@pytest.mark.parametrize("part", ["energy=mine", "nudge=third_order"])
def test_the_readme_runs_as_it_stands(folder: Path, part: str) -> None:
    # An installed command is a script elsewhere: the current folder is not where Python looks for modules.
    script = folder / "bin" / "ebmrun"
    script.parent.mkdir()
    script.write_text("from ebmrun.command.cli import main\nmain()\n")
    command = shlex.split(next(line for line in COMMANDS if part in line))
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, script, *command[1:]], capture_output=True, text=True, check=False,
                          timeout=300, env=os.environ | {"PYTHONPATH": path, "WANDB_MODE": "offline"})
    assert done.returncode == 0, done.stderr
    (summary,) = folder.glob("outputs/*/*/summary.json")
    found = json.loads(summary.read_text())
    assert found["test/accuracy"] > 0.5  # ten classes
    assert found["alignment/relative_error"] < 1e-2


def test_the_energy_of_the_readme_tends_to_backprop(run: Run) -> None:
    # The quartic term has no slope and no curvature at zero error: to first order the energy is the predictive one.
    errors = [error_of_one_batch(run, "energy=mine", "arch.activation=tanh", f"nudge.strength={strength}")
              for strength in ("1e-2", "1e-3")]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    predictive = error_of_one_batch(run, "arch.activation=tanh", "nudge.strength=1e-3")
    assert errors[1] == pytest.approx(predictive, rel=0.01)


def test_the_nudge_of_the_readme_is_of_third_order(run: Run) -> None:
    # A feedback gain below 1 keeps the equilibrium away from a bifurcation, near which only far weaker nudges are weak.
    errors = [error_of_one_batch(run, "algo=ep", "nudge=third_order", "alignment.reference=implicit",
                                 "arch.activation=tanh", "energy.feedback_gain=0.5", f"nudge.strength={strength}")
              for strength in ("1e-2", "1e-3")]
    assert errors[0] / errors[1] == pytest.approx(10**3, rel=0.1)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_composes(run: Run, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    one_of_each = [re.sub(r"=(range\(\d+\)|([^,\[]+),.*)$", lambda found: f"={found[2] or 0}", word)
                   for word in shlex.split(line)[1:] if word != "-m"]
    assert run(*one_of_each, "--cfg", "job") == 0, capsys.readouterr().err


def test_an_energy_that_contradicts_itself_is_refused(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # E = (x - f(a))^2 / 2 has feedback (x - f(a)) f'(a); with identity units a sign more is off by twice that.
    (folder / "contrary.py").write_text(
        "from ebmrun.theory.energies import Energy\n\n\nclass Contrary(Energy):\n"
        "    def value(self, x, a, f):\n        return (x - f(a)) ** 2 / 2\n\n"
        "    def feedback(self, x, a, f):\n        return f.pullback(f(a), f(a) - x)\n"
    )
    assert run("energy._target_=contrary.Contrary", "logger=csv") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    number = re.search(r"Contrary\.feedback contradicts its value\(\) by (\S+) for (\w+) units: mend", error)
    assert number and float(number[1]) > 1
    assert not Path("outputs").exists()


@pytest.mark.parametrize("target", ["my_energy.Nobody", "my_enregy.Mine", "Mine"])
def test_an_energy_that_is_not_there_names_the_folder(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    assert run(f"energy._target_={target}", "logger=csv") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"_target_={target} of energy" in error and str(folder) in error
    assert not Path("outputs").exists()


def test_an_option_that_is_not_there_lists_ones_own(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("energy=mien") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "energy=mien" in error and "mine" in error
    assert not Path("outputs").exists()


@pytest.mark.parametrize("weights, named", [("[1.0, 1.0]", "0 times"), ("[.nan, 0.5]", "finite"), ("[0.5]", "as many")])
def test_a_nudge_that_is_no_derivative_is_refused(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str], weights: str, named: str
) -> None:
    (folder / "conf" / "nudge" / "wrong.yaml").write_text(f"nodes: [1.0, -1.0]\nweights: {weights}\nstrength: 0.1\n")
    assert run("nudge=wrong", "logger=csv") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "nudge.weights" in error and named in error
