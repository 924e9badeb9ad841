"""From a configuration to its parts, each checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig
from torch import Tensor

from ebmrun.config import Config, resolved, typed
from ebmrun.data.augment import Augmentation
from ebmrun.data.sets import Dataset, batches, load
from ebmrun.errors import ConfigError
from ebmrun.fits import require_nodes, require_nudge, require_one_way, require_relaxation, require_use
from ebmrun.imperfect import give_feedback, on_machine, on_states, round_initial_weights
from ebmrun.memory import keep_freed
from ebmrun.theory import cost_contract
from ebmrun.theory.algorithm import Algorithm
from ebmrun.theory.cost import Cost
from ebmrun.theory.energies import Energy, contract
from ebmrun.theory.feedback import Feedback
from ebmrun.theory.feedback_alignment import backprop_of
from ebmrun.theory.holomorphic import HolomorphicLearning, require_holomorphic
from ebmrun.theory.incremental import IncrementalLearning
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.joint import JointLearning
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.network_contract import require_affine, require_owned
from ebmrun.theory.products import Rounded, of_precision
from ebmrun.theory.recurrent import RecurrentBackprop
from ebmrun.theory.references import Backprop, Implicit
from ebmrun.training.launch import launched
from ebmrun.training.schedule import Schedule

TRAINING = "ebmrun.training.run.train"  # the one study that processes share


@dataclass(frozen=True)
class Parts:
    """What a configuration stands for, built and checked."""

    config: Config
    device: torch.device
    dataset: Dataset
    network: Network
    cost: Cost
    algorithm: Algorithm
    augment: Augmentation

    @property
    def learning(self) -> EnergyLearning | None:
        """The member of the family, whose products are not rounded; None where the algorithm is no member."""
        whole = self.algorithm.algorithm if isinstance(self.algorithm, Rounded) else self.algorithm
        return whole if isinstance(whole, EnergyLearning) else None


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """Runs the study that is asked for. Raises ConfigError before anything is written, RunError after."""
    keep_freed()
    study = _function("study.run", cfg.study.run)
    if launched() and study is not _function("study.run", TRAINING):
        raise ConfigError(f"study.run={cfg.study.run} is one process, and torchrun starts several: run it without")
    study(cfg, run_dir, overrides)


def build(cfg: DictConfig) -> Parts:
    """Every part of a configuration. Raises ConfigError for the first that cannot be."""
    config = typed(cfg)
    if not isinstance(cfg.algo.get("name"), str):
        raise ConfigError(f"algo.name={cfg.algo.get('name')} must be a name: add `name: ...` below `algo:` in the "
                          "preset")
    device = config.torch_device()
    torch.manual_seed(config.seed)
    torch.backends.cudnn.allow_tf32 = False  # torch has it on for convolutions, at three digits
    dataset = load(config.dataset, device, config.dtype, config.seed)
    network: Network = _made("arch", cfg.arch, Network, shape=dataset.shape, classes=dataset.classes)
    network = initialise(network, config.seed).to(device, config.dtype)
    require_owned(network)
    require_affine(network)
    give_feedback(_made("feedback", cfg.feedback, Feedback), config, network)
    if config.noise.writes:
        round_initial_weights(network, config)
    cost: Cost = _made("cost", cfg.cost, Cost, output=network.output)
    cost_contract.require_consistent(cost, network.output, dataset.train.targets[0])
    algorithm = _function("algo.build", cfg.algo.build)(cfg, config, network, cost)
    require_use(config, algorithm, cfg.algo.name)
    augment: Augmentation = _made("augment", cfg.augment, Augmentation)
    augment.require_fit(dataset.shape)
    algorithm = of_precision(algorithm, network, config.precision)
    return Parts(config, device, dataset, network, cost, algorithm, augment)


def first_batch(parts: Parts) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the first batch of the first epoch."""
    train, config = parts.dataset.train, parts.config
    index = batches(len(train), config.trainer.batch_size, config.seed, 0)[0].to(train.inputs.device)
    return train.inputs[index], train.targets[index]


