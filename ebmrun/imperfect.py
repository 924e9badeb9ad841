"""From ``noise`` of a configuration to what it makes of the other parts."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch

from ebmrun.config import Config
from ebmrun.errors import ConfigError
from ebmrun.theory.analog import AnalogHolomorphicLearning, AnalogLearning
from ebmrun.theory.feedback import Feedback, Mismatched, Tied
from ebmrun.theory.grid import Grid
from ebmrun.theory.holomorphic import HolomorphicLearning
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.noise import Noise


def on_states(config: Config) -> Config:
    """The configuration of a relaxation that noise enters: it moves the states themselves, whatever
    ``relax.coordinates`` says."""
    return replace(config, relax=replace(config.relax, coordinates="state")) if config.noise.moves else config


def on_machine(learning: EnergyLearning, config: Config) -> EnergyLearning:
    """The member on a machine with noise; itself where there is none."""
    if not config.noise.estimated:
        return learning
    kind = AnalogHolomorphicLearning if isinstance(learning, HolomorphicLearning) else AnalogLearning
    return kind(**vars(learning), noise=config.noise, seed=config.seed)


def give_feedback(feedback: Feedback, config: Config, network: Network) -> None:
    """Gives a network the weights of its way down. Raises ConfigError for other ones where no message goes down."""
    chosen = mismatched(feedback, config.noise)
    chosen.give(network, config.seed)
    if network.tied and not isinstance(chosen, Tied):
        raise ConfigError(f"feedback={type(chosen).__name__} has no use in a network whose maps hear the input alone, "
                          "so that no message goes down: use feedback=tied and noise.mismatch=0, or a hidden layer")


def mismatched(feedback: Feedback, noise: Noise) -> Feedback:
    """Where the weights of the way down come from on a machine. Raises ConfigError for two sources."""
    if noise.mismatch == 0:
        return feedback
    if not isinstance(feedback, Tied):
        raise ConfigError(f"noise.mismatch={noise.mismatch} parts the way down from the way up, and a "
                          f"{type(feedback).__name__} feedback has done so: use feedback=tied, or noise.mismatch=0")
    return Mismatched(noise.mismatch)


@torch.no_grad()
def round_initial_weights(network: Network, config: Config) -> None:
    """Rounds initial weights to those that a machine can hold. Raises ConfigError for larger ones, and warns of maps of
    which nothing is left."""
    grid = Grid(config.noise.weight_range, config.noise.weight_bits)
    weights = [*network.weights, *(own for l in range(network.depth) for _, own in network.followers(l))]
    largest = max((float(weight.abs().max()) for weight in weights), default=0.0)
    if grid.bits and largest > grid.span:
        raise ConfigError(f"noise.weight_range={grid.span} is less than the largest initial weight, {largest:.3g}: use "
                          "a larger one, or a smaller arch.gain")
    for weight in weights:
        weight.copy_(grid.nearest(weight))
    lost = sum(weight.ndim > 1 and not bool(weight.any()) for weight in weights)
    if lost:
        warnings.warn(f"noise.weight_bits={grid.bits} rounds all weights of {lost} maps to 0, so that nothing passes "
                      "through them: use a smaller noise.weight_range, or more bits", stacklevel=2)
