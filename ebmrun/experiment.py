"""From a configuration to its parts, and from the parts to a run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig

from ebmrun import checkpoint
from ebmrun.algorithm import Algorithm, EnergyLearning
from ebmrun.config import Config, resolved, typed
from ebmrun.cost import Cost
from ebmrun.data import Dataset, load
from ebmrun.distributed import Follower, job
from ebmrun.energies import Energy, contract
from ebmrun.errors import ConfigError
from ebmrun.interrupts import interrupts
from ebmrun.network import Network, initialise, require_affine
from ebmrun.references import Backprop, Implicit
from ebmrun.summary import show, summarise
from ebmrun.tracking import Tracker
from ebmrun.trainer import Trainer
from ebmrun.units import UNITS

# What a resumed run may do otherwise than the run that it continues.
FREE_ON_RESUME = ("resume", "device", "logger", "trainer.epochs", "trainer.max_steps")


@dataclass(frozen=True)
class Parts:
    """What a configuration stands for, built and checked."""

    config: Config
    device: torch.device
    dataset: Dataset
    network: Network
    cost: Cost
    algorithm: Algorithm


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """Runs the study that is asked for. Raises ConfigError before anything is written, RunError after."""
    _function("study.run", cfg.study.run)(cfg, run_dir, overrides)


def build(cfg: DictConfig) -> Parts:
    """Every part of a configuration. Raises ConfigError for the first that cannot be."""
    config = typed(cfg)
    device = config.torch_device()
    torch.manual_seed(config.seed)
    dataset = load(config.dataset, device, config.dtype)
    network = instantiate(cfg.arch, shape=dataset.shape, classes=dataset.classes, _convert_="all")
    network = initialise(network, config.seed).to(device, config.dtype)
    require_affine(network)
    cost = instantiate(cfg.cost, output=network.output)
    algorithm = _function("algo.build", cfg.algo.build)(cfg, config, network, cost)
    return Parts(config, device, dataset, network, cost, algorithm)


def backprop(cfg: DictConfig, config: Config, network: Network, cost: Cost) -> Backprop:
    """``algo.build`` of backpropagation."""
    return Backprop(cost)


def energy_learning(cfg: DictConfig, config: Config, network: Network, cost: Cost) -> EnergyLearning:
    """``algo.build`` of the family: checks that energy, nudge, relaxation and cost fit each other."""
    energy: Energy = instantiate(cfg.energy, _convert_="all")
    units = {name: f for name, f in UNITS.items() if any(layer.unit is f for layer in network.layers)}
    contract.require_consistent(energy, units)
    feedforward = all(contract.is_feedforward(energy, f) for f in units.values())
    if config.nudge.clamps:
        contract.require_clampable(energy, cost, cfg.arch.get("output", type(network.output).__name__))
    if config.nudge.needs_no_free_gradient and not feedforward:
        raise ConfigError(f"nudge.weights={config.nudge.weights} need an energy without a gradient at its free "
                          f"equilibrium, which {type(energy).__name__} has: use nudge=one_sided or centered")
    config.relax.require_depth(len(network.layers))
    warn_of_drowned_layers(energy, network, config)
    return EnergyLearning(energy, config.nudge, config.relax, cost, feedforward)


def warn_of_drowned_layers(energy: Energy, network: Network, config: Config) -> None:
    """Warns where gamma^(L-l), by which the displacement of layer l shrinks, leaves it no digits: in state coordinates
    below the precision of the states themselves, in error coordinates below the smallest number. Raises ConfigError
    where the first layer's is no number at all."""
    depth, info = len(network.layers), torch.finfo(config.dtype)
    if energy.feedback_gain ** (depth - 1) < info.tiny:
        raise ConfigError(f"energy.feedback_gain={energy.feedback_gain} over {depth} layers falls below the smallest "
                          f"number of {config.precision}: use {1.1 * info.tiny ** (1 / (depth - 1)):.2g} or more")
    floor = 100 * info.eps if config.relax.coordinates == "state" else 100 * info.tiny
    drowned = [l for l in range(1, depth) if energy.feedback_gain ** (depth - l) < floor]
    if drowned:
        better = 1.1 * floor ** (1 / (depth - 1))  # so that two digits of it are still enough
        warnings.warn(
            f"energy.feedback_gain={energy.feedback_gain} leaves layer {drowned[-1]} of {depth} no digits in "
            f"{config.precision}: use {better:.2g} or more, precision=float64, or relax.coordinates=error", stacklevel=2)


