"""The ways in which a run can end early, with their exit statuses; and what is said in one line of warning."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(ValueError):
    """What was asked for cannot be run (exit status 2). The message names the value and the mend, in one line."""


class RunError(RuntimeError):
    """A run that was asked for rightly has failed (exit status 1). The message says where, and what to try."""


class Diverged(RunError):
    """A number of the run is no longer finite."""


class Held(RunError):
    """Another process writes to the run's folder."""


def warn(message: str) -> None:
    """Print one line of warning."""
    print(f"ebmrun: warning: {' '.join(message.split())}", file=sys.stderr)


def no_such_key(name: str, known: Iterable[str]) -> str:
    """One line about a dotted key that does not exist: the nearest of those beside it, or all of them."""
    keys = sorted(known)
    near = get_close_matches(name.rpartition(".")[2], keys, n=1)
    return f"{name}: no such key; " + (f"did you mean {near[0]}?" if near else f"the keys are {', '.join(keys)}")
