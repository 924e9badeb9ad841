"""``study=relaxation``: how fast each way to relax settles, network by network, against plain PyTorch."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import cast

from hydra import compose
from hydra.utils import get_method
from omegaconf import MISSING, DictConfig, OmegaConf

from ebmrun.config import require_no_updates, require_whole_products, typed
from ebmrun.data.sets import batches
from ebmrun.errors import ConfigError, Diverged
from ebmrun.experiment import Parts, build
from ebmrun.studies.benchmark import plain
from ebmrun.studies.benchmark.study import Case
from ebmrun.studies.benchmark.timing import in_turns
from ebmrun.studies.table import write
from ebmrun.theory.algorithm import Algorithm, Estimate
from ebmrun.training.provenance import machine

CHOSEN = ("algo", "arch", "relax", "relax.max_steps")


@dataclass
class Problem:
    """What is to settle, by its overrides of a run."""

    name: str = MISSING
    overrides: list[str] = field(default_factory=list)


@dataclass
class Study:
    """The keys of ``study``: options of ``relax``, each with ``max_steps`` on so many ``batches``, timed for
    ``seconds``; the problems, and the networks, whose ``presets`` name those to solve on them (null: all)."""

    run: str = MISSING
    solvers: list[str] = field(default_factory=list)
    max_steps: int = 100
    batches: int = 3
    seconds: float = 0.5
    problems: list[Problem] = field(default_factory=list)
    networks: list[Case] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.batches < 1 or not (self.solvers and self.problems and self.networks):
            raise ConfigError(f"study.batches={self.batches}, study.solvers, study.problems or study.networks leave "
                              "nothing to measure: give one or more of each")
        names = [problem.name for problem in self.problems]
        for network in self.networks:
            for name in network.presets or []:
                if name not in names:
                    raise ConfigError(f"study.networks asks for '{name}' on {network.name}, and study.problems has "
                                      f"only {' and '.join(names)}: add it there")


@dataclass(frozen=True)
class Row:
    """One way to relax: ``ms`` a gradient and ``plain_ms`` of plain PyTorch's, with their ``ratio``; the median of the
    steps, the largest residual (None where a relaxation diverged), and the share of batches that ``settled``."""

    problem: str
    network: str
    solver: str
    ratio: float
    ms: float
    plain_ms: float
    steps: float | None
    residual: float | None
    tolerance: float
    settled: float


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """Measures everything, prints it, and writes relaxation.csv and relaxation.json.

    Raises ConfigError for overrides of what the study itself chooses, and for a precision that rounds products.
    """
    for override in overrides:
        if override.split("=")[0] in CHOSEN:
            raise ConfigError(f"{override}: study=relaxation sets it in each row, change study.solvers, "
                              "study.max_steps, study.problems or study.networks")
    study = cast(Study, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), cfg.study)))
    config = typed(cfg)
    require_whole_products(config, "relaxation")
    require_no_updates(config, "relaxation")
    facts = machine(config.torch_device()) | {
        "precision": config.precision, "dataset": config.dataset.name, "batch_size": config.trainer.batch_size,
        "max_steps": study.max_steps, "batches": study.batches, "command": shlex.join(["ebmrun", *overrides]),
    }
    rows: list[Row] = []
    for row in measured(study, overrides):
        if not rows or (row.problem, row.network) != (rows[-1].problem, rows[-1].network):
            print(f"\n{row.problem} on {row.network}: plain autograd {row.plain_ms:.3g} ms")
        print(line(row), flush=True)
        rows.append(row)
    write(rows, facts, run_dir, "relaxation")


def measured(study: Study, overrides: Sequence[str]) -> Iterator[Row]:
    """A row for each problem, network and solver."""
    for problem in study.problems:
        for network in study.networks:
            if problem.name not in (network.presets or [problem.name]):
                continue
            parts = build(compose("config", [*network.overrides, *problem.overrides, *overrides]))
            for solver in study.solvers:
                relax = [f"relax={solver}", f"relax.max_steps={study.max_steps}"]
                cfg = compose("config", [*network.overrides, *problem.overrides, *relax, *overrides])
                yield solved(parts, cfg, study, problem.name, network.name, solver)


def solved(parts: Parts, cfg: DictConfig, study: Study, problem: str, name: str, solver: str) -> Row:
    """The gradients of the first batches by one solver, in turns with those of plain autograd on the same."""
    network, config, train = parts.network, typed(cfg), parts.dataset.train
    algorithm: Algorithm = get_method(cfg.algo.build)(cfg, config, network, parts.cost)
    model, mean_cost = plain.model(network), plain.loss(parts.cost)
    order = batches(len(train), config.trainer.batch_size, config.seed, 0)[: study.batches]
    pairs = [(train.inputs[index], train.targets[index]) for index in (each.to(parts.device) for each in order)]
    ours, theirs = cycle(enumerate(pairs)), cycle(pairs)
    found: dict[int, Estimate | None] = {}

    def solve() -> None:
        number, (x, y) = next(ours)
        try:
            found[number] = algorithm.estimate(network, x, y)
        except Diverged:
            found[number] = None

    def propagate() -> None:
        plain.gradient(model, mean_cost, *next(theirs))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of digits that are lost: the residual tells
        seconds, plainly, _ = in_turns(solve, propagate, study.seconds, parts.device)
        while len(found) < len(pairs):  # every batch, however few turns there were
            solve()
    went = [each for each in found.values() if each is not None]
    return Row(
        problem=problem,
        network=name,
        solver=solver,
        ratio=seconds / plainly,
        ms=1e3 * seconds,
        plain_ms=1e3 * plainly,
        steps=median(each.steps or 0 for each in went) if went else None,
        residual=max(each.residual or 0.0 for each in went) if len(went) == len(found) else None,
        tolerance=config.relax.tol,
        settled=sum(bool(each.converged) for each in went) / len(found),
    )


def line(row: Row) -> str:
    """A row for people to read."""
    steps = "-" if row.steps is None else f"{row.steps:g}"
    residual = "diverged" if row.residual is None else f"{row.residual:.1e}"
    return f"  {row.solver:<16}{row.ratio:>8.3g} x{steps:>6} steps  {residual:<10}{row.settled:.0%} settled"
