"""``study=benchmark``: one gradient of each preset, and whole runs, timed against plain PyTorch."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

from hydra import compose
from hydra.utils import get_method
from omegaconf import MISSING, DictConfig, OmegaConf
from torch import Tensor

from ebmrun.config import require_no_updates, require_whole_products, typed
from ebmrun.errors import ConfigError, RunError
from ebmrun.experiment import Parts, build, first_batch
from ebmrun.studies.benchmark import plain
from ebmrun.studies.benchmark.row import Row, heading, line
from ebmrun.studies.benchmark.timing import in_turns, peak_memory
from ebmrun.studies.benchmark.whole_run import step_times
from ebmrun.studies.table import write
from ebmrun.theory.algorithm import Algorithm, Estimate
from ebmrun.theory.alignment import alignment
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.references import Backprop, Implicit
from ebmrun.training.provenance import machine


@dataclass
class Case:
    """A network, of ``hidden`` widths ``times`` over (null: as its arch has them), with other keys ``set``, and its
    presets (null: those of the study). ``activation=null`` leaves each preset its own units."""

    name: str = MISSING
    arch: str = "mlp"
    hidden: list[int] | None = None
    times: int = 1
    activation: str | None = None
    gain: float = 1.0
    set: list[str] = field(default_factory=list)
    presets: list[str] | None = None

    @property
    def overrides(self) -> list[str]:
        hidden = [f"arch.hidden={self.hidden * self.times}"] if self.hidden is not None else []
        units = [f"arch.activation={self.activation}"] if self.activation else []
        return [f"arch={self.arch}", *hidden, f"arch.gain={self.gain}", *units, *self.set]


@dataclass
class Asked:
    """What is asked of a preset on a case: overrides, and the ratio of times to reach."""

    case: str = MISSING
    preset: str = MISSING
    overrides: list[str] = field(default_factory=list)
    target: float | None = None


@dataclass
class Study:
    """The keys of ``study``: gradients are timed for ``seconds`` a pair, runs for ``training_seconds``."""

    run: str = MISSING
    seconds: float = 1.5
    training_seconds: float = 20.0
    presets: list[str] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    runs: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        for each in [*self.asked, *self.runs]:
            self.case(each.case)

    def case(self, name: str) -> Case:
        """The case of that name. Raises ConfigError where there is none."""
        for case in self.cases:
            if case.name == name:
                return case
        raise ConfigError(f"study.cases has no '{name}', which study.asked or study.runs names: add it there")

    def of(self, case: str, preset: str) -> Asked:
        """What is asked of a preset on a case; by default nothing."""
        found = (each for each in self.asked if (each.case, each.preset) == (case, preset))
        return next(found, Asked(case, preset))


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """Measures everything, prints it, and writes benchmark.csv and benchmark.json.

    Raises ConfigError for overrides of what the study itself chooses, and for a precision that rounds products.
    """
    for override in overrides:
        if override.split("=")[0] in ("algo", "arch"):
            raise ConfigError(f"{override}: study=benchmark sets it in each row, "
                              "change study.presets or study.cases")
    study = cast(Study, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), cfg.study)))
    config = typed(cfg)
    require_whole_products(config, "benchmark")
    require_no_updates(config, "benchmark")
    facts = machine(config.torch_device()) | {
        "precision": config.precision,
        "dataset": config.dataset.name,
        "batch_size": config.trainer.batch_size,
        "command": shlex.join(["ebmrun", *overrides]),
    }
    print(" · ".join(f"{key} {value}" for key, value in facts.items() if key != "command"))
    rows: list[Row] = []
    for row in chain(gradients(study, overrides), trainings(study, overrides, run_dir)):
        if not rows or (row.work, row.case) != (rows[-1].work, rows[-1].case):
            print(heading(row))
        print(line(row), flush=True)
        rows.append(row)
    write(rows, facts, run_dir, "benchmark")


def gradients(study: Study, overrides: Sequence[str]) -> Iterator[Row]:
    """A row for each case and preset, on the first batch of the training set."""
    for case in study.cases:
        built: list[tuple[DictConfig, Parts]] = []  # of each architecture: presets have units of their own
        for preset in case.presets or study.presets:
            asked = study.of(case.name, preset)
            cfg = compose("config", [f"algo={preset}", *case.overrides, *asked.overrides, *overrides])
            if all(arch != cfg.arch for arch, _ in built):
                built.append((cfg.arch, build(cfg)))
            parts = next(parts for arch, parts in built if arch == cfg.arch)
            yield gradient(parts, cfg, asked, *first_batch(parts), study.seconds)


def gradient(parts: Parts, cfg: DictConfig, asked: Asked, x: Tensor, y: Tensor, seconds: float) -> Row:
    """One gradient of a preset against forward and backward pass of the same network by plain autograd."""
    network, config = parts.network, typed(cfg)
    algorithm: Algorithm = get_method(cfg.algo.build)(cfg, config, network, parts.cost)
    model, mean_cost = plain.model(network), plain.loss(parts.cost)

    def ours() -> Estimate:
        return algorithm.estimate(network, x, y)

    def theirs() -> tuple[Tensor, ...]:
        return plain.gradient(model, mean_cost, x, y)

    learning = algorithm.learning if isinstance(algorithm, Implicit) else algorithm
    if isinstance(learning, EnergyLearning) and not (learning.energy.feedforward or learning.nudge.clamps):
        name, reference = "implicit", Implicit(learning).estimate(network, x, y)
    else:
        name, reference = "backprop", Backprop(parts.cost).estimate(network, x, y)
    estimate = ours()
    error = alignment([estimate.gradients], [reference.gradients])["alignment/relative_error"]
    if not math.isfinite(error):
        raise RunError(f"{asked.preset} on {asked.case} has a gradient that is not finite: ask for other "
                       "overrides in study.asked")
    return compared(
        "gradient",
        asked,
        in_turns(ours, theirs, seconds, parts.device),
        sweeps=estimate.steps,
        residual=estimate.residual,
        tolerance=config.relax.tol,
        converged=estimate.converged,
        relative_error=error,
        reference=name,
        reference_residual=reference.residual,
        peak_mb=peak_memory(ours, parts.device) / 1e6,
        plain_peak_mb=peak_memory(theirs, parts.device) / 1e6,
    )


def trainings(study: Study, overrides: Sequence[str], run_dir: Path) -> Iterator[Row]:
    """A row for each whole run."""
    for asked in study.runs:
        case = study.case(asked.case).overrides
        asked_for = [f"algo={asked.preset}", "logger.wandb=false", *asked.overrides]
        cfg = compose("config", [*case, *asked_for, *overrides])
        yield compared("training", asked, step_times(cfg, run_dir, study.training_seconds))


def compared(work: str, asked: Asked, times: tuple[float, float, int], **measured: Any) -> Row:
    """A row from the seconds of ours and of plain PyTorch's, with the number of turns, and what else was measured."""
    ours, plainly, turns = times
    return Row(
        work=work,
        case=asked.case,
        preset=asked.preset,
        overrides=" ".join(asked.overrides),
        ratio=ours / plainly,
        target=asked.target,
        ms=1e3 * ours,
        plain_ms=1e3 * plainly,
        turns=turns,
        **measured,
    )
