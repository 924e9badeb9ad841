"""Configurations that differ are told apart, key by key."""

from pathlib import Path

import pytest

from ebmrun.errors import ConfigError
from ebmrun.training.differences import difference, require_same

SAVED = {"seed": 0, "optim": {"lr": 0.1, "momentum": 0.9}, "arch": {"hidden": [128, 64]},
         "logger": {"wandb": True}}


def test_equal_configs_do_not_differ() -> None:
    assert difference(SAVED, SAVED) == []
    require_same(Path("checkpoint.pt"), SAVED, SAVED)


def test_each_difference_is_one_line_with_both_values() -> None:
    current = {"seed": 1, "optim": {"lr": 0.1}, "arch": {"hidden": [128, 32]}, "logger": {"wandb": True},
               "new": None}
    assert difference(SAVED, current) == [
        "arch.hidden: saved [128, 64], now [128, 32]",
        "new: saved absent, now None",
        "optim.momentum: saved 0.9, now absent",
        "seed: saved 0, now 1",
    ]


def test_an_ignored_key_stands_for_all_below_it() -> None:
    current = {"seed": 1, "optim": {"lr": 0.2, "momentum": 0.5}, "arch": {"hidden": [128, 64]}, "logger": {}}
    assert difference(SAVED, current, ignore=["seed", "logger", "optim.lr"]) == [
        "optim.momentum: saved 0.9, now 0.5"]


def test_a_checkpoint_of_another_run_says_what_differs() -> None:
    with pytest.raises(ConfigError, match="does not fit: seed: saved 0, now 4") as error:
        require_same(Path("checkpoint.pt"), SAVED, {**SAVED, "seed": 4})
    assert "\n" not in str(error.value)
