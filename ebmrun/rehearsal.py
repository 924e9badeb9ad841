"""The first steps on a copy, before anything is written: what cannot be run shows there."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from ebmrun.data import Split
from ebmrun.errors import ConfigError, Diverged
from ebmrun.tracking import Silent
from ebmrun.trainer import Trainer

STEPS = 2  # the second is the first to see weights that a learning rate has moved


def rehearse(trainer: Trainer) -> None:
    """Takes the first steps with copies of the network and the optimizer, and evaluates them on as many test examples
    as a batch has. Raises ConfigError where a number is no longer finite."""
    network, optimizer = deepcopy((trainer.network, trainer.optimizer))
    test, size = trainer.dataset.test, trainer.config.batch_size
    few = Split(test.inputs[:size], test.targets[:size], test.labels[:size])
    twin = replace(
        trainer,
        network=network,
        optimizer=optimizer,
        references={},
        align_every=0,
        dataset=replace(trainer.dataset, test=few),
        config=replace(trainer.config, max_steps=min(STEPS, trainer.steps), log_every=1, compile=False),
        shows=False,
    )
    try:
        twin.train(0, Silent(), lambda step: None, lambda: False)
    except Diverged as error:
        raise ConfigError(str(error)) from error
