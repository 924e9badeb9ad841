"""Updates during relaxation: incremental predictive coding (Salvatori et al. 2024), for any energy that rests at the
forward pass.

    x_0          the forward pass, with a clamped output at its target
    x_(k+1)      one step of the dynamics at the weights theta_k from x_k
    theta_(k+1)  one update by  g_k = sum_j w_j dI/dtheta  with the drives and the feedback of that step

Synchronous steps of size s of the predictive energy move both by gradients at one place, x by -s dF/dx and theta along
dF/dtheta. The first sweep of the predictive energy is backpropagation, and the later ones start from where it has led.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from ebmrun.theory.algorithm import Estimate, Output
from ebmrun.theory.coordinates import State, forward_pass, summed
from ebmrun.theory.equilibrium import Batch, Drive, FreeEquilibrium, stacked
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.pulling import Signs, pull_of
from ebmrun.theory.relaxation import steps
from ebmrun.theory.residual import residual
from ebmrun.theory.solver import diverged


class IncrementalLearning(EnergyLearning):
    """A member of the family that gives the gradients of every step, ``relaxation.max_steps`` of them, for the weights
    to move by before the next one. ``estimate`` relaxes to the end with weights that stay."""

    @torch.no_grad()
    def estimates(self, network: Network, x: Batch, y: Output, signs: Signs | None = None) -> Iterator[Estimate]:
        """The gradients of each step at the weights as they are when it is asked for; with the output of the forward
        pass before the first. The last one has the residual. Raises Diverged."""
        how, forward = self.relaxation, forward_pass(network, x)
        nodes = len(self.nudge.strengths)
        start, pull = forward.repeat(nodes), pull_of(self.nudge, self.cost, y, forward.states[-1], signs)
        begun, inputs = State(network, self.energy, start), stacked(x, nodes)
        states: Sequence[Batch] = [*start.states[:-1], pull.targets if pull.clamps else start.states[-1]]
        for count in range(1, how.max_steps + 1):
            signals = [inputs, *states]
            drives = [Drive(*summed(edges, signals)) for edges in network.edges]
            space = State(network, self.energy, FreeEquilibrium(x, list(states), drives, [], []))
            step = next(steps(space, pull, how.order, how.step_size))
            found = Estimate(self.learning_rule(space, step, signs), forward.states[-1], count)
            if count == how.max_steps:
                left = residual(begun, step, pull).residual
                if math.isnan(left):
                    raise diverged(step, pull, count, how.step_size)
                found = replace(found, residual=left, converged=left <= how.tol)
            yield found
            states = step.moved
