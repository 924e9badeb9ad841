"""Algorithms whose products have fewer digits than the numbers that they work on.

States, messages, energies, weights and the optimizer keep theirs. A reference keeps them in its products, too, so that
the distance from it shows what the rounding costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ebmrun.errors import ConfigError
from ebmrun.theory.affine.bfloat16 import in_bfloat16
from ebmrun.theory.algorithm import Algorithm, Estimate, Output, Prediction, Stepwise
from ebmrun.theory.equilibrium import Batch
from ebmrun.theory.network import Network

A = TypeVar("A", bound=Algorithm)
Rounding = Callable[[Network], AbstractContextManager[Network]]


@contextmanager
def bf16(network: Network) -> Iterator[Network]:
    """The network with its products in bfloat16."""
    with torch.enable_grad():  # for those that differentiate by weights through their rounding
        twin = network.through(in_bfloat16)
    yield twin


@contextmanager
def tf32(network: Network) -> Iterator[Network]:
    """The network, where products of float32 on CUDA may round their factors to 11 bits."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    try:
        yield network
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


ROUNDINGS: dict[str, Rounding] = {"bf16": bf16, "tf32": tf32}


@dataclass(frozen=True)
class Rounded:
    """An algorithm with its products rounded."""

    algorithm: Algorithm
    rounding: Rounding

    def predict(self, network: Network, x: Batch, **drawn: Tensor) -> Prediction:
        """The output by rounded products."""
        with self.rounding(network) as rounded:
            return self.algorithm.predict(rounded, x, **drawn)

    def estimate(self, network: Network, x: Batch, y: Output, **drawn: Tensor) -> Estimate:
        """The gradients by rounded products."""
        with self.rounding(network) as rounded:
            return self.algorithm.estimate(rounded, x, y, **drawn)


def of_precision(algorithm: A, network: Network, precision: str) -> A | Rounded:
    """The algorithm with the products of a precision. Raises ConfigError for a network of which these are not known,
    and for an algorithm during which weights move, whose roundings would be those of before."""
    rounding = ROUNDINGS.get(precision)
    if rounding is None:
        return algorithm
    if isinstance(algorithm, Stepwise):
        raise ConfigError(f"precision={precision} rounds the weights once a batch, and trainer.update=each_step moves "
                          "them meanwhile: use precision=float32, or trainer.update=at_equilibrium")
    with rounding(network):  # what cannot be rounded shows here
        return Rounded(algorithm, rounding)
