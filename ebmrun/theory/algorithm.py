"""The learning rule, once for the whole family: energy + nudge + relaxation -> gradients.

    g_l = sum_k w_k dI/dtheta_l at x*(lambda_k),      dI/dtheta_l = -gamma^(l-L) (dA_l/dtheta_l)^T feedback(x_l, a_l)

averaged over the batch (Scellier & Bengio 2017; Millidge et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.theory.coordinates import Batch, Coordinates, Displacement, Error, Free, State
from ebmrun.theory.cost import Cost
from ebmrun.theory.energies import Energy
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Nudge
from ebmrun.theory.pull import Pull
from ebmrun.theory.relaxation import Relaxation, Relaxed, read, relax

Output = Float[Tensor, "batch classes"]


@dataclass(frozen=True)
class Estimate:
    """Gradients in the order of ``network.parameters()``, as means over the batch; the output of the free phase; and
    how relaxation went: steps of both phases, the larger residual, whether both met their tolerance."""

    gradients: list[Tensor]
    output: Output
    steps: int = 0
    residual: float = 0.0
    converged: bool = True


@runtime_checkable
class Algorithm(Protocol):
    """What a trainer asks for."""

    def estimate(self, network: Network, x: Batch, y: Output) -> Estimate:
        """Gradients of the mean cost of a batch of inputs x and targets y."""

    def predict(self, network: Network, x: Batch) -> Output:
        """The output of the network for inputs x."""


@dataclass(frozen=True)
class EnergyLearning:
    """A member of the family. ``feedforward`` says that the free equilibrium of the energy is the forward pass, with no
    gradient left there (measured by ``energies.contract``)."""

    energy: Energy
    nudge: Nudge
    relaxation: Relaxation
    cost: Cost
    feedforward: bool

    @torch.no_grad()
    def predict(self, network: Network, x: Batch) -> Output:
        """The output state at the free equilibrium."""
        return self.free_equilibrium(network, x)[0].states[-1]

    @torch.no_grad()
    def estimate(self, network: Network, x: Batch, y: Output) -> Estimate:
        """The gradients of one batch. Raises Diverged when the relaxation does."""
        free, phase = self.free_equilibrium(network, x)
        strengths = self.nudge.strengths
        space = self.coordinates(network, free.repeat(len(strengths)))
        pull = Pull.stacked(self.cost, y, strengths)
        nudged = relax(space, pull, self.relaxation, self.relaxation.max_steps)
        return Estimate(
            self.learning_rule(space, *read(space, nudged, self.relaxation)),
            free.states[-1],
            nudged.steps + (phase.steps if phase else 0),
            max(nudged.residual, phase.residual if phase else 0.0),
            nudged.converged and (phase is None or phase.converged),
        )

    def free_equilibrium(self, network: Network, x: Batch) -> tuple[Free, Relaxed | None]:
        """The equilibrium without a nudge, and how it was reached; None where it is the forward pass."""
        signal, states, drives = x, [], []
        for affine, f in zip(network.maps, network.units):
            drives.append(affine(signal))
            signal = f(drives[-1])
            states.append(signal)
        forward = Free(x, states, drives)
        if self.feedforward:
            return forward, None
        how = replace(self.relaxation, reading="equilibrium")
        space = State(network, self.energy, forward)
        last = relax(space, Pull(self.cost, states[-1], 0.0), how, how.free_steps or how.max_steps)
        # The aims answer these drives and messages exactly, which displacements from them rely on.
        sent = [space.feedback(l, aim, last.drives[l]) for l, aim in enumerate(last.aims)]
        return Free(x, last.aims, last.drives, cast("list[Batch]", last.received), sent), last

    def coordinates(self, network: Network, free: Free) -> Coordinates:
        """The coordinates that the nudged phase moves in."""
        if self.relaxation.coordinates == "state":
            return State(network, self.energy, free)
        return (Error if self.feedforward else Displacement)(network, self.energy, free)

    def learning_rule(self, space: Coordinates, signals: list[Batch], messages: list[Batch]) -> list[Tensor]:
        """g_l from the signals and messages of all nodes, which are stacked along the batch axis."""
        weights, free, batch = self.nudge.coefficients, self.nudge.free_coefficient, len(space.free.inputs)
        gradients: list[Tensor] = []
        for l, gain in enumerate(self.energy.layer_gains(len(messages))):
            affine, scale = space.maps[l], -gain / batch
            if len(weights) == 1:
                message = messages[l] * (scale * weights[0])
            else:
                nodes = [part * (scale * w) for w, part in zip(weights, messages[l].chunk(len(weights)))]
                # The inputs are the same at every node: one product serves the first layer.
                message = torch.cat(nodes) if l else torch.stack(nodes).sum(0)
            layer = affine.gradient(message, space.presynaptic(l, signals[l]))
            term = space.free_term(l, signals[l], weights, free)
            if term is not None:
                message, signal, constant = term
                extra = affine.gradient(scale * message, signal, constant)
                layer = [g + e for g, e in zip(layer, extra)]
            gradients += layer
        return gradients
