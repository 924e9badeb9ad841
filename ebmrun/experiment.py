"""From a configuration to its parts, each checked before anything is written."""

from __future__ import annotations

import inspect
import warnings
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
from ebmrun.imperfect import hold, mismatched, on_machine, require_use, shaken, writing
from ebmrun.memory import keep_freed
from ebmrun.theory import cost_contract
from ebmrun.theory.algorithm import Algorithm, Stepwise
from ebmrun.theory.cost import Cost
from ebmrun.theory.energies import Energy, ExactDisplacement, ExactError, contract
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
from ebmrun.training.schedule import Schedule
from ebmrun.training.uncompiled import without_compiler


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
    _function("study.run", cfg.study.run)(cfg, run_dir, overrides)


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
    mismatched(_made("feedback", cfg.feedback, Feedback), config.noise).give(network, config.seed)
    if config.noise.writes:
        hold(network, config)
    cost: Cost = _made("cost", cfg.cost, Cost, output=network.output)
    cost_contract.require_consistent(cost, network.output, dataset.train.targets[0])
    algorithm = _function("algo.build", cfg.algo.build)(cfg, config, network, cost)
    if config.nudge.random_sign and not isinstance(algorithm, EnergyLearning):
        raise ConfigError(f"nudge.random_sign={config.nudge.random_sign} has no use in algo={cfg.algo.name}, which "
                          "nudges nothing: leave it out, or use algo=ep")
    require_use(config, algorithm, cfg.algo.name)
    if config.trainer.update == "each_step" and not isinstance(algorithm, Stepwise):
        raise ConfigError(f"trainer.update={config.trainer.update} has no use in algo={cfg.algo.name}, which learns "
                          "from no step of a relaxation: leave it out, or use algo=pc_incremental")
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
    if config.relax.frozen and not energy.feedforward:
        raise ConfigError(f"relax.frozen={config.relax.frozen} holds the forward pass, which is no equilibrium of "
                          f"{type(energy).__name__}: use an energy that declares feedforward, or another relax")
    if config.relax.acceleration in ("adaptive", "conjugate") and not network.tied:
        raise ConfigError(f"relax.acceleration={config.relax.acceleration} seeks the minimum of an energy, and where "
                          "messages go down by weights of their own there is none: use relax=auto, sweep or anderson, "
                          "or feedback=tied")
    return EnergyLearning(energy, config.nudge, config.relax, cost)


def energy_learning(cfg: DictConfig, config: Config, network: Network, cost: Cost) -> EnergyLearning:
    """``algo.build`` of the family: checks that energy, nudge, relaxation and cost fit each other."""
    config = shaken(config)
    learning = settling(cfg, config, network, cost)
    energy = learning.energy
    if config.nudge.clamps:
        contract.require_clampable(energy, cost, cfg.arch.get("output", type(network.output).__name__))
    if config.nudge.needs_no_free_gradient and not energy.feedforward:
        raise ConfigError(f"nudge.weights={config.nudge.weights} need an energy without a gradient at its free "
                          f"equilibrium, and {type(energy).__name__} does not declare feedforward = True: use "
                          "nudge=one_sided or centered")
    if not config.nudge.clamps and config.nudge.lowest * cost.curvature <= -1:
        raise ConfigError(f"nudge.strength={config.nudge.strength} nudges by {config.nudge.lowest:g}, where "
                          "energy and cost have no minimum: keep it above -1")
    require_digits(energy, max(network.heights) + 1, config)
    if config.trainer.update == "each_step":
        incremental = IncrementalLearning(energy, config.nudge, config.relax, cost)
        incremental.require_steps()
        return on_machine(incremental, config)
    if config.nudge.joint:
        return on_machine(JointLearning(energy, config.nudge, config.relax, cost), config)
    if config.nudge.points == 1:
        return on_machine(learning, config)
    require_holomorphic(energy, network, cost)
    if config.relax.frozen or config.relax.acceleration in ("conjugate", "anderson"):
        raise ConfigError(f"nudge.points={config.nudge.points} relaxes complex states by plain steps, without "
                          f"relax.acceleration={config.relax.acceleration} or relax.frozen={config.relax.frozen}: use "
                          "relax=auto or sweep")
    return on_machine(HolomorphicLearning(energy, config.nudge, config.relax, cost), config)


