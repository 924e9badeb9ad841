"""Inference in a network whose output is no state: the states are x_1..x_{L-1}, and

    F = sum_{l<L} E(x_l, a_l) + lambda cost(f(a_L), y)

With squared error on identity units, eliminating an output state from F_mu = I + mu cost gives the same F with
lambda = mu / (1 + mu); so lambda = 1 is clamping.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.data.sets import batches
from ebmrun.experiment import Parts
from ebmrun.theory.coordinates import Coordinates, summed
from ebmrun.theory.cost import Cost
from ebmrun.theory.equilibrium import Batch, FreeEquilibrium
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Layer, Network
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxation import Step, arrived, steps
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.solver import read, relax

Row = dict[str, float]


@dataclass(frozen=True)
class Mode:
    """A way to relax, in a precision."""

    dtype: torch.dtype
    relaxation: Relaxation


@dataclass(frozen=True)
class Scene:
    """An initialisation of a network and an example, drawn from one seed."""

    network: Network
    x: Batch
    y: Batch

    @classmethod
    def drawn(cls, parts: Parts, seed: int) -> Scene:
        train = parts.dataset.train
        index = batches(len(train), parts.config.trainer.batch_size, seed, 0)[0][:1]
        return cls(initialise(deepcopy(parts.network), seed), train.inputs[index], train.targets[index])

    def to(self, dtype: torch.dtype) -> Scene:
        return Scene(deepcopy(self.network).to(dtype), self.x.to(dtype), self.y.to(dtype))


class Readout(Cost):
    """The cost of what a last layer, without a state of its own, makes of the states below it."""

    def __init__(self, cost: Cost, network: Network) -> None:
        super().__init__(network.output)
        self.cost = cost
        ((_, self.affine),) = network.edges[-1]

    def value(self, x: Batch, y: Batch) -> Float[Tensor, " batch"]:
        return self.cost.value(self.output(self.affine(x)), y)

    def message(self, x: Batch, y: Batch) -> Batch:
        """dcost/da at the drive a = A(x)."""
        output = self.output(self.affine(x))
        return self.output.pullback(output, self.cost.gradient(output, y))

    def gradient(self, x: Batch, y: Batch) -> Batch:
        return self.affine.adjoint(self.message(x, y))

    def learning_rule(self, x: Batch, y: Batch) -> list[Tensor]:
        """dcost/dtheta of the last layer."""
        return self.affine.gradient(self.message(x, y), x)


@dataclass(frozen=True)
class Inference:
    """Inference on a scene: the hidden network, the readout above it, and the learning whose cost that readout is."""

    hidden: Network
    readout: Readout
    learning: EnergyLearning
    scene: Scene

    @classmethod
    def of(cls, learning: EnergyLearning, scene: Scene, mode: Mode, strength: float) -> Inference:
        scene = scene.to(mode.dtype)
        network = scene.network
        below = [Layer(edges, f) for edges, f in zip(network.edges[:-1], network.activations)]
        nudge = replace(learning.nudge, strength=strength)
        readout = Readout(learning.cost, network)
        own = replace(learning, relaxation=mode.relaxation, nudge=nudge, cost=readout)
        return cls(Network(below), readout, own, scene)

    @property
    def free(self) -> FreeEquilibrium:
        """Without a nudge."""
        return self.learning.free_equilibrium(self.hidden, self.scene.x)[0]

    @property
    def space(self) -> Coordinates:
        """The coordinates that inference moves in."""
        return self.learning.coordinates(self.hidden, self.free)

    @property
    def pull(self) -> Pull:
        """Of the readout."""
        return Pull.stacked(self.readout, self.scene.y, [each.real for each in self.learning.nudge.strengths])

    def gradients(self, at: Step) -> list[Tensor]:
        """Of all layers, by the learning rule."""
        space = self.space
        states = self.states(space, at)
        return self.learning.learning_rule(space, at) + self.readout.learning_rule(states[-1], self.scene.y)

    @staticmethod
    def states(space: Coordinates, at: Step) -> list[Batch]:
        """x_1..x_{L-1}, where the drives of the step are theirs."""
        return [space.state(u, drive) for u, drive in zip(at.before, at.drives)]

    def energies(self, states: Sequence[Batch]) -> Row:
        """The internal energy, the loss, and the total F."""
        energy, network, signals = self.learning.energy, self.hidden, [self.scene.x, *states]
        parts = [gain * energy.value(x, summed(edges, signals)[0], f).sum() for gain, edges, f, x in zip(
            energy.layer_gains(network.heights), network.edges, network.activations, states)]
        internal, loss = float(sum(parts)), float(self.readout.value(states[-1], self.scene.y).sum())
        return {"internal": internal, "loss": loss, "total": internal + self.learning.nudge.strength * loss}

    def trajectory(self, goal: Sequence[Tensor], length: int) -> Iterator[Row]:
        """Energies, and the distance of the gradient from the goal, before inference and after 1..length steps."""
        yield self.energies(self.free.states) | {"distance": distance([torch.zeros_like(g) for g in goal], goal)}
        how, space = self.learning.relaxation, self.space
        for step in islice(steps(space, self.pull, how.order, how.step_size), length):
            at = arrived(space, self.pull, step)
            yield self.energies(self.states(space, at)) | {"distance": distance(self.gradients(at), goal)}

    def equilibrium(self) -> tuple[list[Batch], list[Tensor], float]:
        """The states at which the nudged relaxation ends, the gradients of all layers there, and the residual."""
        how, space = self.learning.relaxation, self.space
        phase = relax(space, self.pull, how, how.max_steps)
        assert phase.residual is not None, "a relaxation to an equilibrium measures it"
        states = self.states(space, arrived(space, self.pull, phase.last))
        return states, self.gradients(read(space, self.pull, phase, how)), phase.residual

    def distances(self, goal: Sequence[Tensor]) -> Row:
        """Of the equilibrium from the free one, and of the gradient, divided by the nudge strength, from the goal; with
        the residual of the relaxation."""
        states, gradients, residual = self.equilibrium()
        moved = distance(states, self.free.states)
        return {"equilibrium": moved, "gradient": distance(gradients, goal), "residual": residual}


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """sum_l ||a_l - b_l||^2, in float64."""
    return sum(float((p.double() - q.double()).square().sum()) for p, q in zip(a, b))
