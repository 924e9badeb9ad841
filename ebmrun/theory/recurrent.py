"""Recurrent backpropagation, in full or truncated: the implicit gradient as an algorithm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ebmrun.errors import ConfigError, Diverged
from ebmrun.theory.equilibrium import Batch, FreeEquilibrium
from ebmrun.theory.network import Network
from ebmrun.theory.references import Implicit, pulled_back, tightest
from ebmrun.theory.solver import Relaxed


@dataclass(frozen=True)
class RecurrentBackprop(Implicit):
    """The implicit gradient at the free equilibrium that the run's own relaxation reaches, to its own tolerance, down
    to where digits end (Almeida 1987; Pineda 1987). ``steps`` K truncates the linear system to

        v = sum_{k<K} (dPhi/dx)^Tk dC/dx,

    K steps of its fixed-point iteration from 0, which is backpropagation through the last K steps of a synchronous
    relaxation that has settled (Ernoult et al. 2019). The cost reaches one layer more with each; the residual is
    ||(dPhi/dx)^TK dC/dx|| / ||dC/dx||, by which the system is off. Raises ConfigError for less than one step.
    """

    steps: int | None = None
    slack: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if self.steps is not None and (not isinstance(self.steps, int) or isinstance(self.steps, bool)
                                       or self.steps < 1):
            raise ConfigError(f"algo.steps={self.steps} must be an integer of 1 or more, as many as there are layers "
                              "for all of them to learn, or null to solve to the end (algo=rbp)")

    def _free(self, network: Network, x: Batch) -> tuple[FreeEquilibrium, Relaxed | None]:
        with torch.no_grad():
            return self.learning.free_equilibrium(network, x)

    def _tolerance(self, x: Batch) -> float:
        return max(self.learning.relaxation.tol, tightest(x))

    def _solve(
        self, image: Sequence[Batch], states: Sequence[Batch], pull: Sequence[Batch]
    ) -> tuple[list[Batch], float, bool]:
        if self.steps is None:
            return super()._solve(image, states, pull)
        v, back = [torch.zeros_like(state) for state in states], pull
        for _ in range(self.steps):
            v = [total + each for total, each in zip(v, back)]
            back = pulled_back(image, states, back)
        size, left = (math.hypot(*(float(torch.linalg.vector_norm(each, dtype=torch.float64)) for each in parts))
                      for parts in (pull, back))
        residual = left / size if size else 0.0
        if not math.isfinite(residual):
            raise Diverged(f"{self.steps} steps of recurrent backpropagation do not settle: use a smaller algo.steps, "
                           "energy.feedback_gain or optim.lr")
        return v, residual, residual <= self._tolerance(states[-1])
