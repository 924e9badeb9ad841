"""A search: what it may choose, that it chooses by validation, what it reports, and that it goes on after a kill."""

import json
import os
import signal
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from program import Command, Forked, composed
from run_folder import rows, summary

import ebmrun.studies.search
from ebmrun.errors import ConfigError
from ebmrun.studies.search.space import apply, ends, space

SHORT = ("logger=csv", "study=search", "algo=bp", "dataset.validation=0.2", "trainer.epochs=1", "alignment.every=0",
         "arch.hidden=[8]", "dataset.limit=300", "device=cpu", "hydra.run.dir=found")


@pytest.fixture
def search(command: Command) -> Command:
    """A short search, in the folder ``found``."""
    return partial(command, *SHORT)


def trials(folder: str | Path = "found") -> list[tuple[str, float | None, float]]:
    """State, value and learning rate of each trial, as they stand in Optuna's own tables."""
    with sqlite3.connect(Path(folder, "search.db")) as file:
        return file.execute("select t.state, v.value, p.param_value from trials t join trial_params p using (trial_id) "
                            "left join trial_values v using (trial_id) order by t.number").fetchall()


@pytest.mark.parametrize(("word", "expected"), [
    ("optim.lr=tag(log, interval(1e-4, 1))", FloatDistribution(1e-4, 1, log=True)),
    ("nudge.strength=interval(0, 2)", FloatDistribution(0, 2)),
    ("trainer.batch_size=interval(16, 64)", IntDistribution(16, 64)),
    ("trainer.batch_size=tag(log,interval(16,64))", IntDistribution(16, 64, log=True)),
    ("trainer.batch_size=range(16,65,16)", IntDistribution(16, 64, step=16)),
    ("arch.activation=relu,tanh,relu", CategoricalDistribution(["relu", "tanh"])),
    ("arch.hidden=choice([64],[128,64])", CategoricalDistribution(["[64]", "[128,64]"])),
    ("relax.tol=range(0.1,0.35,0.1)", CategoricalDistribution(["0.1", "0.2", "0.30000000000000004"])),
])
def test_a_space_is_written_as_a_sweep_is(word: str, expected: object) -> None:
    key = word.partition("=")[0]
    assert space([word], composed()) == {key: expected}


