"""Files that are whole or absent, whatever interrupts the writing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ebmrun.errors import RunError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into a RunError that names the path and the mend."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; free some space, or choose another folder "
                       "with hydra.run.dir=PATH") from error


@contextmanager
def replace(path: Path) -> Iterator[BinaryIO]:
    """Open a new version of `path`, which takes its place only when the block ends without an error.

    The old version stays readable until then. Raises RunError where the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with writing(path):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
