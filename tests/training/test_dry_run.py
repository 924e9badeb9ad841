"""A rehearsal ends what would end at once, and leaves no trace in what it allows."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from test_trainer import train, trainer

from ebmrun.errors import ConfigError, Diverged
from ebmrun.training import dry_run as rehearsal
from ebmrun.training.trainer import Trainer


def stepped(size: float, **settings: int) -> Trainer:
    """The linear least squares of the trainer's tests, by steps of that size with momentum."""
    subject = trainer(**settings)
    return replace(subject, optimizer=torch.optim.SGD(subject.network.parameters(), lr=size, momentum=0.9))


def rehearse(subject: Trainer) -> None:
    settings = subject.optimizer.param_groups[0]
    again = partial(torch.optim.SGD, lr=settings["lr"], momentum=settings["momentum"])
    rehearsal.rehearse(subject, subject.algorithm, subject.config.batch_size, lambda net: again(net.parameters()))


def test_a_step_out_of_range_is_bad_input() -> None:
    """The first step moves the weights to about 1e200, whose squared errors are beyond float64 at the second."""
    with pytest.raises(ConfigError, match="at step 2: the training diverged, use a smaller optim.lr"):
        rehearse(stepped(1e200))


def test_a_divergence_of_later_steps_is_a_failed_run(tmp_path: Path) -> None:
    """Each step multiplies the error by about 1e20, so that its square is within float64 for seven steps and beyond it
    at the ninth."""
    subject = stepped(1e20, epochs=3)
    rehearse(subject)
    with pytest.raises(Diverged, match="diverged"):
        train(subject, tmp_path)


def test_it_moves_neither_the_network_nor_the_optimizer(tmp_path: Path) -> None:
    fresh, rehearsed = stepped(0.1), stepped(0.1)
    before = deepcopy((rehearsed.network.state_dict(), rehearsed.optimizer.state_dict()))
    rehearse(rehearsed)
    after = (rehearsed.network.state_dict(), rehearsed.optimizer.state_dict())
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    for subject, folder in ((fresh, "fresh"), (rehearsed, "rehearsed")):
        (tmp_path / folder).mkdir()
        train(subject, tmp_path / folder)
    torch.testing.assert_close(rehearsed.network.state_dict(), fresh.network.state_dict(), rtol=0, atol=0)


def test_a_run_of_one_step_is_rehearsed_as_one() -> None:
    """A single step of that size leaves finite weights, and the loss that it ends with is that of no number."""
    with pytest.raises(ConfigError, match="test/loss=inf at step 1"):
        rehearse(stepped(1e200, max_steps=1))
