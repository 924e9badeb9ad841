"""A run says what it was made with, and is not finished any more once that was another thing."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from program import Ended, Forked

import ebmrun
from ebmrun.training import provenance
from ebmrun.training.own_modules import own_modules

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("logger=csv", "device=cpu", "trainer.max_steps=2", "trainer.log_every=1", "energy._target_=mine.Mine",
         "arch.hidden=[4]", "nudge.strength=0.1", "trainer.batch_size=8", "alignment.every=0")
ENERGY = """
import numpy
from parts.half import half

class Mine({base}):
    feedforward = True

    def value(self, x, a, f):
        return half((x - f(a)) ** 2)
"""
Run = Callable[..., "tuple[int, list[str]]"]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def launch(folder: Path, *words: str) -> Ended:
    """The command in a process of its own: what a process has imported stays what it was."""
    process = Forked(folder, *words)
    said = process.communicate()[1]
    return Ended(process.returncode, said.splitlines())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an energy of a user's own, which imports a module of a package of the user's own, and one more."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").touch()
    (tmp_path / "parts" / "half.py").write_text("def half(value):\n    return value / 2\n")
    (tmp_path / "mine.py").write_text("from ebmrun.theory.energies import ByValue\n" + ENERGY.format(base="ByValue"))
    (tmp_path / "unrelated.py").write_text("1 / 0\n")
    return tmp_path


def git(folder: Path, *words: str) -> str:
    who = {f"GIT_{role}_{key}": "x@y" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True,
                          env=os.environ | who).stdout.strip()


# --- the code and the machine ----------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_package() -> None:
    facts = provenance.provenance({"device": "cpu"})
    assert facts["ebmrun"] == ebmrun.__version__
    assert (facts["torch"], facts["python"]) == (torch.__version__, platform.python_version())
    assert (facts["device"], facts["threads"]) == ("cpu", str(torch.get_num_threads()))


COMMIT = "from ebmrun.training.provenance import commit; print(commit())"


def commit(folder: Path) -> str:
    """What the package in a folder says of itself."""
    return subprocess.run([sys.executable, "-c", COMMIT], cwd=folder, capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(folder)}).stdout.strip()


def test_the_commit_is_that_of_the_checkout_alone(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ebmrun", tmp_path / "ebmrun", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    assert commit(tmp_path) == ""  # no checkout
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "--quiet", "-m", "of another project")
    assert commit(tmp_path) == ""  # as where it is installed into an environment that lies in one
    git(tmp_path, "add", "ebmrun")
    git(tmp_path, "commit", "--quiet", "-m", "of this one")
    git(tmp_path, "tag", "v7")
    whole = git(tmp_path, "rev-parse", "HEAD")
    assert commit(tmp_path) == whole and len(whole) == 40
    (tmp_path / "ebmrun" / "errors.py").open("a").write("# changed\n")
    assert commit(tmp_path) == f"{whole}+dirty"


def test_facts_of_a_run_that_goes_on_are_kept_beside_the_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".hydra").mkdir()
    now = {"ebmrun": "2", "torch": "9.1", "python": "3.12", "device": "cpu", "commit": ""}
    before = {"ebmrun": "1 then 2", "torch": "9.0", "python": "3.11", "device": "cpu"}
    (tmp_path / provenance.FILE).write_text(yaml.safe_dump(before))
    assert provenance.continued(tmp_path, now) == {
        "ebmrun": "1 then 2", "torch": "9.0 then 9.1", "python": "3.11 then 3.12", "device": "cpu", "commit": ""}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ebmrun: warning: ") and "torch 9.0" in line and "9.1" in line
    assert provenance.continued(tmp_path / "none", now) == now


# --- modules of one's own --------------------------------------------------------------------------------------------


def test_modules_are_those_that_the_configuration_names_and_what_they_import(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    import mine  # noqa: F401

    config = {"energy": {"_target_": "mine.Mine"}, "optim": {"_target_": "torch.optim.SGD"},
              "algo": {"build": "ebmrun.experiment.energy_learning"}, "arch": {"hidden": [8]}, "seed": 0,
              "study": {"curves": [{"of": "json.dumps"}]}, "dataset": {"root": "/data.of/mine"}}
    assert own_modules(config) == {
        "mine": folder / "mine.py", "parts": folder / "parts" / "__init__.py",
        "parts.half": folder / "parts" / "half.py"}
    assert own_modules(config | {"energy": {}}) == {}
    for name in ("mine", "parts", "parts.half"):  # which monkeypatch would put back
        del sys.modules[name]


def test_a_run_records_its_modules_and_an_energy_that_changes_unfinishes_it(folder: Path) -> None:
    assert launch(folder, *SHORT, "hydra.run.dir=run").status == 0
    hashes = {f"modules/{name}": digest(folder / path) for name, path in (
        ("mine", "mine.py"), ("parts", "parts/__init__.py"), ("parts.half", "parts/half.py"))}
    facts = yaml.safe_load((folder / "run" / ".hydra" / "provenance.yaml").read_text())
    assert {key: value for key, value in facts.items() if key.startswith("modules/")} == hashes
    found = json.loads((folder / "run" / "summary.json").read_text())
    assert hashes.items() <= {key.removeprefix("provenance/"): value for key, value in found.items()}.items()
    # With the modules as they were, a finished run is one.
    assert launch(folder, *SHORT, "resume=run").status == 0
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    half = folder / "parts" / "half.py"
    half.write_text("def half(value):\n    return value * 0.5\n")
    done = launch(folder, *SHORT, "resume=run")
    [line] = done.lines
    assert done.status == 2 and f"{half} has changed since the run in" in line and "resume=false" in line
    assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == before
    assert launch(folder, *SHORT, "hydra.run.dir=run", "resume=false").status == 0
    found = json.loads((folder / "run" / "summary.json").read_text())
    assert found["provenance/modules/parts.half"] == digest(half) != hashes["modules/parts.half"]


def test_a_sweep_says_which_runs_an_energy_that_changed_has_left_behind(folder: Path) -> None:
    sweep = ("-m", *SHORT, "seed=0,1", "hydra.sweep.dir=sweep")
    assert launch(folder, *sweep).status == 0
    (folder / "mine.py").open("a").write("# and more\n")
    done = launch(folder, *sweep, "seed=1,2")
    lines = [line for line in done.lines if line.startswith("ebmrun: error: ")]
    assert done.status == 2 and len(lines) == 2, done.lines
    assert "seed=1" in lines[0] and f"{folder / 'mine.py'} has changed" in lines[0]
    assert lines[1].startswith("ebmrun: error: failed in sweep: ") and "seed=2" not in lines[1]
    assert len(list(folder.glob("sweep/*/summary.json"))) == 3
    assert launch(folder, *sweep, "seed=0,1", "resume=false").status == 0
    assert not list(folder.glob("sweep/*/failed.json"))
