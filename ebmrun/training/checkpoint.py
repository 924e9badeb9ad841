"""Checkpoints: tensors and plain values in one file, always whole, that can run no code."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from ebmrun.errors import ConfigError
from ebmrun.files import replace


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
