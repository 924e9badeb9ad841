"""A member of the family on an imperfect machine.

    u_l  <-  what answers drive and message, + states xi          at each step of a relaxation
    t_l  <-  A^T m, + messages xi                                  likewise
    g    =   sum_k w_k read(m_k) read(x_k)^T,   read(v) = the level next to v + readings xi

with xi of mean 0 and variance 1. The nodes k are read one after another, so that their errors do not cancel in the
difference: readings of a deviation sigma leave sigma sqrt(sum_k w_k^2), about sigma / lambda, in the estimate.

The estimate without errors is taken first, in coordinates that lose no digits, and what the errors dv = read(v) - v add
to it after that. The input is known and not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ebmrun.theory.algorithm import Estimate, Output, Prediction
from ebmrun.theory.coordinates import Coordinates, State, Term, forward_pass
from ebmrun.theory.draws import Draws, Keys, mixed
from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.equilibrium import Batch, Drive, FreeEquilibrium, first
from ebmrun.theory.grid import Grid
from ebmrun.theory.holomorphic import HolomorphicLearning
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.noise import Noise
from ebmrun.theory.nudge import Weights
from ebmrun.theory.pulling import Signs, signed
from ebmrun.theory.relaxation import Step, sent


@dataclass(frozen=True)
class Machine:
    """The noise of one estimate: what it is, and its draws."""

    noise: Noise
    draws: Draws

    def noisy(self, v: Batch, deviation: float) -> Batch:
        """v + deviation xi."""
        return v + deviation * self.draws.normal(v) if deviation else v

    def misread(self, v: Batch) -> Batch:
        """read(v) - v."""
        return Grid(self.noise.reading_range, self.noise.reading_bits).nearest(self.noisy(v, self.noise.readings)) - v


class NoisyState(State):
    """States of a machine: a displacement is told from them by their digits, as a machine would."""

    independent = False

    def __init__(self, network: Network, energy: Energy, free: FreeEquilibrium, machine: Machine) -> None:
        super().__init__(network, energy, free)
        self.machine, self.descends = machine, False

    def respond(self, l: int, drive: Drive, t: Batch) -> Batch:
        return self.machine.noisy(super().respond(l, drive, t), self.machine.noise.states)

    def down(self, l: int, edge: int, message: Batch, drive: Drive) -> Batch:
        return self.machine.noisy(super().down(l, edge, message, drive), self.machine.noise.messages)


@dataclass(frozen=True)
class AnalogLearning(EnergyLearning):
    """A member on a machine. Each example's noise is a function of its key and ``seed``; without keys, of its place in
    the batch. A relaxation that noise enters has a floor to its residual, and says as any does whether it met its
    tolerance. Noise is drawn by ``predict`` and ``estimate``; whatever else asks, as references do, meets none."""

    noise: Noise = field(default_factory=Noise)
    seed: int = 0
    machine: Machine | None = None

    def drawing(self, x: Batch, keys: Keys | None) -> AnalogLearning:
        """The same with the draws of one batch."""
        keys = torch.arange(len(x), device=x.device)[:, None] if keys is None else keys
        return replace(self, machine=Machine(self.noise, Draws(mixed(keys) + self.seed)))

    @torch.no_grad()
    def predict(self, network: Network, x: Batch, keys: Keys | None = None) -> Prediction:
        """The output state of the free phase: of one pass up, where that is all it takes."""
        drawn = self.drawing(x, keys)
        if self.noise.moves and self.energy.feedforward:
            return Prediction(drawn.passed_up(network, x))
        return super(AnalogLearning, drawn).predict(network, x)

    @torch.no_grad()
    def estimate(
        self, network: Network, x: Batch, y: Output, signs: Signs | None = None, keys: Keys | None = None
    ) -> Estimate:
        """The gradients of one batch, with the keys of its examples. Raises Diverged."""
        drawn = self.drawing(x, keys)
        found = super(AnalogLearning, drawn).estimate(network, x, y, signs)
        if self.noise.moves and self.energy.feedforward:
            return replace(found, output=drawn.passed_up(network, x))
        return found

    def passed_up(self, network: Network, x: Batch) -> Output:
        """The output of a forward pass each state of which carries noise; no message is sent."""
        space, signals = self.states(network, forward_pass(network, x)), [x]
        for l in range(network.depth):
            drive = space.drive(l, signals)
            signals.append(space.respond(l, drive, torch.zeros_like(drive.a)))
        return signals[-1]

    def states(self, network: Network, free: FreeEquilibrium) -> State:
        if self.machine is None or not self.noise.moves:
            return super().states(network, free)
        return NoisyState(network, self.energy, free, self.machine)

    def learning_rule(self, space: Coordinates, at: Step, signs: Signs | None = None) -> list[Tensor]:
        """With x' = read(x) and m' = read(m), what reading adds is sum_k w_k (dm_k x'_k + m_k dx_k)."""
        gradients = super().learning_rule(space, at, signs)
        if self.machine is None or not self.noise.reads:
            return gradients
        (nodes, free), n = self.nudge.coefficients, space.free.inputs.shape[0]
        weights = Weights(nodes, free, [-gain / n for gain in self.energy.layer_gains(space.network.heights)])
        added: list[Tensor] = []
        for l, (learned, message) in enumerate(zip(space.network.learned, sent(space, at))):
            for edge, affine in learned:
                terms = misreadings(space, at, l, edge, message, weights, self.machine)
                parts = [affine.gradient(*term) for term in (terms if signs is None else signed(terms, signs))]
                added += [sum(more, part) for part, *more in zip(*parts)]
        return [gradient + more for gradient, more in zip(gradients, added)]


class AnalogHolomorphicLearning(HolomorphicLearning, AnalogLearning):
    """The same for complex nodes. Of two conjugate ones, which count twice, one is relaxed and read."""


def misreadings(
    space: Coordinates, at: Step, l: int, edge: int, message: Batch, weights: Weights, machine: Machine
) -> list[Term]:
    """What misreading the states and messages of all nodes adds to the learning rule of one map."""
    source, free, n = space.edges[l][edge][0], space.free, space.free.inputs.shape[0]
    piece = at.drives[l].pieces[edge]
    if space.relative and free.feedback:
        message = message + free.feedback[l]
    wrong = weights.of(l, machine.misread(message))
    if not source:
        terms = [Term(weights.sum(wrong), free.inputs, first(piece, n))]
    else:
        below = at.signals[source]
        below = below + free.states[source - 1] if space.relative else below
        misread = machine.misread(below)
        terms = [Term(wrong, below + misread, piece), Term(weights.of(l, message), misread, piece, False)]
    if not weights.free:
        return terms
    message = free.feedback[l][:n] if free.feedback else torch.zeros_like(free.states[l][:n])
    piece, scale = first(free.drives[l].pieces[edge], n), weights.scales[l] * weights.free
    wrong = scale * machine.misread(message)
    if not source:
        return [*terms, Term(wrong, free.inputs, piece)]
    below = free.states[source - 1][:n]
    misread = machine.misread(below)
    return [*terms, Term(wrong, below + misread, piece), Term(scale * message, misread, piece, False)]


def perfect(learning: EnergyLearning) -> EnergyLearning:
    """A member without the noise of its machine."""
    return replace(learning, noise=Noise()) if isinstance(learning, AnalogLearning) else learning
