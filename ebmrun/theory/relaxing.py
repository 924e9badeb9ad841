"""How to relax, as a configuration says it. Without torch, so that a bad value is answered at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ebmrun.errors import ConfigError

CHOICES = {
    "order": ("sweep", "even_odd", "synchronous"),
    "coordinates": ("error", "state"),
    "acceleration": ("none", "auto", "adaptive", "conjugate", "anderson"),
}


@dataclass
class Relaxation:
    """How to relax: layer by layer (``sweep``), every other layer (``even_odd``) or all at once (``synchronous``), by
    ``step_size`` in (0, 2] of the way to each answer, in ``coordinates`` of one kind or the other. Raises ConfigError
    for values out of range.

    ``acceleration`` of sweeps: ``adaptive`` finds the step size by itself, from ``step_size`` on, and hands what
    settles slowly to ``conjugate``, conjugate gradients of the energy, which any nudge may take; ``anderson``
    extrapolates. ``auto`` is ``conjugate`` for an energy that rests at the forward pass and ``adaptive`` for one that
    has to settle, and ``none`` with another order or step size than the default.

    ``tol`` (0 or more) bounds the residual: the largest over layers of ||answer - u|| / ||moved - start||; 0 runs
    ``max_steps`` (1 or more) in any case. Where a unit rests on a kink, its feedback between both sides is one more
    variable, and what its change does to the answers below is a part of the residual: 'converged' then speaks of the
    minimum on the kink. ``free_steps`` bounds a free phase that has to settle (null: ``max_steps``). The residual is
    read every ``check_every`` steps. ``frozen`` takes a single sweep, with drives, slopes and the cost's gradient held
    at the forward pass, and reads messages there; it has no residual.
    """

    order: str = "sweep"
    coordinates: str = "error"
    frozen: bool = False
    acceleration: str = "none"
    step_size: float = 1.0
    tol: float = 1e-3
    max_steps: int = 100
    free_steps: int | None = None
    check_every: int = 1

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                raise ConfigError(f"relax.{key}={getattr(self, key)} is unknown: choose one of {', '.join(choices)}")
        if not 0 < self.step_size <= 2:
            raise ConfigError(f"relax.step_size={self.step_size} must lie in (0, 2]: 1 moves a state all the way")
        if not (self.tol >= 0 and math.isfinite(self.tol)):
            raise ConfigError(f"relax.tol={self.tol} must be 0 or a positive number: try 1e-3")
        for key in ("max_steps", "free_steps", "check_every"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ConfigError(f"relax.{key}={getattr(self, key)} must be 1 or more")
        for key, needed in (("order", "sweep"), ("step_size", 1), ("acceleration", "none")):
            if self.frozen and getattr(self, key) != needed:
                raise ConfigError(f"relax.{key}={getattr(self, key)} has no use in the single sweep of relax.frozen: "
                                  f"set relax.{key}={needed}")
        for key, needed, useless in (("order", "sweep", ("adaptive", "conjugate")), ("step_size", 1, ("conjugate",))):
            if self.acceleration in useless and getattr(self, key) != needed:
                raise ConfigError(f"relax.{key}={getattr(self, key)} has no use with relax.acceleration="
                                  f"{self.acceleration}: set relax.{key}={needed}, or relax.acceleration=none")