def require_digits(energy: Energy, depth: int, config: Config) -> None:
    """Looks at the displacement of layer l, about lambda gamma^(L-l) of its state. Where states hold it, or an energy
    that leaves its small differences to subtraction, it has to exceed their round-off; elsewhere, the smallest number.
    An output that is held near its free state is told from it by their digits in any case.

    Raises ConfigError where no digit is left of it, and warns below two.
    """
    info, gain = torch.finfo(config.dtype), energy.feedback_gain
    if gain ** (depth - 1) < info.tiny:
        raise ConfigError(f"energy.feedback_gain={gain} over {depth} layers falls below the smallest number of "
                          f"{config.precision}: use {1.1 * info.tiny ** (1 / (depth - 1)):.2g} or more")
    held = config.relax.coordinates == "state" or not isinstance(energy, (ExactError, ExactDisplacement))
    floor = info.eps if held else info.tiny
    least = info.eps if config.nudge.holds else floor
    mends = "precision=float64" + ("" if config.relax.coordinates == "error" else ", or relax.coordinates=error")
    strength = min(abs(each) for each in config.nudge.strengths)
    if strength < 10 * least:
        raise ConfigError(f"nudge.strength={config.nudge.strength} displaces states by less than the digits that "
                          f"{config.precision} leaves: use {100 * least:.1g} or more, {mends}")
    drowned = [l for l in range(1, depth) if min(strength, 1) * gain ** (depth - l) < 100 * floor]
    if drowned and gain < 1:
        better = 1.1 * (100 * floor / min(strength, 1)) ** (1 / (depth - 1))
        warnings.warn(f"energy.feedback_gain={gain} leaves layer {drowned[-1]} of {depth} no digits in "
                      f"{config.precision}: use {better:.2g} or more, {mends}", stacklevel=2)


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


def optimizer(cfg: DictConfig, network: Network) -> torch.optim.Optimizer:
    """The optimizer, with one learning rate or one for each layer."""
    rates: Any = resolved(cfg.optim).get("lr")
    layers = [[*layer.parameters(), *(feedback for _, feedback in network.followers(l))]
              for l, layer in enumerate(network.layers)]
    each = rates if isinstance(rates, list) else [rates] * len(layers)
    if len(each) != len(layers):
        raise ConfigError(f"optim.lr={rates} has {len(each)} entries for {len(layers)} layers: give one number, or one "
                          "for each layer")
    if not cfg.trainer.compile:
        without_compiler()
    largest = torch.finfo(next(network.parameters()).dtype).max
    for rate in each:
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate <= largest:
            raise ConfigError(f"optim.lr={rates} must be a number of 0 or more, up to {largest:.3g}")
    groups = [{"params": parameters, "lr": rate} for parameters, rate in zip(layers, each) if parameters]
    if not isinstance(rates, list):
        groups = [{"params": [p for layer in layers for p in layer], "lr": rates}]
    try:
        made: torch.optim.Optimizer = instantiate(cfg.optim, groups, lr=float(each[0]), _convert_="all")
    except Exception as error:
        raise ConfigError(f"optim={resolved(cfg.optim)} does not build: {error.__cause__ or error}; optim=torch has no "
                          "keys but lr") from error
    followed = any(network.followers(l) for l in range(network.depth))
    if followed and not all(group.get("weight_decay") for group in made.param_groups):
        warnings.warn("feedback that takes the steps of the weights becomes one with them only as both decay, and the "
                      "optimizer has no decay: set optim.weight_decay=1e-2", stacklevel=2)
    closure = inspect.signature(type(made).step).parameters.get("closure")
    if closure and closure.default is inspect.Parameter.empty:
        raise ConfigError(f"optim._target_={cfg.optim._target_} asks for the loss again within a step, which a "
                          "learning rule of its own cannot answer: use optim=sgd or adam")
    config = typed(cfg)
    if config.noise.writes:
        writing(config).watch(made)
    return made


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
