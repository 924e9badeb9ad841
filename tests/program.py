"""The program in this process: the command with its exit status, and the configurations that it would compose."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from io import FileIO, TextIOWrapper
from pathlib import Path
from typing import NamedTuple

import pytest
import sklearn.datasets  # noqa: F401 - a run imports these two late; here it is before a process is forked
import torch
import torch._dynamo
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


class Forked:
    """The command in a process and a session of its own, which is a copy of this one: it begins at once, since nothing
    has to be imported. The interface is that of ``subprocess.Popen``, with stderr as text and no stdout."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.returncode: int | None = None
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        self.pid = os.fork()
        if self.pid == 0:
            self._run(folder, arguments)

    def _run(self, folder: Path, arguments: tuple[str, ...]) -> None:
        status = 1
        try:
            os.setsid()
            os.chdir(folder)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(self._said.fileno(), 2)
            sys.stdout, sys.stderr = (TextIOWrapper(FileIO(fd, "w"), write_through=True) for fd in (1, 2))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            torch.set_num_threads(1)  # a fork has none of the threads that this process made
            status = call(*arguments)
        except BaseException:  # noqa: BLE001 - nothing of the copy may go on with the tests
            traceback.print_exc()
        finally:
            os._exit(status)

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[None, str]:
        """What it wrote to stderr, once it has ended."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                raise TimeoutError(f"still running after {timeout} s")
            time.sleep(0.005)
        self._said.seek(0)
        return None, self._said.read()


def composed(*overrides: str) -> DictConfig:
    """The configuration that the command composes from these words, for files alone and the CPU."""
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        return compose("config", ["logger=csv", "device=cpu", *overrides])


def environment(**variables: str) -> dict[str, str]:
    """For a process of its own: it finds this checkout from any folder, and sends nothing to Weights & Biases."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "WANDB_MODE": "offline"} | variables
