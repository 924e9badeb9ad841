"""``study=search``: settings with the best result on validation examples, found by as many training runs as asked for.

Each trial is a whole run in a folder of its own, ``trials/000`` and so on. ``metrics.csv`` has a row for each trial,
``summary.json`` the best of them and what the search took: trials, epochs, seconds.
"""

from __future__ import annotations

import csv
import io
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf
from optuna.trial import FrozenTrial

from ebmrun import experiment
from ebmrun.config import resolved, typed
from ebmrun.errors import ConfigError, Held, RunError, warn
from ebmrun.studies.search.space import Distributions, apply, ends, numbers, space, words
from ebmrun.studies.search.trials import FILE, SAMPLERS, Direction, Trials, total
from ebmrun.training import folder
from ebmrun.training.differences import require_same
from ebmrun.training.run_name import run_name
from ebmrun.training.summary import near
from ebmrun.training.tracking import Progress, Tracker

OBJECTIVES: dict[str, Direction] = {
    "val/accuracy": "maximize", "best/val/accuracy": "maximize", "val/loss": "minimize"}
LENGTHS = ("trainer.epochs", "trainer.max_steps")  # trials of other lengths cannot be compared


@dataclass
class Search:
    """The keys of ``study``: what may be chosen, by which result of a trial, in how many trials, by which of Optuna's
    samplers, and the study that each trial is."""

    run: str = MISSING
    goes_on: bool = True
    space: list[str] = field(default_factory=list)
    objective: str = "val/accuracy"
    trials: int = 20
    sampler: str = "tpe"
    trial: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ConfigError(f"study.objective={self.objective} is none of {', '.join(OBJECTIVES)}: settings are "
                              "chosen on validation examples, never on the test set")
        if self.trials < 1:
            raise ConfigError(f"study.trials={self.trials} must be 1 or more")
        if self.sampler not in SAMPLERS:
            raise ConfigError(f"study.sampler={self.sampler} is unknown: choose one of {', '.join(SAMPLERS)}")


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """Searches, or goes on with the search in the folder, until there are ``study.trials`` trials.

    Raises ConfigError for what cannot be searched, RunError where no trial has ended well.
    """
    asked = cast(Search, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Search), cfg.study)))
    config, plain = typed(cfg), single(cfg, asked, run_dir)
    distributions = space(asked.space, plain)
    require_searchable(plain, distributions)
    composed = resolved(cfg)
    if config.resume:
        same = [key for key in folder.FREE_ON_RESUME if key not in LENGTHS]
        require_same(run_dir / folder.CONFIG, resolved(OmegaConf.load(run_dir / folder.CONFIG)), composed, ignore=same)
    else:
        shutil.rmtree(run_dir / "trials", ignore_errors=True)
        folder.clear(run_dir, [FILE])
    columns = ["value", "epochs", "seconds", *numbers(distributions)]
    goes_on = Progress(0, 0) if config.resume else None
    with Tracker(run_dir, composed, config.logger, columns, goes_on, overrides) as tracker:
        trials = Trials(run_dir, OBJECTIVES[asked.objective])
        for number in range(max(asked.trials, len(trials.ended))):
            if number == len(trials.ended):
                settings = trials.proposed(distributions, asked.sampler, config.seed)
                value, facts = tried(plain, settings, place(run_dir, number), asked.objective, overrides)
                trials.add(settings, distributions, value, facts)
            trial = trials.ended[number]
            print(line(trial, asked.objective), flush=True)
            tracker.log(number + 1, row(trial, columns))
        best, ended = trials.best, trials.ended
        if best is None:
            raise RunError(f"none of {len(ended)} trials ended well; the last: {ended[-1].user_attrs['failed']}")
        budget = {key: total(ended, key) for key in ("epochs", "seconds")}
        failed = sum(each.value is None for each in ended)
        summary = {"trials": len(ended), "trials/failed": failed, **budget, "objective": asked.objective,
                   "best/value": best.value, "best/folder": place(Path(), best.number).as_posix(),
                   "best/test": folder.summary(place(run_dir, best.number))[asked.objective.replace("val/", "test/")],
                   **{f"best/{key}": each for key, each in best.params.items()}}
        tracker.finish({"steps": len(ended), "algo": cfg.algo.name, "seed": config.seed, **summary})
        print(f"\n{cfg.algo.name} on {config.dataset.name}, seed {config.seed}: {len(ended)} trials, {failed} failed; "
              f"{budget['epochs']:g} epochs, {budget['seconds']:.0f} s")
        print(f"best: {line(best, asked.objective)}")
    print(f"files: {near(run_dir)}")


def single(cfg: DictConfig, asked: Search, run_dir: Path) -> DictConfig:
    """The configuration of a trial, before it sets anything."""
    plain = cfg.copy()
    plain.study = asked.trial
    plain.logger.group = cfg.logger.group or run_dir.resolve().name
    return plain


def require_searchable(plain: DictConfig, distributions: Distributions) -> None:
    """Raises ConfigError for a space that leaves the configuration's ranges, a configuration that does not build, and
    one without validation examples."""
    for settings in ends(distributions):
        at_the_end = plain.copy()
        apply(settings, at_the_end)
        typed(at_the_end)
    if not experiment.build(plain).dataset.val:
        raise ConfigError(f"dataset.validation={plain.dataset.validation} leaves study=search nothing to choose by: "
                          "set dataset.validation=0.1, for it never looks at the test set")


def tried(plain: DictConfig, settings: Mapping[str, Any], run_dir: Path, objective: str,
          overrides: Sequence[str]) -> tuple[float | None, dict[str, Any]]:
    """One run with these settings: the objective in its summary, None where it failed, as by a learning rate that is
    too large; and what it took, in epochs and in seconds of this process. Raises Held where another writes to it."""
    cfg, began = plain.copy(), time.perf_counter()
    apply(settings, cfg)
    own = words(settings)
    cfg.logger.name = run_name(plain.logger.name or cfg.algo.name, own)
    asked = [word for word in overrides if not word.startswith("study")]
    facts: dict[str, Any] = {}
    with folder.locked(run_dir):
        cfg.resume = folder.resumes(run_dir, resolved(cfg), several=True)
        try:
            with redirect_stdout(io.StringIO()):
                experiment.run(cfg, run_dir, [*asked, *own])
        except Held:
            raise
        except (ConfigError, RunError) as error:
            facts["failed"] = str(error)
            warn(f"trial {run_dir.name} ({' '.join(own)}) failed: {error}")
    facts |= {"epochs": epochs(run_dir / "metrics.csv"), "seconds": time.perf_counter() - began}
    return None if "failed" in facts else folder.summary(run_dir)[objective], facts


def epochs(metrics: Path) -> float:
    """How far a run came: none where it failed before anything was written."""
    rows = list(csv.DictReader(io.StringIO(metrics.read_text()))) if metrics.is_file() else []
    return float(rows[-1]["epoch"]) if rows else 0.0


def place(run_dir: Path, number: int) -> Path:
    """The folder of a trial."""
    return run_dir / "trials" / f"{number:03}"


def row(trial: FrozenTrial, columns: Sequence[str]) -> dict[str, float]:
    """A trial's row in metrics.csv; without a value where its run failed."""
    known = {**trial.params, **trial.user_attrs, "value": trial.value}
    return {key: known[key] for key in columns if known[key] is not None}


def line(trial: FrozenTrial, objective: str) -> str:
    """A trial, for people to read."""
    shown = (f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
             for key, value in trial.params.items())
    found = "failed" if trial.value is None else f"{objective} {trial.value:.4f}"
    return f"trial {trial.number:03}: {' '.join(shown)}   {found}"