def references(parts: Parts, cfg: DictConfig) -> dict[str, Algorithm]:
    """The gradients to be measured against, under the prefixes of their measures."""
    wanted = parts.config.alignment.reference
    found: dict[str, Algorithm] = {}
    if wanted in ("backprop", "both"):
        found["alignment"] = Backprop(parts.cost)
    if wanted in ("implicit", "both"):
        learning = energy_learning(cfg, parts.config, parts.network, parts.cost)
        found["alignment" if wanted == "implicit" else "alignment_implicit"] = Implicit(learning)
    return found


def optimizer(cfg: DictConfig, network: Network) -> torch.optim.Optimizer:
    """The optimizer, with one learning rate or one for each layer."""
    rates: Any = resolved(cfg.optim).get("lr")
    layers = [list(layer.parameters()) for layer in network.layers]
    each = rates if isinstance(rates, list) else [rates] * len(layers)
    if len(each) != len(layers):
        raise ConfigError(f"optim.lr={rates} has {len(each)} entries for {len(layers)} layers: give one number, or one "
                          "for each layer")
    for rate in each:
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < float("inf"):
            raise ConfigError(f"optim.lr={rates} must be a number of 0 or more")
    groups = [{"params": parameters, "lr": rate} for parameters, rate in zip(layers, each) if parameters]
    if not isinstance(rates, list):
        groups = [{"params": [p for layer in layers for p in layer], "lr": rates}]
    try:
        return instantiate(cfg.optim, groups, lr=float(each[0]), _convert_="all")
    except Exception as error:
        raise ConfigError(f"optim={resolved(cfg.optim)} does not build: {error.__cause__ or error}") from error


def train(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """``study=train``: one network, trained and logged into the run directory, by all processes of a job together."""
    with job(typed(cfg).torch_device()) as processes:
        parts = build(cfg)
        config, network = parts.config, parts.network
        if isinstance(config.resume, str):
            run_dir = Path(config.resume)
        steps = optimizer(cfg, network)
        measured = {name: processes.share(reference) for name, reference in references(parts, cfg).items()}
        trainer = Trainer(network, processes.share(parts.algorithm), measured, parts.cost, steps, parts.dataset,
                          config.trainer, config.seed, config.alignment.every, processes.shows)
        total = trainer.steps  # a batch larger than the data is an error before anything is written
        composed = resolved(cfg)
        path = run_dir / "checkpoint.pt"
        done = restore(path, composed, network, steps) if config.resume and (path.exists() or not begun(run_dir)) else 0
        summary = finished(run_dir)
        if done >= total and summary.get("steps") == done:
            if processes.leads:
                show(summary, run_dir, None)
            return

        def save(step: int) -> None:
            if processes.leads:
                checkpoint.save(path, {"config": composed, "step": step, "network": network.state_dict(),
                                       "optimizer": steps.state_dict()})

        tracker = (Tracker(run_dir, composed, config.logger, trainer.columns, done or None, overrides)
                   if processes.leads else Follower())
        with tracker, interrupts() as interrupt:
            trainer.train(done, tracker, save, lambda: interrupt.stops(processes.largest))
            if interrupt.number:
                raise SystemExit(interrupt.exit_status)
            if processes.leads:
                summary = summarise(run_dir / "metrics.csv") | identity(parts, cfg)
                tracker.finish(summary)
                show(summary, run_dir, tracker.wandb_location)


def begun(run_dir: Path) -> bool:
    """Whether a run has left its configuration there, be it without a checkpoint."""
    return (run_dir / ".hydra" / "config.yaml").is_file()


def finished(run_dir: Path) -> dict[str, Any]:
    """The summary of a run that has ended; empty without one."""
    path = run_dir / "summary.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def restore(path: Path, composed: Mapping[str, Any], network: Network, steps: torch.optim.Optimizer) -> int:
    """Puts a checkpoint's weights and optimizer state in place; the number of steps that it had done.

    Raises ConfigError for a checkpoint that cannot be read or does not fit the configuration.
    """
    saved = checkpoint.load(path)
    checkpoint.require_same(path, saved["config"], composed, ignore=FREE_ON_RESUME)
    network.load_state_dict(saved["network"])
    steps.load_state_dict(saved["optimizer"])
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


def _function(key: str, path: Any) -> Callable[..., Any]:
    try:
        return get_method(path)
    except Exception as error:  # whatever a module does when it is imported, or a path that is none
        reason = error.__cause__ or error
        raise ConfigError(f"{key}={path} names no function ({type(reason).__name__}: {reason}): write "
                          "MODULE.FUNCTION") from error
