"""Which data, and what becomes of them before they are inputs: the group ``dataset``. Without torch, so that a bad
value is answered at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ebmrun.errors import ConfigError

LARGEST = (2 - 2**-23) * 2.0**126  # of an input: what lies between two is then finite in float32, too
NORMALISE = ("range", "standard", "none")
READ_BY = {"path": ("npz", "folder"), "size": ("folder",), "channels": ("folder",)}  # by no other data set


@dataclass
class DatasetConfig:
    """Which data set, where its files are, and how its pixels become inputs.

    ``root`` is the folder of the published sets (``digits`` comes with scikit-learn and needs none), ``path`` the file
    of ``npz`` or the folder of ``folder``, ``_target_`` a function of the user's own that is called with ``arguments``.
    ``normalise``: ``range`` maps the lowest and the highest value of a pixel to ``range``; ``standard`` subtracts the
    mean of each channel of the training set and divides by ``scale`` deviations; ``none`` leaves values as they are.
    ``limit`` takes so many examples of the training set, ``validation`` sets that share of them aside, both
    class by class. ``classes`` is the number of classes (null: one more than the largest label of the training set).
    Images of a folder become ``size`` [height, width] (null: all have the same) and have 1 or 3 ``channels`` (null:
    those of the first). ``in_memory``: ``auto`` leaves on the disk what takes more than 1 GiB; ``workers`` processes
    decode images. Raises ConfigError for values out of range.
    """

    name: str | None = None
    root: str = "data"
    path: str | None = None
    _target_: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    classes: int | None = None
    normalise: str = "range"
    range: Any = field(default_factory=lambda: [-1.0, 1.0])  # typed as a list, its complaints would name no mend
    scale: float = 1.0
    limit: int | None = None
    validation: float = 0.0
    size: Any = None
    channels: int | None = None
    in_memory: Any = "auto"
    workers: int = 2

    def __post_init__(self) -> None:
        if not _is_range(self.range):
            raise ConfigError(
                f"dataset.range={self.range} must be two numbers of float32, the lower first: try [-1,1] or [0,1]"
            )
        if self.normalise not in NORMALISE:
            raise ConfigError(f"dataset.normalise={self.normalise} is unknown: choose one of {', '.join(NORMALISE)}")
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"dataset.scale={self.scale} must be a positive number: try 1, or 3 for three deviations")
        if not 0 <= self.validation < 1:
            raise ConfigError(f"dataset.validation={self.validation} must lie in [0, 1): 0.1 sets a tenth aside")
        for key, least in (("limit", 1), ("classes", 2), ("workers", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ConfigError(f"dataset.{key}={value} must be {least} or more")
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"dataset.channels={self.channels} must be 1 (grey) or 3 (colour)")
        if self.size is not None and not _is_size(self.size):
            raise ConfigError(f"dataset.size={self.size} must be a height and a width: try [32,32]")
        if self.in_memory not in ("auto", True, False):
            raise ConfigError(f"dataset.in_memory={self.in_memory} must be auto, true or false")
        for key, readers in READ_BY.items():
            if getattr(self, key) is not None and self.name not in readers:
                raise ConfigError(f"dataset.{key}={getattr(self, key)} is read by dataset={' and '.join(readers)} "
                                  "alone: leave it out")
        if self.arguments and not self._target_:
            raise ConfigError("dataset.arguments are for a function of your own: name it, as in "
                              "dataset._target_=my_data.load")


def _is_range(value: Any) -> bool:
    match value:
        case [int() | float() as low, int() | float() as high] if -LARGEST <= low < high <= LARGEST:
            return not any(isinstance(end, bool) for end in value)
    return False


def _is_size(value: Any) -> bool:
    return (isinstance(value, (list, tuple)) and len(value) == 2
            and all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in value))
