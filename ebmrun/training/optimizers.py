"""From ``optim`` of a configuration to an optimizer."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from ebmrun.config import resolved, typed
from ebmrun.errors import ConfigError
from ebmrun.theory.network import Network
from ebmrun.training.uncompiled import without_compiler
from ebmrun.training.writing import Writing


def optimizer(cfg: DictConfig, network: Network) -> torch.optim.Optimizer:
    """The optimizer, with one learning rate or one for each layer. Raises ConfigError."""
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
        Writing(config.noise, config.seed).watch(made)
    return made
