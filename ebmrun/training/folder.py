"""A run's folder: what its files say about the run, who writes to it now, and how it is cleared for the next.

Nothing runs           no configuration and no checkpoint
Begun                  .hydra/config.yaml
Stopped                checkpoint.pt, and a metrics.csv that reaches it
Finished               summary.json of as many steps
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ebmrun.config import resolved
from ebmrun.errors import ConfigError, Held, warn
from ebmrun.files import writing
from ebmrun.training.differences import require_same

FAILED = "failed.json"  # what a failed run of several leaves, whichever process it ran in
LOCK = ".lock"
CONFIG = Path(".hydra", "config.yaml")
# What a run leaves, in an order in which it can go and be true at any moment: first what says that it finished, then
# what it could go on from, then its rows, and last its configuration, which says that it began.
RESULTS = ("summary.json", FAILED, "checkpoint.pt", "best.pt", "metrics.csv", CONFIG)
# What a resumed run may do otherwise than the run that it continues.
FREE_ON_RESUME = ("resume", "device", "logger", "dataset.root", "dataset.in_memory", "dataset.workers",
                  "trainer.epochs", "trainer.max_steps", "study.trials")


def begun(run_dir: Path) -> bool:
    """Whether a run has begun there, be it without a checkpoint."""
    return (run_dir / CONFIG).is_file() or (run_dir / "checkpoint.pt").is_file()


def summary(run_dir: Path) -> dict[str, Any]:
    """The summary of a run that has ended; empty without one."""
    path = run_dir / "summary.json"
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:  # cut by something else than a run: it is written anew
        return {}


def resumes(run_dir: Path, composed: Mapping[str, Any], several: bool) -> bool:
    """Whether a run goes on with what is in its folder. By default (``resume=null``) each of several runs does that
    where it can, and a single one leaves alone what has begun.

    Raises ConfigError for a folder that holds another run, or holds one and nobody said what to do with it.
    """
    asked = composed["resume"]
    if asked is False or (several and not begun(run_dir)):
        return False
    if asked is None and not several:
        if begun(run_dir):
            name = os.path.relpath(run_dir) if run_dir.is_relative_to(Path.cwd()) else run_dir
            raise ConfigError(f"{name} holds a run: go on with resume={name}, overwrite it with resume=false, or "
                              "choose another folder with hydra.run.dir=PATH")
        return False
    path = run_dir / CONFIG
    if path.is_file():
        try:
            before = resolved(OmegaConf.load(path))
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"cannot read {path} ({' '.join(str(error).split())}): mend it, or overwrite the run "
                              "with resume=false") from error
        require_same(path, before, composed, ignore=FREE_ON_RESUME)
    return True


def clear(run_dir: Path, names: Iterable[str | Path]) -> None:
    """Removes what an earlier run has left, one after the other. Raises RunError where the disk refuses."""
    with writing(run_dir):
        for name in names:
            (run_dir / name).unlink(missing_ok=True)


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Within the block, this process alone writes to the folder. The lock ends with the process, however that ends.

    Raises Held where another process holds it, RunError where the disk refuses.
    """
    path = run_dir / LOCK
    with writing(run_dir):
        file = _lock(path)
        try:
            os.ftruncate(file, 0)
            since = datetime.now().isoformat(sep=" ", timespec="seconds")
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)
        except OSError:
            _unlock(path, file)
            raise
    try:
        yield
    finally:
        _unlock(path, file)


def _lock(path: Path) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 1000, 0).decode(errors="replace") or "another process"
            os.close(file)
            raise Held(f"{path.parent} is being written by {holder}: wait until it ends, or choose another folder with "
                       "hydra.run.dir=PATH") from None
        except OSError as error:  # a file system without locks
            warn(f"cannot lock {path.parent} ({error.strerror}): start no second run there")
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # whoever held it before has removed it meanwhile


def _unlock(path: Path, file: int) -> None:
    with suppress(OSError):
        path.unlink()
    os.close(file)
