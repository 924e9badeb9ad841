"""What a trainer asks of an algorithm, and what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ebmrun.theory.equilibrium import Batch
from ebmrun.theory.network import Network

Output = Float[Tensor, "batch classes"]


@dataclass(frozen=True)
class Estimate:
    """Gradients in the order of ``network.parameters()``, as means over the batch; the output of the free phase; and
    how relaxation went: steps of both phases, the larger residual, whether both met their tolerance. None stands for
    what was not measured, as where nothing relaxes."""

    gradients: list[Tensor]
    output: Output
    steps: int | None = None
    residual: float | None = None
    converged: bool | None = None


@dataclass(frozen=True)
class Prediction:
    """The output of the free phase, and whether that phase met its tolerance; None where the free equilibrium is the
    forward pass, so that nothing relaxes."""

    output: Output
    converged: bool | None = None


@runtime_checkable
class Algorithm(Protocol):
    """An estimator of gradients, and the output that goes with it."""

    def estimate(self, network: Network, x: Batch, y: Output) -> Estimate:
        """Gradients of the mean cost of a batch of inputs x and targets y."""

    def predict(self, network: Network, x: Batch) -> Prediction:
        """The output of the network for inputs x."""


@runtime_checkable
class Stepwise(Algorithm, Protocol):
    """One that learns while it relaxes."""

    def estimates(self, network: Network, x: Batch, y: Output) -> Iterator[Estimate]:
        """Gradients after each step, at the weights as they are when it is asked for."""
