"""Whole training runs against a bare loop over the same tensors with the same optimizer."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import DictConfig

from ebmrun.config import resolved
from ebmrun.experiment import Parts, build
from ebmrun.studies.benchmark import plain
from ebmrun.studies.benchmark.timing import in_turns
from ebmrun.training.distributed import Job
from ebmrun.training.optimizers import optimizer
from ebmrun.training.run import save, trainer_of
from ebmrun.training.tracking import Tracker
from ebmrun.training.trainer import Trainer


def step_times(cfg: DictConfig, run_dir: Path, budget: float) -> tuple[float, float, int]:
    """Seconds a step of a run, with all that it measures, evaluates and writes, and of the bare loop: medians
    over epochs of one after epochs of the other, for ``budget`` seconds; and the number of these turns."""
    parts = build(cfg)
    train, size = parts.dataset.train, parts.config.trainer.batch_size
    twin = deepcopy(parts.network)
    model, mean_cost, steps = plain.model(twin), plain.loss(parts.cost), optimizer(cfg, twin)
    with TemporaryDirectory(dir=run_dir) as folder:
        trainer = trainer_of(parts, cfg, Job())
        with closing(epochs(trainer, cfg, parts, Path(folder))) as run:
            ours, bare, turns = in_turns(
                lambda: next(run),
                lambda: plain.epoch(model, mean_cost, steps, train, size),
                budget,
                parts.device,
            )
    return ours / trainer.steps_per_epoch, bare / trainer.steps_per_epoch, turns


def epochs(trainer: Trainer, cfg: DictConfig, parts: Parts, folder: Path) -> Generator[None, None, None]:
    """A run in ``folder`` that pauses after each epoch."""
    composed = resolved(cfg)
    saves = partial(save, folder, composed, trainer)
    with Tracker(folder, composed, parts.config.logger, trainer.columns) as tracker:
        for epoch in count():
            until_here = replace(trainer, config=replace(trainer.config, epochs=epoch + 1, max_steps=None))
            until_here.train(epoch * trainer.steps_per_epoch, tracker, saves, lambda: False)
            yield
