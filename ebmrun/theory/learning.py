"""The learning rule, once for the whole family: energy + nudge + relaxation -> gradients.

    g_l = sum_k w_k dI/dtheta_l at x*(lambda_k),      dI/dtheta_l = -gamma^-h_l (dA_l/dtheta_l)^T feedback(x_l, a_l)

averaged over the batch (Scellier & Bengio 2017; Millidge et al. 2023); h_l is the longest way from l to the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ebmrun.theory.algorithm import Estimate, Output, Prediction
from ebmrun.theory.coordinates import Coordinates, State, forward_pass
from ebmrun.theory.cost import Cost
from ebmrun.theory.displacement import Displacement
from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.equilibrium import Batch, FreeEquilibrium
from ebmrun.theory.error import Error, RelativeError
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Pull, Weights
from ebmrun.theory.pulling import Signs, pull_of, signed
from ebmrun.theory.relaxation import Step, sent
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.solver import Relaxed, read, relax, warn_of_lost_digits
from ebmrun.theory.stencil import Nudge


@dataclass(frozen=True)
class EnergyLearning:
    """A member of the family."""

    energy: Energy
    nudge: Nudge
    relaxation: Relaxation
    cost: Cost

    @torch.no_grad()
    def predict(self, network: Network, x: Batch) -> Prediction:
        """The output state at the free equilibrium. Raises Diverged when the relaxation does."""
        free, phase = self.free_equilibrium(network, x)
        return Prediction(free.states[-1], phase.converged if phase else None)

    @torch.no_grad()
    def estimate(self, network: Network, x: Batch, y: Output, signs: Signs | None = None) -> Estimate:
        """The gradients of one batch, with signs of its examples for a nudge that draws them. Raises Diverged."""
        free, phase = self.free_equilibrium(network, x)
        space, pull = self.around(network, free, y, signs)
        how = phase.how if phase else self.relaxation  # what the free phase found goes for the nudged one, too
        nudged = relax(space, pull, how, how.max_steps, phase.unread if phase else 1)
        if nudged.drowned is not None:
            warn_of_lost_digits(network, nudged.drowned, x.dtype)
        went = nudged.after(phase) if phase else nudged
        gradients = self.learning_rule(space, read(space, pull, nudged, self.relaxation), signs)
        return Estimate(gradients, free.states[-1], went.steps, went.residual, went.converged)

    def free_equilibrium(self, network: Network, x: Batch) -> tuple[FreeEquilibrium, Relaxed | None]:
        """The equilibrium without a nudge, and how it was reached; None where it is the forward pass."""
        forward = forward_pass(network, x)
        return (forward, None) if self.energy.feedforward else self.settle(network, forward)

    def settle(self, network: Network, forward: FreeEquilibrium) -> tuple[FreeEquilibrium, Relaxed]:
        """The equilibrium without a nudge that the states of a forward pass relax to."""
        space, how = self.states(network, forward), self.relaxation
        phase = relax(space, Pull(self.cost, forward.states[-1], 0.0), how, how.free_steps or how.max_steps)
        # The answers fit these drives and messages exactly, which displacements from them rely on.
        states, drives = phase.last.answers, phase.last.drives
        messages = [torch.zeros_like(x) if t is None else t for t, x in zip(phase.last.messages, states)]
        feedback = [space.feedback(l, state, drives[l]) for l, state in enumerate(states)]
        return FreeEquilibrium(forward.inputs, states, drives, messages, feedback), phase

    def around(
        self, network: Network, free: FreeEquilibrium, y: Output, signs: Signs | None = None
    ) -> tuple[Coordinates, Pull]:
        """What moves around a free equilibrium, and what pulls on it, with all nodes along the batch axis."""
        space = self.coordinates(network, free.repeat(len(self.nudge.strengths)))
        return space, pull_of(self.nudge, self.cost, y, free.states[-1], signs)

    def states(self, network: Network, free: FreeEquilibrium) -> State:
        """The coordinates that a free phase moves in."""
        return State(network, self.energy, free)

    def coordinates(self, network: Network, free: FreeEquilibrium) -> Coordinates:
        """The coordinates that the nudged phase moves in."""
        if self.relaxation.coordinates == "state":
            return self.states(network, free)
        if not self.energy.feedforward:
            return Displacement(network, self.energy, free)
        return (RelativeError if True in network.pools else Error)(network, self.energy, free)

    def learning_rule(self, space: Coordinates, at: Step, signs: Signs | None = None) -> list[Tensor]:
        """g_l from the signals and the feedback of all nodes, which are stacked along the batch axis."""
        gradients: list[Tensor] = []
        (nodes, free), examples = self.nudge.coefficients, space.free.inputs.shape[0]
        weights = Weights(nodes, free, [-gain / examples for gain in self.energy.layer_gains(space.network.heights)])
        for l, message in enumerate(weights.of_layers(sent(space, at))):
            for edge, affine in space.network.learned[l]:
                terms = space.terms(l, edge, message, at.signals, at.drives[l], weights)
                parts = [affine.gradient(*term) for term in (terms if signs is None else signed(terms, signs))]
                gradients += [sum(more, part) for part, *more in zip(*parts)]
        return gradients
