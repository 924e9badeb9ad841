"""Which data, as a configuration says it. Without torch, so that a bad value is answered at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ebmrun.errors import ConfigError

LARGEST = (2 - 2**-23) * 2**127 / 2  # half of float32's, of an input: what lies between two is then finite there, too


@dataclass
class DatasetConfig:
    """Which data set, the folder of its files (``digits`` comes with scikit-learn and needs none), and the inputs
    [low, high] that the lowest and the highest value of a pixel become. Raises ConfigError for a range that is none."""

    name: str = "digits"
    root: str = "data"
    range: Any = field(default_factory=lambda: [-1.0, 1.0])  # typed as a list, its complaints would name no mend

    def __post_init__(self) -> None:
        match self.range:
            case [int() | float() as low, int() | float() as high] if -LARGEST <= low < high <= LARGEST:
                if not any(isinstance(end, bool) for end in self.range):
                    return
        raise ConfigError(
            f"dataset.range={self.range} must be two numbers of float32, the lower first: try [-1,1] or [0,1]"
        )
