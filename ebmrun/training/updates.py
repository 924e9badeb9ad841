"""What an estimate does to the weights: the rate of its step, the norm it may have, and one update a batch or many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ebmrun.theory.algorithm import Algorithm, Estimate, Stepwise
from ebmrun.theory.network import Network
from ebmrun.training.schedule import Schedule

Learn = Callable[[Tensor, Tensor, Mapping[str, Tensor], float], Estimate]  # of x, y, what these draw, and the epoch


@dataclass(frozen=True)
class Updates:
    """Moves the weights of a network by an optimizer, at rates that follow a schedule."""

    network: Network
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    clip_norm: float | None = None

    def of(self, algorithm: Algorithm, compiled: bool = False) -> Learn:
        """From a batch to the estimate that the weights have moved by."""
        if isinstance(algorithm, Stepwise):
            return self.each_step(algorithm)
        return self.at_equilibrium(algorithm, compiled)

    def at_equilibrium(self, algorithm: Algorithm, compiled: bool = False) -> Learn:
        """One update a batch, by what its relaxation has come to."""
        gradient = torch.compile(algorithm.estimate) if compiled else algorithm.estimate

        def learn(x: Tensor, y: Tensor, drawn: Mapping[str, Tensor], epoch: float) -> Estimate:
            estimate = gradient(self.network, x, y, **drawn)
            self.update(estimate, epoch)
            return estimate

        return learn

    def each_step(self, algorithm: Stepwise) -> Learn:
        """An update after every step of a batch's relaxation: the last estimate, with the mean gradient of them all."""
        def learn(x: Tensor, y: Tensor, drawn: Mapping[str, Tensor], epoch: float) -> Estimate:
            total: list[Tensor] = []
            for count, estimate in enumerate(algorithm.estimates(self.network, x, y, **drawn), 1):
                total = [a + b for a, b in zip(total or map(torch.zeros_like, estimate.gradients), estimate.gradients)]
                self.update(estimate, epoch)
            return replace(estimate, gradients=[each / count for each in total])

        return learn

    def update(self, estimate: Estimate, epoch: float) -> None:
        """Moves the weights, and with them those of the way down that take the same steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(group.setdefault("initial_lr", group["lr"]), epoch)
        limit = self.clip_norm
        gradients = estimate.gradients if limit is None else clipped(estimate.gradients, limit)
        for parameter, gradient in zip(self.network.weights, gradients):
            parameter.grad = gradient
        for l in range(self.network.depth):
            for weight, feedback in self.network.followers(l):
                assert weight.grad is not None
                feedback.grad = weight.grad.clone()  # an optimizer may write into it
        self.optimizer.step()

    def rates(self) -> dict[str, float]:
        """The learning rate, or one for each layer that has its own."""
        groups = self.optimizer.param_groups
        learned = [name for name, layer in zip(self.network.names, self.network.layers) if list(layer.parameters())]
        names = ["optim/lr"] if len(groups) == 1 else [f"optim/lr/{name}" for name in learned]
        return {name: group["lr"] for name, group in zip(names, groups)}


def clipped(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """The gradient of all parameters, shortened to a norm of ``limit`` where it is longer."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in gradients]))
    share = (limit / norm).clamp(max=1)
    return [share * each for each in gradients]
