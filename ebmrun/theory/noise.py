"""What an imperfect machine does to an algorithm, as a configuration says it. Without torch, so that a bad value is
answered at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ebmrun.errors import ConfigError

BITS = (2, 24)


@dataclass
class Noise:
    """Imperfections of analog hardware; none by default. Raises ConfigError for values out of range.

    ``states``, ``messages`` and ``readings`` (0 or more) are standard deviations, in the units of a state. The first
    two come anew at each step of a relaxation, to each answer of a unit and to each message below a map; the third at
    each node of the nudge, the free one included, to each state and each message that the learning rule multiplies.

    ``reading_bits`` and ``weight_bits`` (2 to 24, null for no limit) leave 2^bits - 1 levels in +-``reading_range`` and
    +-``weight_range``, beyond which a reading or a weight of so many bits saturates. ``asymmetry`` a in (-1, 1) makes
    what adds to a weight (1 + a) and what takes from it (1 - a) times as large as the optimizer says. ``mismatch`` (0
    or more) is the relative standard deviation of each weight of the way down from the one of the way up, drawn once
    from the seed.
    """

    states: float = 0.0
    messages: float = 0.0
    readings: float = 0.0
    reading_bits: int | None = None
    reading_range: float = 1.0
    weight_bits: int | None = None
    weight_range: float = 1.0
    asymmetry: float = 0.0
    mismatch: float = 0.0

    def __post_init__(self) -> None:
        for key in ("states", "messages", "readings", "mismatch"):
            value = getattr(self, key)
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"noise.{key}={value} must be a standard deviation, 0 or more: try 1e-3, or 0 for "
                                  "none")
        for key in ("reading_bits", "weight_bits"):
            value = getattr(self, key)
            if value is not None and not BITS[0] <= value <= BITS[1]:
                raise ConfigError(f"noise.{key}={value} must lie in {BITS[0]}..{BITS[1]}, or be null for no limit")
        for key in ("reading_range", "weight_range"):
            value = getattr(self, key)
            if not 0 < value < math.inf:
                raise ConfigError(f"noise.{key}={value} must be a positive number: the largest that the machine holds")
        for what in ("reading", "weight"):
            bits, span = getattr(self, f"{what}_bits"), getattr(self, f"{what}_range")
            if bits is None and span != 1:
                raise ConfigError(f"noise.{what}_range={span} bounds levels, and there are none without "
                                  f"noise.{what}_bits: set noise.{what}_bits=8, or leave it out")
        if not -1 < self.asymmetry < 1:
            raise ConfigError(f"noise.asymmetry={self.asymmetry} must lie between -1 and 1: 0.1 makes steps up 1.1 "
                              "and steps down 0.9 times as large")

    @property
    def moves(self) -> bool:
        """Whether it enters the relaxation."""
        return self.states > 0 or self.messages > 0

    @property
    def reads(self) -> bool:
        """Whether it enters what the learning rule reads."""
        return self.readings > 0 or self.reading_bits is not None

    @property
    def estimated(self) -> bool:
        """Whether it enters an estimate at all."""
        return self.moves or self.reads

    @property
    def writes(self) -> bool:
        """Whether it enters what an optimizer does to the weights."""
        return self.weight_bits is not None or self.asymmetry != 0