def backprop(cfg: DictConfig, config: Config, network: Network, cost: Cost) -> Backprop:
    """``algo.build`` of backpropagation, by the network's own way down."""
    return backprop_of(network, cost)


def recurrent_backprop(cfg: DictConfig, config: Config, network: Network, cost: Cost) -> RecurrentBackprop:
    """``algo.build`` of recurrent backpropagation, truncated to ``algo.steps`` where that is a number."""
    return RecurrentBackprop(settling(cfg, config, network, cost), cfg.algo.get("steps"))


def settling(cfg: DictConfig, config: Config, network: Network, cost: Cost) -> EnergyLearning:
    """What settles in a free equilibrium: checks that energy, network and relaxation fit each other."""
    energy: Energy = _made("energy", cfg.energy, Energy)
    contract.require_consistent(energy, network.named_activations)
    require_relaxation(energy, config, network)
    return EnergyLearning(energy, config.nudge, config.relax, cost)


def energy_learning(cfg: DictConfig, config: Config, network: Network, cost: Cost) -> EnergyLearning:
    """``algo.build`` of the family: checks that energy, nudge, relaxation and cost fit each other."""
    require_one_way(config)
    config = on_states(config)
    learning = settling(cfg, config, network, cost)
    energy = learning.energy
    require_nodes(energy, config)
    require_nudge(energy, config, network, cost, cfg.arch.get("output", type(network.output).__name__))
    if config.trainer.update == "each_step":
        return IncrementalLearning(energy, config.nudge, config.relax, cost)
    if config.nudge.joint:
        return JointLearning(energy, config.nudge, config.relax, cost)
    if config.nudge.points == 1:
        return on_machine(learning, config)
    require_holomorphic(energy, network, cost)
    return on_machine(HolomorphicLearning(energy, config.nudge, config.relax, cost), config)


def references(parts: Parts, cfg: DictConfig) -> dict[str, Algorithm]:
    """The gradients to be measured against, under the prefixes of their measures."""
    wanted = parts.config.alignment.reference
    found: dict[str, Algorithm] = {}
    if wanted in ("backprop", "both"):
        found["alignment"] = Backprop(parts.cost)
    if wanted in ("implicit", "both"):
        learning = settling(cfg, parts.config, parts.network, parts.cost)
        found["alignment" if wanted == "implicit" else "alignment_implicit"] = Implicit(learning)
    return found


def schedule(cfg: DictConfig, config: Config, made: torch.optim.Optimizer) -> Schedule:
    """The schedule of an optimizer's learning rates. Raises ConfigError for one that does not fit the run."""
    found: Schedule = _made("schedule", cfg.schedule, Schedule)
    found.require_fit(config.trainer.epochs, [group["lr"] for group in made.param_groups])
    return found


def _function(key: str, path: Any) -> Callable[..., Any]:
    try:
        return get_method(path)
    except Exception as error:  # whatever a module does when it is imported, or a path that is none
        reason = error.__cause__ or error
        raise ConfigError(f"{key}={path} names no function ({type(reason).__name__}: {reason}): write "
                          "MODULE.FUNCTION") from error


def _made(key: str, node: Any, kind: type, **given: Any) -> Any:
    """What a part of the configuration stands for. Raises ConfigError where it does not build or is of another kind."""
    try:
        made = instantiate(node, **given, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        if not isinstance(cause, (TypeError, ValueError, RuntimeError)):
            raise  # a target that is not there, or a bug in it, which is for its author to see
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
        raise ConfigError(f"{key}={resolved(node)} does not build: {reason}") from error
    if not isinstance(made, kind):
        raise ConfigError(f"{key}={resolved(node)} is no {kind.__name__}: give a _target_ that makes one")
    return made
