"""A nudge is a stencil, a finite-difference formula in the nudge strength; a pull is what one strength does.

    g = sum_k w_k dI/dtheta at the equilibrium of  F_k = I + lambda_k cost

with lambda_k = strength * node_k and w_k = weight_k / strength; a node at infinity clamps the output to its target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.errors import ConfigError
from ebmrun.theory.cost import Cost

Output = Float[Tensor, "batch classes"]
Batch = Float[Tensor, "_ ..."]


@dataclass
class Nudge:
    """Nodes and weights in units of the strength. Raises ConfigError unless they form a first derivative.

    The strength has no effect where every node is 0 or infinite.
    """

    nodes: list[float] = field(default_factory=lambda: [1.0])
    weights: list[float] = field(default_factory=lambda: [1.0])
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not (self.strength > 0 and math.isfinite(self.strength)):
            raise ConfigError(f"nudge.strength={self.strength} must be a positive number: try 1e-4, or another stencil "
                              "(nudge=centered) to nudge both ways")
        if len(self.nodes) != len(self.weights) or not any(self.nodes):
            raise ConfigError(f"nudge.nodes={self.nodes} and nudge.weights={self.weights} must be as many, and one "
                              "node at least other than 0")
        if len(set(self.nodes)) != len(self.nodes) or any(math.isnan(n) or n == -math.inf for n in self.nodes):
            raise ConfigError(f"nudge.nodes={self.nodes} must differ from each other and be numbers or "
                              "infinity (.inf in a file, inf in a shell)")
        if not all(math.isfinite(w) and w != 0 for w in self.weights):
            raise ConfigError(f"nudge.weights={self.weights} must be finite and other than 0: leave out unused nodes")
        if self.clamps and any(math.isfinite(n) and n != 0 for n in self.nodes):
            raise ConfigError(f"nudge.nodes={self.nodes} mix clamping (.inf) with finite nudges: use "
                              "infinity (.inf in a file, inf in a shell) and 0 alone")
        if not math.isclose(self.moment(1), 1, abs_tol=1e-9):
            raise ConfigError(f"nudge.weights={self.weights} on nudge.nodes={self.nodes} estimate {self.moment(1):g} "
                              "times the derivative: scale the weights so that sum(weights * nodes) is 1")

    @property
    def clamps(self) -> bool:
        """Whether the output is clamped to the target."""
        return math.inf in self.nodes

    def moment(self, order: int) -> float:
        """sum_k weight_k node_k^order; clamping is a derivative by construction (its first moment is its weight)."""
        if self.clamps and order > 0:
            return self.weights[self.nodes.index(math.inf)]
        return math.fsum(w * n**order for w, n in zip(self.weights, self.nodes))

    @property
    def needs_no_free_gradient(self) -> bool:
        """Whether a gradient left at the free equilibrium would not cancel: the weights do not sum to 0."""
        return not math.isclose(self.moment(0), 0, abs_tol=1e-9)

    @property
    def order(self) -> int | None:
        """The power p in the error O(strength^p) of the estimate, from the moments; None where it clamps."""
        if self.clamps:
            return None
        size = max(map(abs, self.nodes))  # the moment of order m grows as its power m - 1
        return next(m - 1 for m in range(2, 32) if abs(self.moment(m)) > 1e-9 * size ** (m - 1))

    @property
    def strengths(self) -> list[float]:
        """lambda_k of the nodes other than 0, which are the ones to relax."""
        return [n * self.strength for n in self.nodes if n != 0]

    @property
    def coefficients(self) -> tuple[list[float], float]:
        """w_k of the nodes other than 0 in units of the strength, and that of the node at 0, the free equilibrium."""
        weights = [w / (1 if self.clamps else self.strength) for w in self.weights]
        pairs = list(zip(weights, self.nodes))
        return [w for w, node in pairs if node != 0], math.fsum(w for w, node in pairs if node == 0)


@dataclass(slots=True)
class Weights:
    """w_k of the nodes that are stacked along the batch axis and of the free one, and what the learning rule scales
    them by: sums over nodes on messages and signals that are stacked like these."""

    nodes: Sequence[float]
    free: float
    scale: float

    def rows(self, message: Batch) -> Batch:
        """scale w_k m_k, node by node."""
        return message * (self.scale * self.nodes[0]) if len(self.nodes) == 1 else torch.cat(self._parts(message))

    def sum(self, message: Batch) -> Batch:
        """scale sum_k w_k m_k."""
        if len(self.nodes) == 1:
            return message * (self.scale * self.nodes[0])
        return torch.stack(self._parts(message)).sum(0)

    def shift(self, displacement: Batch) -> Batch:
        """sum_k w_k dx_k."""
        first, *others = (w * part for w, part in zip(self.nodes, displacement.chunk(len(self.nodes))))
        return sum(others, first)

    def _parts(self, message: Batch) -> list[Batch]:
        return [part * (self.scale * w) for w, part in zip(self.nodes, message.chunk(len(self.nodes)))]


@dataclass(frozen=True)
class Pull:
    """How the target pulls on the output: not at all, by a message -lambda dcost/dx_L, or by a clamp (lambda infinite).

    ``strength`` is lambda: one number, or one a row (batch, 1) where nodes are stacked along the batch axis.
    """

    cost: Cost
    targets: Output
    strength: float | Float[Tensor, "batch 1"]

    @classmethod
    def stacked(cls, cost: Cost, targets: Output, strengths: Sequence[float]) -> Pull:
        """The pulls of several nodes on copies of one batch, node by node."""
        if len(strengths) == 1:
            return cls(cost, targets, strengths[0])
        rows = [targets.new_full((len(targets), 1), strength) for strength in strengths]  # made on the device
        return cls(cost, targets.repeat(len(strengths), 1), torch.cat(rows))

    @property
    def clamps(self) -> bool:
        """Whether the output is held at its target."""
        return isinstance(self.strength, float) and math.isinf(self.strength)

    @property
    def rests(self) -> bool:
        """Whether there is none: a free phase."""
        return isinstance(self.strength, float) and self.strength == 0

    @property
    def step(self) -> float | Float[Tensor, "batch 1"]:
        """The part of the way to its answer that an output has to go: the answer x = z - lambda c x contains the state
        itself where the cost has a constant curvature c, and 1 / (1 + lambda c) of the way solves that."""
        return 1 / (1 + self.strength * self.cost.curvature) if self.cost.curvature else 1.0

    def curvature(self, x: Output, dx: Output) -> Float[Tensor, "batch 1"]:
        """lambda <dx, C'' dx> with the Hessian of the cost at x."""
        bent = torch.func.jvp(lambda x: self.cost.gradient(x, self.targets), (x,), (dx,))[1]
        return (self.strength * bent * dx).sum(1, keepdim=True)

    def message(self, x: Output) -> Output:
        """t_L = -lambda dcost/dx at x."""
        return torch.zeros_like(x) if self.rests else self.cost.gradient(x, self.targets) * -self.strength
