"""One training run, from its first step or from where it stopped, to its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ebmrun.config import TrainerConfig, resolved, typed
from ebmrun.errors import ConfigError
from ebmrun.experiment import Parts, build, references, schedule
from ebmrun.theory.analog import AnalogLearning
from ebmrun.theory.probe import probe
from ebmrun.training import checkpoint, folder
from ebmrun.training.differences import require_same
from ebmrun.training.distributed import Job, job
from ebmrun.training.dry_run import rehearse
from ebmrun.training.interrupts import interrupts
from ebmrun.training.optimizers import optimizer
from ebmrun.training.provenance import require_same_modules
from ebmrun.training.selection import Selection
from ebmrun.training.summary import show, summarise
from ebmrun.training.tracking import Progress, Silent, Tracker
from ebmrun.training.trainer import Trainer

SAVED = {"config": dict, "step": int, "network": dict, "optimizer": dict}  # what a checkpoint holds


def train(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """``study=train``: one network, trained and logged into the run directory, by all processes of a job together.
    ``resume=true`` goes on with what is there."""
    with job(typed(cfg).torch_device()) as processes:
        parts = build(cfg)
        config = parts.config
        trainer = trainer_of(parts, cfg, processes)
        composed = resolved(cfg)
        done = restore(run_dir, composed, trainer) if config.resume else None
        steps = done.steps if done else 0
        if not done:
            share = processes.largest_share(config.trainer.batch_size)
            rehearse(trainer, parts.algorithm, share, partial(optimizer, cfg))
        earlier = folder.summary(run_dir)
        if trainer.finished(steps) and earlier.get("steps") == steps:
            if processes.leads:
                show(earlier, run_dir, None)
            return
        tracker = (Tracker(run_dir, composed, config.logger, trainer.columns, done, overrides)
                   if processes.leads else Silent())
        with interrupts() as interrupt, tracker:  # a signal that meets a failure does not hide its message
            saves = partial(save, run_dir, composed, trainer) if processes.leads else lambda step: None
            if not trainer.finished(steps):
                trainer.train(steps, tracker, saves, lambda: interrupt.stops(processes.largest))
            if interrupt.number:
                raise SystemExit(interrupt.exit_status)
            if processes.leads:
                found = tracker.finish(summarise(run_dir / "metrics.csv") | identity(parts, cfg))
                show(found, run_dir, tracker.wandb_location)


def trainer_of(parts: Parts, cfg: DictConfig, processes: Job) -> Trainer:
    """The trainer of a run, its gradients shared out over the processes of a job."""
    config, steps = parts.config, optimizer(cfg, parts.network)
    measured = {name: processes.share(reference) for name, reference in references(parts, cfg).items()}
    looks = partial(probe, parts.learning) if parts.learning else None
    trainer = Trainer(parts.network, processes.share(parts.algorithm), measured, parts.cost, steps, parts.dataset,
                      config.trainer, config.seed, config.alignment.every, processes.shows, parts.augment,
                      schedule(cfg, config, steps), probe=looks, probe_every=config.probe.every,
                      random_sign=config.nudge.random_sign, noisy=isinstance(parts.learning, AnalogLearning))
    if config.trainer.patience is None:
        return trainer
    if not parts.dataset.val:
        raise ConfigError(f"trainer.patience={config.trainer.patience} waits for a better validation accuracy, and "
                          "there are no validation examples: set dataset.validation=0.1")
    return replace(trainer, selection=Selection(config.trainer.patience * trainer.steps_per_epoch))


def save(run_dir: Path, composed: Mapping[str, Any], trainer: Trainer, step: int) -> None:
    """Leaves a checkpoint after a step, for ``restore``, and the same as best.pt after one with the best validation
    accuracy so far."""
    selection = trainer.selection
    contents = {"config": composed, "step": step, "network": trainer.network.state_dict(),
                "optimizer": trainer.optimizer.state_dict(), "selection": selection.state()}
    if selection.step == step:  # before the checkpoint: killed between the two, a run comes here again
        checkpoint.save(run_dir / "best.pt", contents)
    checkpoint.save(run_dir / "checkpoint.pt", contents)


def restore(run_dir: Path, composed: Mapping[str, Any], trainer: Trainer) -> Progress | None:
    """Puts a checkpoint's weights and optimizer state in place; how far it had come, None for a run that was
    killed before its first one.

    Raises ConfigError for a checkpoint that cannot be read, a run of another configuration or of other modules, or a
    folder without one.
    """
    path = run_dir / "checkpoint.pt"
    if folder.begun(run_dir) and not path.exists():
        return None
    saved = checkpoint.load(path)
    if any(not isinstance(saved.get(key), kind) for key, kind in SAVED.items()):
        raise ConfigError(f"the checkpoint {path} holds no run: name one that ebmrun wrote, or start anew "
                          "with resume=false")
    require_same(path, saved["config"], composed, ignore=folder.FREE_ON_RESUME)
    require_same_modules(run_dir, composed)
    try:
        trainer.network.load_state_dict(saved["network"])
        trainer.optimizer.load_state_dict(saved["optimizer"])
        trainer.selection.restore(saved["selection"])
        then = replace(trainer, config=TrainerConfig(**saved["config"]["trainer"]))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"the checkpoint {path} has other contents than its configuration asks for "
                          f"({' '.join(str(error).split())}): start anew with resume=false") from error
    return Progress(saved["step"], then.last_row(saved["step"]))


def identity(parts: Parts, cfg: DictConfig) -> dict[str, str | int]:
    """What the run was, for whoever reads its summary alone."""
    return {
        "algo": cfg.algo.name,
        "dataset": parts.dataset.name,
        "seed": parts.config.seed,
        "precision": parts.config.precision,
        "device": parts.device.type,
        "alignment/reference": parts.config.alignment.reference,
    }
