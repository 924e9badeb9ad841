"""What an energy is: three functions of a state x and a drive a, for a layer with the activation f.

    value(x, a)    = E(x, a)
    respond(a, t)  = argmin_x  E(x, a) - <x, t>      the state that answers drive a and the message t from above
    feedback(x, a) = -dE/da                          the message that the layer sends down
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ebmrun.errors import ConfigError
from ebmrun.theory.activations.abstract import Activation, Batch


@dataclass(frozen=True)
class Energy(ABC):
    """An energy with its feedback gain gamma in (0, 1]: a layer h layers below the output counts gamma^-h in the
    internal energy, which scales every message by gamma for each layer that it goes down (Xie & Seung 2003).

    ``feedforward`` declares that without a message the state is f(a) and sends no feedback, so that the forward pass is
    the free equilibrium and has no gradient of its own. ``jumps`` says that the feedback of a unit may jump where its
    drive crosses a kink of f. Raises ConfigError for another gain.
    """

    feedback_gain: float = 1.0
    feedforward: ClassVar[bool] = False
    jumps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        gain = self.feedback_gain
        if isinstance(gain, bool) or not isinstance(gain, (int, float)) or not 0 < gain <= 1:
            raise ConfigError(f"energy.feedback_gain={gain} must be a number in (0, 1]: use 1 for full feedback")

    @abstractmethod
    def value(self, x: Batch, a: Batch, f: Activation) -> Batch:
        """E(x, a): one number a unit, or one an example; whatever follows the batch axis is summed."""

    @abstractmethod
    def respond(self, a: Batch, t: Batch, f: Activation) -> Batch:
        """argmin_x E(x, a) - <x, t>."""

    @abstractmethod
    def feedback(self, x: Batch, a: Batch, f: Activation) -> Batch:
        """-dE/da."""

    def layer_gains(self, heights: list[int]) -> list[float]:
        """gamma^-h for layers of these heights. Raises ConfigError when the largest is no floating-point number."""
        if self.feedback_gain < 1 and -max(heights) * math.log10(self.feedback_gain) > 300:
            raise ConfigError(f"energy.feedback_gain={self.feedback_gain} over {max(heights) + 1} layers overflows: "
                              f"use at least {10 ** (-300 / max(heights)):.1g}")
        return [self.feedback_gain**-height for height in heights]
