"""The first steps on a copy, before anything is written: what cannot be run shows there."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

from torch.optim import Optimizer

from ebmrun.data.sets import Split
from ebmrun.errors import ConfigError, Diverged
from ebmrun.theory.algorithm import Algorithm
from ebmrun.theory.network import Network
from ebmrun.training.selection import Selection
from ebmrun.training.tracking import Silent
from ebmrun.training.trainer import Trainer

STEPS = 2  # the second is the first to see weights that a learning rate has moved


def rehearse(trainer: Trainer, algorithm: Algorithm, size: int, optimizer: Callable[[Network], Optimizer]) -> None:
    """Takes the first steps with a copy of the network and an ``optimizer`` of its own, in batches of that size, and
    evaluates them on as many test examples. Each process of a job does so by itself, with the same examples and the
    same outcome.

    Raises ConfigError where a number is no longer finite.
    """
    network = deepcopy(trainer.network)
    test, config = trainer.dataset.test, trainer.config
    few = Split(test.inputs[:size], test.targets[:size], test.labels[:size])
    twin = replace(
        trainer,
        network=network,
        algorithm=algorithm,
        optimizer=optimizer(network),
        references={},
        align_every=0,
        probe_every=0,
        dataset=replace(trainer.dataset, test=few, val=None),
        config=replace(config, batch_size=size, max_steps=min(STEPS, trainer.steps), log_every=1, compile=False),
        shows=False,
        selection=Selection(),
    )
    try:
        twin.train(0, Silent(), lambda step: None, lambda: False)
    except Diverged as error:
        raise ConfigError(f"{error}; in the first steps, a smaller arch.gain or dataset.range may do, too") from error
