"""Data-parallel training: every process of a `torchrun` job takes its share of each batch.

    g = sum_r (n_r / n) g_r          over the processes r, which hold n_r of the n examples

so that the network moves as if one process had seen the whole batch. Only the first process writes.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from ebmrun.errors import RunError
from ebmrun.theory.algorithm import Algorithm, Estimate, Output, Prediction, Stepwise
from ebmrun.theory.equilibrium import Batch
from ebmrun.theory.network import Network
from ebmrun.training.launch import launched


@dataclass(frozen=True)
class Job:
    """The processes that train one network together, of which this one is number ``rank``."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def shows(self) -> bool:
        """Whether a progress bar of this process has the terminal for itself."""
        return self.leads and multiprocessing.current_process().name == "MainProcess"

    def share(self, algorithm: Algorithm) -> Algorithm:
        """The algorithm, shared out over the processes."""
        if self.size == 1:
            return algorithm
        return SharedSteps(algorithm, self, algorithm) if isinstance(algorithm, Stepwise) else Shared(algorithm, self)

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes hold; all must ask."""
        if self.size == 1:
            return number
        held = torch.tensor(number, device=_device())
        _reduce(held, dist.ReduceOp.MAX)
        return int(held)

    def largest_share(self, examples: int) -> int:
        """The most examples that a process gets of so many."""
        return -(-examples // self.size)

    def part(self, examples: int) -> slice:
        """The examples of this process: shares differ by one at most, and may be empty."""
        return slice(examples * self.rank // self.size, examples * (self.rank + 1) // self.size)


@contextmanager
def job(device: torch.device) -> Iterator[Job]:
    """Within the block, the job that `torchrun` made this process a part of; otherwise a job of one.

    The processes talk by nccl on CUDA, where each takes the device of its local rank, and by gloo elsewhere.
    """
    if not launched():
        yield Job()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Job(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Shared:
    """An algorithm whose estimate for a batch is put together from those for its shares.

    ``steps`` and ``residual`` are the largest of any share; ``converged`` says that all did; what no share measured
    stays None. Every process gets the same estimate. Raises RunError when another process has died.
    """

    algorithm: Algorithm
    job: Job

    @torch.no_grad()
    def predict(self, network: Network, x: Batch, **drawn: Tensor) -> Prediction:
        """The output for the whole batch, with what its examples draw."""
        part = self.job.part(len(x))
        empty = part.start == part.stop
        part = slice(1) if empty else part
        own = self.algorithm.predict(network, x[part], **{name: each[part] for name, each in drawn.items()})
        output = own.output.new_zeros(len(x), *own.output.shape[1:])
        reports = output.new_zeros(self.job.size, 2)
        if not empty:
            output[part] = own.output
            reports[self.job.rank] = report(reports, None if own.converged is None else not own.converged)
        output, reports = _summed(output, reports)
        failed = largest(reports)[0]
        return Prediction(output, None if failed is None else not failed)

    @torch.no_grad()
    def estimate(self, network: Network, x: Batch, y: Output, **drawn: Tensor) -> Estimate:
        """The gradients of the mean cost of the whole batch, with what its examples draw. One message holds all that
        the processes exchange: each adds its weighted gradients, and fills in its own place among the outputs and the
        reports."""
        part = self.job.part(len(x))
        own = None
        if part.start < part.stop:
            share = {name: each[part] for name, each in drawn.items()}
            own = self.algorithm.estimate(network, x[part], y[part], **share)
        return self._together(network, y, own)

    def _together(self, network: Network, y: Output, own: Estimate | None) -> Estimate:
        """One estimate from those of all processes; None from one whose share is empty."""
        part, n = self.job.part(len(y)), len(y)
        gradients, output = [torch.zeros_like(p) for p in network.parameters()], torch.zeros_like(y)
        reports = y.new_zeros(self.job.size, 6)
        if own is not None:
            gradients = [(part.stop - part.start) / n * gradient for gradient in own.gradients]
            output[part] = own.output
            reports[self.job.rank] = report(reports, own.steps, own.residual,
                                            None if own.converged is None else not own.converged)
        *gradients, output, reports = _summed(*gradients, output, reports)
        steps, residual, failed = largest(reports)
        return Estimate(gradients, output, None if steps is None else int(steps), residual,
                        None if failed is None else not failed)


@dataclass(frozen=True)
class SharedSteps(Shared):
    """The same for one that learns while it relaxes: the processes meet after every step."""

    stepwise: Stepwise

    @torch.no_grad()
    def estimates(self, network: Network, x: Batch, y: Output, **drawn: Tensor) -> Iterator[Estimate]:
        """The gradients of each step for the whole batch. A process without a share relaxes an example that counts
        for nothing."""
        part = self.job.part(len(x))
        empty = part.start == part.stop
        rows = slice(1) if empty else part
        share = {name: each[rows] for name, each in drawn.items()}
        for own in self.stepwise.estimates(network, x[rows], y[rows], **share):
            yield self._together(network, y, None if empty else own)


def report(like: Tensor, *measured: float | None) -> Tensor:
    """A share's numbers, and for each a flag that says whether it was measured."""
    return like.new_tensor([*(value or 0 for value in measured), *(value is not None for value in measured)])


def largest(reports: Float[Tensor, "processes numbers"]) -> list[float | None]:
    """The largest of each number over the shares; None where no share measured it. No number is negative."""
    values = reports.amax(0).tolist()
    half = len(values) // 2
    return [value if flag else None for value, flag in zip(values[:half], values[half:])]


def _summed(*pieces: Tensor) -> list[Tensor]:
    """The sums over the processes, in one message."""
    message = torch.cat([piece.reshape(-1) for piece in pieces])
    _reduce(message)
    sums = message.split([piece.numel() for piece in pieces])
    return [total.view_as(piece) for total, piece in zip(sums, pieces)]


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def _reduce(values: Tensor, operation: Any = dist.ReduceOp.SUM) -> None:
    try:
        dist.all_reduce(values, operation)
    except RuntimeError as error:
        raise RunError(f"process {dist.get_rank()} waited for one that has ended, whose own message says why; go on "
                       "from the last checkpoint with resume=PATH") from error
