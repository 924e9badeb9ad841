"""Errors and warnings in one line: what Hydra and OmegaConf say over many, with the value and the mend, and where it is
said."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from hydra.errors import (
    ConfigCompositionException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import MarkedYAMLError

from ebmrun.errors import no_such_key, warn


def one_line(text: object) -> str:
    """The text with every run of white space, line ends too, as one space."""
    return " ".join(str(text).split())


def say(message: str, status: int = 1) -> None:
    """Print one line of error. Of a bad configuration (status 2), one process of `torchrun` speaks for all."""
    if status == 2 and os.environ.get("RANK", "0") != "0":
        return
    print(f"ebmrun: error: {message}", file=sys.stderr)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Within the block, what is raised by ``warnings.warn`` for users is one line, said once. Warnings for programmers,
    such as those of a deprecation, look as ever."""
    with warnings.catch_warnings():
        as_ever, said = warnings.showwarning, set[str]()

        def show(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                 file: TextIO | None = None, line: str | None = None) -> None:
            if file is None and category in (UserWarning, RuntimeWarning):
                if str(message) not in said:  # Python forgets what it has shown whenever a filter changes
                    said.add(str(message))
                    warn(str(message))
            else:
                as_ever(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def complaint(error: BaseException, groups: Iterable[str]) -> str:
    """One line about an error of composition: the value at fault, and what to write instead.

    Args:
        error: what Hydra, OmegaConf, the YAML reader or the file system raised before a run began.
        groups: the configuration groups that exist, to suggest from.
    """
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: no such option; {group} is one of {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: write key=value, and quote a value with special characters"
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, ValidationError):
        value = str(error).removeprefix("Error merging override ")
        return f"{value}: {str(error.__cause__).splitlines()[0]}"
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, OmegaConfBaseException):
        return complaint(error.__cause__, groups)
    if isinstance(error.__context__, OmegaConfBaseException) and str(error).startswith("In '"):
        return f"{str(error).split(chr(39))[1]}.yaml: {complaint(error.__context__, groups)}"
    if isinstance(error, (ConfigAttributeError, ConfigKeyError)):
        return _unknown_key(error, groups)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value: write {error.full_key}=VALUE"
    if isinstance(error, OmegaConfBaseException):
        return f"{error.full_key}: {str(error).splitlines()[0]}" if error.full_key else one_line(error)
    if isinstance(error, InstantiationException) and str(error).startswith("Error locating target"):
        return _not_found(error)
    if isinstance(error, InstantiationException) and str(error).startswith("Expected a callable"):
        value, key = str(error).split("'")[1], str(error).partition("full_key: ")[2]
        return f"{key}._target_={value} is no class or function: write MODULE.CLASS"
    if isinstance(error, InstantiationException) and error.__cause__:
        return one_line(error.__cause__)
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: not YAML: {error.problem}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; choose another folder (hydra.run.dir=, hydra.sweep.dir=)"
    if "--multirun" in str(error) and "'" in str(error):
        several = str(error).split("'")[1]
        return f"{several}: several values; add -m for a run of each, or write one list as key=[a,b]"
    return one_line(error)


def _unknown_key(error: ConfigAttributeError | ConfigKeyError, groups: Iterable[str]) -> str:
    name = str(error.full_key or error.key)
    siblings = {str(k) for k in error.parent_node or ()} - {"hydra"}
    parent = name.rpartition(".")[0]
    known = siblings if parent else siblings.union(groups)
    return no_such_key(name, known) if known else f"{name}: no such key; {parent} is a value, not a group of keys"


def _not_found(error: InstantiationException) -> str:
    target = str(error).split("'")[1]
    key = str(error).partition("full_key: ")[2] or "its group"
    cause: BaseException = error
    while cause.__cause__:
        cause = cause.__cause__
    return (f"_target_={target} of {key} cannot be loaded from {Path.cwd()} or the installed packages "
            f"({type(cause).__name__}: {one_line(cause)}): write MODULE.CLASS of a module that lies there")
