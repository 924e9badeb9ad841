"""The learning rule, once for the whole family: energy + nudge + relaxation -> gradients.

    g_l = sum_k w_k dI/dtheta_l at x*(lambda_k),      dI/dtheta_l = -gamma^-h_l (dA_l/dtheta_l)^T feedback(x_l, a_l)

averaged over the batch (Scellier & Bengio 2017; Millidge et al. 2023), with h_l the layers above layer l.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.theory.coordinates import Batch, Coordinates, Drive, Error, FreeEquilibrium, State, summed
from ebmrun.theory.cost import Cost
from ebmrun.theory.displacement import Displacement
from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Pull, Weights
from ebmrun.theory.relaxation import Step
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.solver import Relaxed, read, relax
from ebmrun.theory.stencil import Nudge

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
    """What a trainer asks for."""

    def estimate(self, network: Network, x: Batch, y: Output) -> Estimate:
        """Gradients of the mean cost of a batch of inputs x and targets y."""

    def predict(self, network: Network, x: Batch) -> Prediction:
        """The output of the network for inputs x."""


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
    def estimate(self, network: Network, x: Batch, y: Output) -> Estimate:
        """The gradients of one batch. Raises Diverged when the relaxation does."""
        free, phase = self.free_equilibrium(network, x)
        strengths = self.nudge.strengths
        space = self.coordinates(network, free.repeat(len(strengths)))
        pull = Pull.stacked(self.cost, y, strengths)
        how = phase.how if phase else self.relaxation  # what the free phase found goes for the nudged one, too
        nudged = relax(space, pull, how, how.max_steps)
        if nudged.drowned is not None:
            warn_of_lost_digits(network, nudged.drowned, x.dtype)
        phases = [nudged] if phase is None else [phase, nudged]
        residuals = [each.residual for each in phases if each.residual is not None]
        return Estimate(
            self.learning_rule(space, read(space, nudged, self.relaxation)),
            free.states[-1],
            sum(each.steps for each in phases),
            max(residuals, default=None),
            all(each.converged for each in phases) if residuals else None,
        )

    def free_equilibrium(self, network: Network, x: Batch) -> tuple[FreeEquilibrium, Relaxed | None]:
        """The equilibrium without a nudge, and how it was reached; None where it is the forward pass."""
        forward = forward_pass(network, x)
        return (forward, None) if self.energy.feedforward else self.settle(network, forward)

    def settle(self, network: Network, forward: FreeEquilibrium) -> tuple[FreeEquilibrium, Relaxed]:
        """The equilibrium without a nudge that the states of a forward pass relax to."""
        space, how = State(network, self.energy, forward), self.relaxation
        phase = relax(space, Pull(self.cost, forward.states[-1], 0.0), how, how.free_steps or how.max_steps)
        # The answers fit these drives and messages exactly, which displacements from them rely on.
        states, drives = phase.last.answers, phase.last.drives
        messages = [torch.zeros_like(x) if t is None else t for t, x in zip(phase.last.messages, states)]
        feedback = [space.feedback(l, state, drives[l]) for l, state in enumerate(states)]
        return FreeEquilibrium(forward.inputs, states, drives, messages, feedback), phase

    def coordinates(self, network: Network, free: FreeEquilibrium) -> Coordinates:
        """The coordinates that the nudged phase moves in."""
        if self.relaxation.coordinates == "state":
            return State(network, self.energy, free)
        return (Error if self.energy.feedforward else Displacement)(network, self.energy, free)

    def learning_rule(self, space: Coordinates, at: Step) -> list[Tensor]:
        """g_l from the signals and the feedback of all nodes, which are stacked along the batch axis."""
        gradients: list[Tensor] = []
        nodes, free = self.nudge.coefficients
        for l, gain in enumerate(self.energy.layer_gains(space.network.heights)):
            weights = Weights(nodes, free, -gain / len(space.free.inputs))
            for edge, affine in space.network.learned[l]:
                terms = space.terms(l, edge, at.feedback[l], at.signals, at.drives[l], weights)
                parts = [affine.gradient(*term) for term in terms]
                gradients += parts[0] if len(parts) == 1 else [sum(each[1:], each[0]) for each in zip(*parts)]
        return gradients


def forward_pass(network: Network, x: Batch) -> FreeEquilibrium:
    """x_l = f_l(a_l), layer by layer."""
    signals, drives, origin = [x], [], x.new_zeros(())
    for edges, f in zip(network.edges, network.activations):
        a, pieces = summed(edges, signals)
        drives.append(Drive(a, pieces, origin))
        signals.append(f(a))
    return FreeEquilibrium(x, signals[1:], drives, [], [])


def warn_of_lost_digits(network: Network, layer: int, dtype: torch.dtype) -> None:
    """Says where a displacement is too small for what holds it."""
    name = str(dtype).removeprefix("torch.")
    warnings.warn(f"the nudge moves {network.names[layer]} by less than the digits that {name} leaves, so that its "
                  "gradient is noise: use relax.coordinates=error, a larger nudge.strength, or precision=float64",
                  stacklevel=2)
