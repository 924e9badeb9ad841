"""From Python, the same words do the same as on the command line, and a run reads back as it was."""

from __future__ import annotations

import ast
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pandas as pd
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from program import ROOT, Command, environment
from run_folder import rows, saved, summary, timeless

import ebmrun

SHORT = ("logger=csv", "device=cpu", "trainer.max_steps=30", "trainer.log_every=10", "alignment.every=10")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_name_is_there_and_loaded_late() -> None:
    late = "import sys, ebmrun; dir(ebmrun); ebmrun.ConfigError; assert not {'torch', 'hydra'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", late], env=environment(), check=True)
    assert set(dir(ebmrun)) == {*ebmrun.PLACE, "__version__"}
    for name, place in ebmrun.PLACE.items():
        assert getattr(ebmrun, name) is getattr(importlib.import_module(f"ebmrun.{place}"), name)
    with pytest.raises(AttributeError, match=r"no attribute 'lode'; it offers .*load, train"):
        ebmrun.lode  # noqa: B018


def test_a_type_checker_sees_the_same_names() -> None:
    tree = ast.parse((ROOT / "ebmrun/__init__.py").read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    seen = {each.asname: node.module for node in imported for each in node.names if each.asname}
    assert seen == {name: f"ebmrun.{place}" for name, place in ebmrun.PLACE.items()}


@pytest.mark.parametrize("words", [[], ["algo=ep", "energy=lifted", "nudge.strength=0.01", "arch.hidden=[8,7]"]])
def test_words_compose_what_they_compose_for_the_command(
    words: list[str], command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(*words, "--cfg", "job").status == 0
    shown = yaml.safe_load(capfd.readouterr().out)
    assert OmegaConf.to_container(ebmrun.compose("logger=csv", *words)) == shown


def test_options_of_the_current_folder_compose(tmp_path: Path) -> None:
    (tmp_path / "conf/nudge").mkdir(parents=True)
    (tmp_path / "conf/nudge/mine.yaml").write_text("nodes: [2.0]\nweights: [0.5]\nstrength: 0.25\n")
    assert ebmrun.build("nudge=mine", "nudge.strength=0.125").config.nudge.strengths == [0.25]


def test_an_alignment_is_that_of_the_same_batch_of_a_run(command: Command) -> None:
    words = ("algo=ep", "alignment.reference=both", "arch.hidden=[8]", "trainer.max_steps=1", "alignment.every=1")
    assert command(*words, "hydra.run.dir=run").status == 0
    (row,) = rows("run")
    trial = ebmrun.build(*words, "device=cpu")
    found = trial.alignment(*trial.batch())
    assert found == {key: float(row[key]) for key in found}
    assert {"alignment/angle", "alignment_implicit/relative_error/layer2"} <= found.keys()
    assert trial.estimate(*trial.batch()).steps == int(row["relax/steps"])
    assert [len(trial.batch(number)[0]) for number in (0, -1)] == [64, 1437 % 64]
    with pytest.raises(IndexError):
        trial.batch(1437 // 64 + 1)


def test_a_training_is_the_commands_and_reads_back(command: Command) -> None:
    words = (*SHORT, "precision=float64", "arch.hidden=[8]")
    assert command(*words, "hydra.run.dir=there").status == 0
    run = ebmrun.train(*words, folder="deep/here")
    assert timeless("deep/here") == timeless("there")
    assert run.summary == summary("deep/here") and run.config.arch.hidden == [8]
    written = rows("deep/here")
    assert run.metrics["step"].tolist() == [10, 20, 23, 30] and len(written) == 4
    losses = [float(row["test/loss"]) if row["test/loss"] else float("nan") for row in written]
    pd.testing.assert_series_equal(run.metrics["test/loss"], pd.Series(losses, name="test/loss"))
    weights = saved("deep/here")["network"]
    assert all(torch.equal(weights[name], value) for name, value in run.network.state_dict().items())
    test = run.trial.dataset.test
    accuracy = (run.network(test.inputs).argmax(1) == test.labels).double().mean().item()
    assert accuracy == run.summary["test/accuracy"] and test.inputs.dtype == torch.float64


def test_a_run_goes_on_and_is_loaded_with_changes() -> None:
    assert ebmrun.train(*SHORT, folder="run").summary["steps"] == 30
    for words, folder in ((("resume=true",), "run"), (("resume=run",), None)):
        run = ebmrun.train(*SHORT, "trainer.max_steps=40", *words, folder=folder)
        assert run.summary["steps"] == 40 and run.folder == Path("run")
    changed = ebmrun.load("run", "seed=7", "trainer.batch_size=5")
    assert changed.trial.config.seed == 7 and len(changed.trial.batch()[0]) == 5
    assert torch.equal(changed.network.weights[0], run.network.weights[0])


def test_a_run_of_its_own_folder() -> None:
    run = ebmrun.train(*SHORT)
    assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-\d{6}-pc-digits", run.folder.as_posix())
    assert (run.folder / "summary.json").is_file()


def test_an_interrupt_is_an_interrupt_and_leaves_a_checkpoint() -> None:
    def interrupt() -> None:
        while not Path("run/metrics.csv").is_file() or Path("run/metrics.csv").read_bytes().count(b"\n") < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="resume=run"):
        ebmrun.train(*SHORT[:2], "trainer.log_every=1", "trainer.epochs=10000", folder="run")
    thread.join()
    run = ebmrun.load("run")
    assert run.summary == {} and run.metrics["step"].iloc[-1] == saved("run")["step"]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: ebmrun.build("sead=1"), "sead: no such key; did you mean seed"),
    (lambda: ebmrun.build("algo=nope"), "algo=nope: no such option; algo is one of bp, chl"),
    (lambda: ebmrun.compose("nudge.strength=0"), "nudge.strength=0.0 must be a positive number"),
    (lambda: ebmrun.compose("algo=[pc,bp]"), "a group takes the name of one of its options"),
    (lambda: ebmrun.build("dataset=mnist"), "dataset.root=/dev/null"),
    (lambda: ebmrun.build("energy._target_=absent.Mine"), "absent.Mine"),
    (lambda: ebmrun.build("algo=chl", "cost=cross_entropy"), "match them"),
    (lambda: ebmrun.train("-m", "seed=0,1"), "-m is for the command alone"),
    (lambda: ebmrun.train("hydra.run.dir=x"), "hydra.run.dir=x is for the command alone.*folder=PATH"),
    (lambda: ebmrun.train("logger=csv", "optim.lr=1e30", folder="deep/run"), "relaxation diverged at layer 3"),
    (lambda: ebmrun.load("nowhere"), "nowhere holds no run, for it has no .hydra/config.yaml"),
])
def test_what_is_wrong_is_one_line_and_leaves_nothing(call, message: str, tmp_path: Path) -> None:
    with pytest.raises(ebmrun.ConfigError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value) and not list(tmp_path.iterdir())


def test_a_folder_is_refused_for_what_is_wrong_with_it() -> None:
    ebmrun.train(*SHORT, folder="run")
    with pytest.raises(ebmrun.ConfigError, match="run holds a run: go on with resume=run"):
        ebmrun.train(*SHORT, folder="run")
    for word, message in {"sead=1": "sead", "seed=abc": "abc", "device=tpu": "device=tpu is unknown",
                          "arch.hidden=[3]": "checkpoint.pt does not fit the network"}.items():
        with pytest.raises(ebmrun.ConfigError, match=message) as refusal:
            ebmrun.load("run", word).network  # noqa: B018
        assert "\n" not in str(refusal.value)
    Path("run/metrics.csv").unlink()
    with pytest.raises(ebmrun.ConfigError, match=r"cannot read run/metrics\.csv"):
        ebmrun.load("run")
    Path("run/.hydra/config.yaml").write_text("a: ]\n")
    with pytest.raises(ebmrun.ConfigError, match=r"config\.yaml, line 1: not YAML"):
        ebmrun.load("run")


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "README.md").read_text().partition("## From Python")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    exec(code, {})  # noqa: S102
    assert "0.01" not in capsys.readouterr().err
