"""The program in this process: the command with its exit status, and the configurations that it would compose."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from ebmrun.command import cli

ROOT = Path(__file__).resolve().parents[1]


class Ended(NamedTuple):
    """How a command ended: its exit status and the lines that it wrote to stderr."""

    status: int
    lines: list[str]


Command = Callable[..., Ended]


def call(*arguments: str) -> int:
    """The command in the current folder; its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRA_FULL_ERROR", "0")  # the command sets it, and adds the current folder to the path
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "argv", ["ebmrun", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0


def composed(*overrides: str) -> DictConfig:
    """The configuration that the command composes from these words, for files alone and the CPU."""
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        return compose("config", ["logger=csv", "device=cpu", *overrides])


def environment(**variables: str) -> dict[str, str]:
    """For a process of its own: it finds this checkout from any folder, and sends nothing to Weights & Biases."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "WANDB_MODE": "offline"} | variables
