"""One training run, from its first step or from where it stopped, to its summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ebmrun.config import resolved, typed
from ebmrun.errors import ConfigError
from ebmrun.experiment import Parts, build, optimizer, references
from ebmrun.training import checkpoint
from ebmrun.training.distributed import Job, job
from ebmrun.training.interrupts import interrupts
from ebmrun.training.rehearsal import rehearse
from ebmrun.training.summary import show, summarise
from ebmrun.training.tracking import Silent, Tracker
from ebmrun.training.trainer import Trainer

SAVED = {"config": dict, "step": int, "network": dict, "optimizer": dict}  # what a checkpoint holds
# What a resumed run may do otherwise than the run that it continues.
FREE_ON_RESUME = ("resume", "device", "logger", "trainer.epochs", "trainer.max_steps")


def train(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """``study=train``: one network, trained and logged into the run directory, by all processes of a job together."""
    with job(typed(cfg).torch_device()) as processes:
        parts = build(cfg)
        config = parts.config
        if isinstance(config.resume, str):
            run_dir = Path(config.resume)
        trainer = trainer_of(parts, cfg, processes)
        total = trainer.steps  # a batch larger than the data is an error before anything is written
        composed = resolved(cfg)
        done = restore(run_dir, composed, trainer) if config.resume else 0
        if not done:
            rehearse(trainer, parts.algorithm, processes.largest_share(config.trainer.batch_size))
        summary = finished(run_dir)
        if done >= total and summary.get("steps") == done:
            if processes.leads:
                show(summary, run_dir, None)
            return
        tracker = (Tracker(run_dir, composed, config.logger, trainer.columns, done or None, overrides)
                   if processes.leads else Silent())
        with tracker, interrupts() as interrupt:
            saves = partial(save, run_dir, composed, trainer) if processes.leads else lambda step: None
            trainer.train(done, tracker, saves, lambda: interrupt.stops(processes.largest))
            if interrupt.number:
                raise SystemExit(interrupt.exit_status)
            if processes.leads:
                summary = summarise(run_dir / "metrics.csv") | identity(parts, cfg)
                tracker.finish(summary)
                show(summary, run_dir, tracker.wandb_location)


def trainer_of(parts: Parts, cfg: DictConfig, processes: Job) -> Trainer:
    """The trainer of a run, its gradients shared out over the processes of a job."""
    config, steps = parts.config, optimizer(cfg, parts.network)
    measured = {name: processes.share(reference) for name, reference in references(parts, cfg).items()}
    return Trainer(parts.network, processes.share(parts.algorithm), measured, parts.cost, steps, parts.dataset,
                   config.trainer, config.seed, config.alignment.every, processes.shows)


def begun(run_dir: Path) -> bool:
    """Whether a run has left its configuration there, be it without a checkpoint."""
    return (run_dir / ".hydra" / "config.yaml").is_file()


def finished(run_dir: Path) -> dict[str, Any]:
    """The summary of a run that has ended; empty without one."""
    path = run_dir / "summary.json"
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:  # cut by something else than a run: it is written anew
        return {}


def save(run_dir: Path, composed: Mapping[str, Any], trainer: Trainer, step: int) -> None:
    """Leaves a checkpoint after a step, for ``restore``."""
    checkpoint.save(run_dir / "checkpoint.pt", {
        "config": composed, "step": step, "network": trainer.network.state_dict(),
        "optimizer": trainer.optimizer.state_dict()})


def restore(run_dir: Path, composed: Mapping[str, Any], trainer: Trainer) -> int:
    """Puts a checkpoint's weights and optimizer state in place; the number of steps that it had done, which is 0 for a
    run that was killed before its first one.

    Raises ConfigError for a checkpoint that cannot be read, a run of another configuration, or a folder without one.
    """
    path = run_dir / "checkpoint.pt"
    if begun(run_dir) and not path.exists():
        before = run_dir / ".hydra" / "config.yaml"
        checkpoint.require_same(before, resolved(OmegaConf.load(before)), composed, ignore=FREE_ON_RESUME)
        return 0
    saved = checkpoint.load(path)
    if any(not isinstance(saved.get(key), kind) for key, kind in SAVED.items()):
        raise ConfigError(f"the checkpoint {path} holds no run: name one that ebmrun wrote, or start anew "
                          "with resume=false")
    checkpoint.require_same(path, saved["config"], composed, ignore=FREE_ON_RESUME)
    try:
        trainer.network.load_state_dict(saved["network"])
        trainer.optimizer.load_state_dict(saved["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(f"the checkpoint {path} has other contents than its configuration asks for "
                          f"({' '.join(str(error).split())}): start anew with resume=false") from error
    return saved["step"]


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
