"""What README and docs/ say about parts of one's own and about the command line runs as it is written there."""

import csv
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from program import Command, environment

ROOT = Path(__file__).resolve().parents[2]
README = "".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", README, re.DOTALL))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README.replace("\\\n", ""), re.DOTALL)
            for line in block.splitlines() if line.startswith("ebmrun ")]

PARTS = ("energy=mine", "arch=mine", "nudge=third_order", "dataset=mine")


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
def command(command: Command, folder: Path) -> Command:
    """The command where the README's files lie."""
    return command


PARTS = ("energy=mine", "arch=mine", "nudge=third_order", "arch=asinh", "cost=huber", "optim=sign")


def error_of_one_batch(command: Command, *arguments: str) -> float:
    """The relative error to the reference at the initial weights, in float64 and tightly relaxed."""
    assert command("precision=float64", "trainer.max_steps=1", "alignment.every=1", "relax.tol=1e-12",
                   "relax.max_steps=2000", "arch.hidden=[16,12]", "hydra.run.dir=run", "resume=false",
                   *arguments).status == 0
    with Path("run/metrics.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["relax/converged"] == "1"
    return float(row["alignment/relative_error"])


def test_the_readme_shows_an_energy_a_network_a_nudge_and_data() -> None:
    assert set(FILES) == {
        "my_energy.py", "conf/energy/mine.yaml", "my_network.py", "conf/arch/mine.yaml", "conf/nudge/third_order.yaml",
        "my_feedback.py", "my_activation.py", "conf/arch/asinh.yaml", "my_cost.py", "conf/cost/huber.yaml",
        "my_optimizer.py", "conf/optim/sign.yaml", "my_study.py", "conf/study/sizes.yaml", "my_data.py",
        "conf/dataset/mine.yaml"}
    assert FILES["conf/energy/mine.yaml"].count("\n") == 1
    assert all(any(part in line for line in COMMANDS) for part in (*PARTS, "study=sizes"))


@pytest.mark.parametrize("part", PARTS)
def test_the_readme_runs_as_it_stands(folder: Path, part: str) -> None:
    # An installed command is a script elsewhere: the current folder is not where Python looks for modules.
    script = folder / "bin" / "ebmrun"
    script.parent.mkdir()
    script.write_text("from ebmrun.command.cli import main\nmain()\n")
    command = shlex.split(next(line for line in COMMANDS if part in line))
    done = subprocess.run([sys.executable, script, *command[1:]], capture_output=True, text=True, check=False,
                          timeout=300, env=environment())
    assert done.returncode == 0, done.stderr
    (summary,) = folder.glob("outputs/*/*/summary.json")
    found = json.loads(summary.read_text())
    assert found["test/accuracy"] > 0.5  # ten classes
    assert found["alignment/relative_error"] < 1e-2


def test_the_feedback_of_the_readme_is_a_tenth_of_a_weight_away(command: Command) -> None:
    # N has the law of the initial weights W, and nothing to do with them: the angle between W and W + N / 10 is that
    # whose tangent is a tenth.
    assert command("feedback._target_=my_feedback.Offset", "trainer.max_steps=1", "alignment.every=1",
                   "hydra.run.dir=run").status == 0
    with open("run/metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["feedback/angle"]) == pytest.approx(math.degrees(math.atan(0.1)), rel=0.05)


def test_the_energy_of_the_readme_tends_to_backprop(command: Command) -> None:
    # The quartic term has no slope and no curvature at zero error: to first order the energy is the predictive one.
    errors = [error_of_one_batch(command, "energy=mine", "arch.activation=tanh", f"nudge.strength={strength}")
              for strength in ("1e-2", "1e-3")]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    predictive = error_of_one_batch(command, "arch.activation=tanh", "nudge.strength=1e-3")
    assert errors[1] == pytest.approx(predictive, rel=0.01)


def test_the_energy_of_the_readme_keeps_its_digits_in_float32(command: Command) -> None:
    # States in float32 would leave 1e-3 of so weak a displacement; the bias of the nudge is a tenth of that.
    errors = [error_of_one_batch(command, "energy=mine", "arch.activation=tanh", "nudge.strength=1e-4",
                                 f"precision={precision}", f"relax.tol={tol}")
              for precision, tol in (("float32", "1e-5"), ("float64", "1e-12"))]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


@pytest.mark.parametrize("algo", ["pc", "lifted", "ep"])
def test_the_activation_of_the_docs_tends_to_its_gradient(command: Command, algo: str) -> None:
    """In first order, for each kind of energy: a wrong G, G*, slope or increment would leave a bias."""
    # A feedback gain below 1 lets the unbounded units of the Hopfield energy settle.
    errors = [error_of_one_batch(command, f"algo={algo}", "arch=asinh", "arch.activation=asinh",
                                 "alignment.reference=implicit", "energy.feedback_gain=0.5",
                                 f"nudge.strength={strength}")
              for strength in ("1e-2", "1e-3")]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


def test_the_study_of_the_docs_measures_each_size(command: Command) -> None:
    assert command("study=sizes", "nudge.strength=1e-2", "hydra.run.dir=run").status == 0
    with Path("run/metrics.csv").open(newline="") as file:
        found = {row["examples"]: float(row["error"]) for row in csv.DictReader(file)}
    assert list(found) == ["1", "4", "16", "64"] and all(1e-4 < error < 0.5 for error in found.values())
    assert json.loads(Path("run/summary.json").read_text())["error of all"] == found["64"]


def test_the_nudge_of_the_readme_is_of_third_order(command: Command) -> None:
    # A feedback gain below 1 keeps the equilibrium away from a bifurcation, near which only far weaker nudges are weak.
    errors = [error_of_one_batch(command, "algo=ep", "nudge=third_order", "alignment.reference=implicit",
                                 "arch.activation=tanh", "energy.feedback_gain=0.5", f"nudge.strength={strength}")
              for strength in ("1e-2", "1e-3")]
    assert errors[0] / errors[1] == pytest.approx(10**3, rel=0.1)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_composes(command: Command, line: str) -> None:
    one_of_each = [re.sub(r"^([^=]+)=(range\(\d+\)|([^,\[]+),.*)$", lambda found: f"{found[1]}={found[3] or 0}", word)
                   for word in shlex.split(line, comments=True)[1:] if word != "-m"]
    assert command(*one_of_each, "--cfg", "job") == (0, [])


def test_an_energy_that_contradicts_itself_is_refused(
    command: Command, folder: Path
) -> None:
    # E = (x - f(a))^2 / 2 has feedback (x - f(a)) f'(a); with identity units a sign more is off by twice that.
    (folder / "contrary.py").write_text(
        "from ebmrun.theory.energies import ByValue\n\n\nclass Contrary(ByValue):\n"
        "    def value(self, x, a, f):\n        return (x - f(a)) ** 2 / 2\n\n"
        "    def feedback(self, x, a, f):\n        return f.pullback(f(a), f(a) - x)\n"
    )
    status, [error] = command("energy._target_=contrary.Contrary")
    number = re.search(r"Contrary\.feedback contradicts its value\(\) by (\S+) for (\w+) units: mend", error)
    assert status == 2 and number and float(number[1]) > 1
    assert not Path("outputs").exists()


@pytest.mark.parametrize("target", ["my_energy.Nobody", "my_enregy.Mine", "Mine"])
def test_an_energy_that_is_not_there_names_the_folder(
    command: Command, folder: Path, target: str
) -> None:
    status, [error] = command(f"energy._target_={target}")
    assert status == 2 and f"_target_={target} of energy" in error and str(folder) in error
    assert not Path("outputs").exists()


def test_an_option_that_is_not_there_lists_ones_own(command: Command) -> None:
    status, [error] = command("energy=mien")
    assert status == 2 and "energy=mien" in error and "mine" in error
    assert not Path("outputs").exists()


@pytest.mark.parametrize("weights, named", [("[1.0, 1.0]", "0 times"), ("[.nan, 0.5]", "finite"), ("[0.5]", "as many")])
def test_a_nudge_that_is_no_derivative_is_refused(
    command: Command, folder: Path, weights: str, named: str
) -> None:
    (folder / "conf" / "nudge" / "wrong.yaml").write_text(f"nodes: [1.0, -1.0]\nweights: {weights}\nstrength: 0.1\n")
    status, [error] = command("nudge=wrong")
    assert status == 2 and "nudge.weights" in error and named in error