@pytest.mark.parametrize(("words", "said"), [
    ([], "is empty"),
    (["optim.lr=0.1"], "'optim.lr=0.1' is no space"),
    (["optim.lr=interval(1,0.1)"], "the smaller one"),
    (["optim.lr=tag(log,interval(0,1))"], "is no space"),
    (["optim.lr=tag(loud,interval(0.1,1))"], "not loud"),
    (["optim.lr=interval(0.1"], "cannot read"),
    (["+optim.more=0,1"], "adds or removes"),
    (["optim.rate=0,1"], "optim.rate: no such key"),
    (["optin.lr=0,1"], "optin.lr: no such key"),
    (["optim.lr=1,2", "optim.lr=interval(0.1,1)"], "twice"),
    (["algo=bp,pc"], "-m algo=ONE,OTHER"),
])
def test_what_is_no_space_is_said(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        space(words, composed())
    assert said in str(error.value)


def test_a_choice_sets_what_it_would_on_the_command_line() -> None:
    cfg = composed()
    for settings in ends(space(["arch.hidden=choice([64],[32,16])", "optim.lr=interval(0.1,0.5)"], cfg)):
        apply(settings, cfg)
    assert (cfg.arch.hidden, cfg.optim.lr) == ([32, 16], 0.5)


@pytest.mark.parametrize(("words", "said"), [
    (["dataset.validation=0"], "dataset.validation=0.0 leaves study=search nothing to choose by: set"),
    (["study.objective=test/accuracy"], "never on the test set"),
    (["study.trials=0"], "study.trials=0 must be 1 or more"),
    (["study.sampler=grid"], "study.sampler=grid is unknown: choose one of"),
    (["study.space=['nudge.strength=interval(0,2)']"], "nudge.strength=0.0"),
    (["study.space=['seed=interval(-1,2)']"], "seed=-1"),
    (["study.space=['seed=a,b']"], "seed"),
    (["study.trails=3"], "study.trails: no such key"),
])
def test_what_cannot_be_searched_is_one_line_and_leaves_nothing(search: Command, words: list[str], said: str) -> None:
    status, lines = search(*words)
    assert status == 2 and len(lines) == 1 and said in lines[0]
    assert not list(Path().iterdir())


def test_without_optuna_it_says_what_to_install(search: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ebmrun.studies.search.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(ebmrun.studies.search, "study", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)  # Python's own mark of a module that is not there
    monkeypatch.setitem(sys.modules, "optuna.distributions", None)
    status, lines = search()
    assert status == 2 and len(lines) == 1 and "pip install '.[search]'" in lines[0]


def test_the_best_is_the_best_by_validation_and_the_budget_is_the_sum(search: Command) -> None:
    assert search("study.trials=5") == (0, [])
    each = [summary(path) for path in sorted(Path("found", "trials").iterdir())]
    assert len(each) == 5 == len(trials())
    values = [one["val/accuracy"] for one in each]
    assert [value for _, value, _ in trials()] == values
    rates = [rate for _, _, rate in trials()]
    assert [one["optim/lr"] for one in each] == rates and all(1e-4 <= rate <= 1 for rate in rates)
    best = values.index(max(values))
    found = summary("found")
    assert found["best/folder"] == f"trials/{best:03}"
    assert (found["best/value"], found["best/optim.lr"]) == (values[best], rates[best])
    assert found["best/test"] == each[best]["test/accuracy"]
    assert (found["trials"], found["trials/failed"], found["epochs"]) == (5, 0, 5.0)
    seconds = [float(row["seconds"]) for row in rows("found")]
    assert found["seconds"] == pytest.approx(sum(seconds)) and min(seconds) > 0
    assert [float(row["optim.lr"]) for row in rows("found")] == rates


def test_a_loss_is_to_be_small(search: Command) -> None:
    assert search("study.trials=4", "study.objective=val/loss", "study.sampler=random") == (0, [])
    losses = [summary(path)["val/loss"] for path in Path("found", "trials").iterdir()]
    assert summary("found")["best/value"] == min(losses) < max(losses)


def test_repeated_it_is_done_and_asked_for_more_it_goes_on_as_if_asked_at_once(search: Command) -> None:
    assert search("study.trials=12") == (0, [])
    at_once = trials()
    assert search("study.trials=11", "hydra.run.dir=later") == (0, [])  # the first ten are random: TPE has begun
    times = {path: path.stat().st_mtime_ns for path in Path("later", "trials").rglob("*") if path.is_file()}
    assert search("study.trials=11", "hydra.run.dir=later") == (0, [])
    assert search("study.trials=12", "hydra.run.dir=later") == (0, [])
    assert trials("later") == at_once
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert len(list(Path("later", "trials").iterdir())) == 12
    assert len(rows("later")) == summary("later")["trials"] == 12
    assert search("study.trials=2", "hydra.run.dir=later", "resume=false") == (0, [])
    assert trials("later") == at_once[:2]
    assert len(list(Path("later", "trials").iterdir())) == len(rows("later")) == 2


def test_another_seed_proposes_other_settings(search: Command) -> None:
    assert search("study.trials=1") == (0, [])
    assert search("study.trials=1", "seed=1", "hydra.run.dir=other") == (0, [])
    assert trials() != trials("other")


def test_trials_of_another_length_are_not_mixed_in(search: Command) -> None:
    assert search("study.trials=1") == (0, [])
    status, lines = search("study.trials=2", "trainer.epochs=2")
    assert status == 2 and len(lines) == 1 and "trainer.epochs: saved 1, now 2" in lines[0]
    assert len(trials()) == 1


def test_a_rate_that_diverges_is_a_trial_without_a_value(search: Command) -> None:
    # In float32 a step of 1e30 leaves the numbers in the first steps, whatever the network.
    status, lines = search("study.trials=3", "study.space=['optim.lr=tag(log,interval(1e30,1e32))']")
    assert status == 1
    assert len(lines) == 4 and all("failed" in line and "diverged" in line for line in lines[:3])
    assert "none of 3 trials ended well" in lines[3]
    assert [(state, value) for state, value, _ in trials()] == 3 * [("PRUNED", None)]
    assert [(row["value"], row["epochs"]) for row in rows("found")] == 3 * [("", "0.0")]


def test_killed_at_any_moment_and_repeated_it_ends_as_one_that_never_stopped(search: Command, tmp_path: Path) -> None:
    longer = ("trainer.epochs=9", "study.trials=5")
    assert search(*longer, "hydra.run.dir=whole") == (0, [])
    kills = 0
    for wait in (0.0, 0.1, 0.3):  # after the first trial has begun, and so on
        process = Forked(tmp_path, *SHORT, *longer)
        before = len(list(tmp_path.glob("found/trials/*")))
        while len(list(tmp_path.glob("found/trials/*"))) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(wait)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills >= 2
    assert search(*longer) == (0, [])
    assert trials() == trials("whole")
    found, whole = (json.loads(Path(each, "summary.json").read_text()) for each in ("found", "whole"))
    same = [key for key in whole if key != "seconds" and not key.startswith("provenance/")]
    assert len(same) > 9 and [found[key] for key in same] == [whole[key] for key in same]


def test_each_of_several_searches_has_a_folder(command: Command) -> None:
    several = ("-m", *SHORT[:-1], "algo=bp,pc", "study.trials=2", "hydra.sweep.dir=both")
    assert command(*[word for word in several if word != "algo=bp"]) == (0, [])
    found = {path.parent.name: json.loads(path.read_text()) for path in Path("both").glob("*/summary.json")}
    assert sorted(each["algo"] for each in found.values()) == ["bp", "pc"]
    # The same rates for both: what is proposed first depends on the seed alone.
    one, other = (trials(Path("both", name)) for name in found)
    assert [rate for *_, rate in one] == [rate for *_, rate in other]
