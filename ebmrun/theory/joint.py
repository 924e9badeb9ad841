"""Nodes that relax together, in one phase: dual propagation (Høier, Staudt & Zach 2023), for any stencil and for any
energy that rests at the forward pass.

Nodes by themselves are equilibria of F_k = I + lambda_k cost. Joint ones are a stationary point of the estimate itself,

    sum_k w_k F_k     with one drive for all nodes,  a_l = A_l(xbar),  xbar = sum_k w_k lambda_k x_k,

a mean, since the weights of a first derivative have sum_k w_k lambda_k = 1. By its derivative by x_k node k
hears

    t_k = lambda_k A^T mbar,     mbar = sum_k w_k m_k,

its strength times what is estimated for the layer above, and the learning rule is  -mbar xbar^T. Two nodes of opposite
strength have the mean state sent up and half the difference sent down, as published; one node by itself is unchanged.
States and messages move by orders of lambda that the stencil cancels: the mean is the forward pass to within
O(lambda^p), for each p that it has as its order, and hardly moves as the nodes relax.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ebmrun.theory.coordinates import Coordinates, Start, Term, summed
from ebmrun.theory.displacement import zeros_like
from ebmrun.theory.energies.energy import Energy
from ebmrun.theory.equilibrium import Batch, Drive, FreeEquilibrium, first, stacked
from ebmrun.theory.error import Error
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Weights
from ebmrun.theory.stencil import Nudge


class Joint(Error):
    """u_k = x_k - f(a), of nodes stacked along the batch axis; what goes up and down is one number an example. A
    stationary point of differences is no minimum."""

    balances = False
    independent = False

    def __init__(self, network: Network, energy: Energy, free: FreeEquilibrium, nudge: Nudge) -> None:
        super().__init__(network, energy, free)
        self.strengths = [each.real for each in nudge.strengths]
        weights = [each.real for each in nudge.coefficients[0]]
        self.weights = Weights(weights, 0.0, [])
        self.means = Weights([w * s for w, s in zip(weights, self.strengths)], 0.0, [])
        self.input, self.mixes, self.kinked = free.inputs, [False] * network.depth, False
        self.descends = False

    def start(self) -> Start:
        n = len(self.free.inputs)
        drives = [Drive(drive.a, tuple(first(piece, n) for piece in drive.pieces), x)
                  for drive, x in zip(self.free.drives, self.free.states)]
        return zeros_like(self.free.states), drives, [self.input, *(x[:n] for x in self.free.states[:-1])]

    def drive(self, l: int, signals: Sequence[Batch]) -> Drive:
        a, pieces = summed(self.edges[l], signals)
        nodes = len(self.strengths)
        return Drive(stacked(a, nodes), pieces, stacked(self.activations[l](a), nodes))

    def signal(self, u: Batch, drive: Drive) -> Batch:
        """xbar."""
        mean = self.means.shift(u)
        return drive.origin[: len(mean)] + mean

    def down(self, l: int, edge: int, message: Batch, drive: Drive) -> Batch:
        heard = super().down(l, edge, self.weights.shift(message), drive)
        return torch.cat([strength * heard for strength in self.strengths])

    def terms(
        self, l: int, edge: int, message: Batch, signals: Sequence[Batch], drive: Drive, weights: Weights
    ) -> list[Term]:
        return [Term(weights.sum(message), signals[self.edges[l][edge][0]], drive.pieces[edge])]


@dataclass(frozen=True)
class JointLearning(EnergyLearning):
    """A member of the family whose nodes relax together."""

    def coordinates(self, network: Network, free: FreeEquilibrium) -> Coordinates:
        return Joint(network, self.energy, free, self.nudge)
