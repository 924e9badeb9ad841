"""Checkpoints: tensors and plain values in one file, always whole, that can run no code."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ebmrun.errors import ConfigError
from ebmrun.files import replace

ABSENT = "absent"


def save(path: Path, contents: dict[str, Any]) -> None:
    """Replace the checkpoint at `path`; the old one stays until the new one is safe on the disk.

    Raises RunError where the disk refuses.
    """
    # Serialised in memory first: torch's own writer answers a full disk with an assertion that hides the cause.
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    with replace(path) as file:
        file.write(buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint, on the CPU. Raises ConfigError where it is missing, damaged or unsafe."""
    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():  # torch itself never looks at the checksums
                raise zipfile.BadZipFile(f"the checksum of {broken} is wrong")
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"cannot read the checkpoint {path}: {error.strerror or error}; name a file that a run "
                          "left, or start anew with resume=false") from error
    except pickle.UnpicklingError as error:
        raise ConfigError(f"refused the checkpoint {path}: it holds more than tensors and plain values, and might "
                          "run code; name one that ebmrun wrote") from error
    except Exception as error:  # a damaged file can fail anywhere in the readers
        raise ConfigError(f"refused the checkpoint {path}: it is damaged, or no checkpoint; name an intact one, or "
                          "start anew with resume=false") from error
    if not isinstance(contents, dict):
        raise ConfigError(f"the checkpoint {path} holds no run but a {type(contents).__name__}; name one that ebmrun "
                          "wrote")
    return contents


def difference(saved: Mapping[str, Any], current: Mapping[str, Any], ignore: Collection[str] = ()) -> list[str]:
    """One line `key: saved X, now Y` for each value in which two nested configs differ, in order of the keys.

    Keys are dotted (`optim.lr`); a key in `ignore` stands for all below it, too.
    """
    before, now = (dict(_leaves(config, frozenset(ignore))) for config in (saved, current))
    return [f"{key}: saved {before.get(key, ABSENT)}, now {now.get(key, ABSENT)}"
            for key in sorted(before.keys() | now.keys()) if before.get(key, ABSENT) != now.get(key, ABSENT)]


def require_same(path: Path, saved: Mapping[str, Any], current: Mapping[str, Any],
                 ignore: Collection[str] = ()) -> None:
    """Raise ConfigError, naming all that differs, unless the file at `path` comes from a run of the current config."""
    if lines := difference(saved, current, ignore):
        raise ConfigError(f"{path} does not fit: {'; '.join(lines)}. Use the saved values, begin again with "
                          "resume=false, or choose another folder with hydra.run.dir=PATH")


def _leaves(config: Mapping[str, Any], ignore: frozenset[str], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        key = f"{above}{name}"
        if key in ignore:
            continue
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, ignore, f"{key}.")
        else:
            yield key, value
