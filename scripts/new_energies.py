"""What was tried for results/new and did not win: energies, and a nudge that is as strong for each example."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ebmrun.theory.activations import Activation
from ebmrun.theory.algorithm import Estimate
from ebmrun.theory.energies import ByValue
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.relaxation import sent
from ebmrun.theory.solver import read, relax


class Natural(ByValue):
    """E = (x - f(a))^2 / (2 f'(a)): the predictive error in the metric of the lifted energy."""

    feedforward = True

    def value(self, x: Tensor, a: Tensor, f: Activation) -> Tensor:
        y = f(a)
        return (x - y).square() / (2 * f.pullback(y, torch.ones_like(y)))


class Mixed(ByValue):
    """Half predictive, half lifted."""

    feedforward = True

    def value(self, x: Tensor, a: Tensor, f: Activation) -> Tensor:
        return ((x - f(a)).square() / 2 + f.primal(x) + f.dual(a) - x * a) / 2


@dataclass(frozen=True)
class Normalised(EnergyLearning):
    """Each example i is nudged by lambda / ||dcost_i/dx||, and counts by its inverse."""

    @torch.no_grad()
    def estimate(self, network: Network, x: Tensor, y: Tensor, signs: Tensor | None = None) -> Estimate:
        free, _ = self.free_equilibrium(network, x)
        space, pull = self.around(network, free, y)
        sizes = self.cost.gradient(free.states[-1], y).norm(dim=1, keepdim=True)
        pull = replace(pull, strength=pull.strength / sizes)
        found = relax(space, pull, self.relaxation, self.relaxation.max_steps)
        at = read(space, pull, found, self.relaxation)
        heard = [m * sizes.view(-1, *[1] * (m.ndim - 1)) for m in sent(space, at)]
        gradients = self.learning_rule(space, at._replace(feedback=dict(enumerate(heard))))
        return Estimate(gradients, free.states[-1], found.steps, found.residual, found.converged)
