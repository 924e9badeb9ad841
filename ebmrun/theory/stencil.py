"""A nudge is a stencil, a finite-difference formula in the nudge strength.

    g = sum_k w_k dI/dtheta at the equilibrium of  F_k = I + lambda_k cost

with lambda_k = strength * node_k and w_k = weight_k / strength; a node at infinity clamps the output to its target.
A nudge that ``holds`` clamps it on the way there instead, at (1 - lambda_k) free + lambda_k target (Stern et al. 2021).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ebmrun.errors import ConfigError


@dataclass
class Nudge:
    """Nodes and weights in units of the strength, and whether the output is held there rather than pulled. Raises
    ConfigError unless they form a first derivative.

    With ``random_sign`` each example draws a sign s at each step of a training and takes the nodes s * node_k with the
    weights s * weight_k, a derivative as well; in the mean over both signs every even moment is 0.

    ``points`` N turns the formula by the N-th roots of unity r: nodes r * node_k, weights conj(r) / N * weight_k, which
    leaves of its moments those of order 1, N + 1, 2 N + 1... (Laborieux & Zenke 2022). Of two conjugate nodes, whose
    equilibria are conjugate as well, one is relaxed, and counts twice.

    Nodes that are ``joint`` relax together, in one phase, around the mean of their states (Høier et al. 2023).

    The strength has no effect where every node is 0 or infinite.
    """

    nodes: list[float] = field(default_factory=lambda: [1.0])
    weights: list[float] = field(default_factory=lambda: [1.0])
    strength: float = 1.0
    holds: bool = False
    random_sign: bool = False
    points: int = 1
    joint: bool = False

    def __post_init__(self) -> None:
        if not (self.strength > 0 and math.isfinite(self.strength)):
            raise ConfigError(f"nudge.strength={self.strength} must be a positive number: try 1e-4, and nudge=negative "
                              "or nudge=centered to nudge the other way")
        if not 1 <= self.points <= 24:
            raise ConfigError(f"nudge.points={self.points} must lie in 1..24: 4 leaves an error of the fourth order")
        if len(self.nodes) != len(self.weights) or not any(self.nodes):
            raise ConfigError(f"nudge.nodes={self.nodes} and nudge.weights={self.weights} must be as many, and one "
                              "node at least other than 0")
        if len(set(self.nodes)) != len(self.nodes) or any(math.isnan(n) or n == -math.inf for n in self.nodes):
            raise ConfigError(f"nudge.nodes={self.nodes} must differ from each other and be numbers or "
                              "infinity (.inf in a file, inf in a shell)")
        if not all(math.isfinite(w) and w != 0 for w in self.weights):
            raise ConfigError(f"nudge.weights={self.weights} must be finite and other than 0: leave out unused nodes")
        if self.infinite and self.holds:
            raise ConfigError(f"nudge.holds={self.holds} holds the output on its way to the target, where nudge.nodes="
                              f"{self.nodes} have no place: set nudge.holds=false, or use finite nodes")
        if self.infinite and any(math.isfinite(n) and n != 0 for n in self.nodes):
            raise ConfigError(f"nudge.nodes={self.nodes} mix clamping (.inf) with finite nudges: use "
                              "infinity (.inf in a file, inf in a shell) and 0 alone")
        if not math.isclose(self.moment(1), 1, abs_tol=1e-9):
            raise ConfigError(f"nudge.weights={self.weights} on nudge.nodes={self.nodes} estimate {self.moment(1):g} "
                              "times the derivative: scale the weights so that sum(weights * nodes) is 1")
        mirrored = {(-node, -weight) for node, weight in zip(self.nodes, self.weights)}
        if self.random_sign and (self.infinite or mirrored == set(zip(self.nodes, self.weights))):
            raise ConfigError(f"nudge.random_sign={self.random_sign} has no use on nudge.nodes={self.nodes}, "
                              "which have no other side: leave it out, or take nudge=one_sided, negative or coupled")
        if self.points > 1 and (self.infinite or self.random_sign):
            raise ConfigError(f"nudge.points={self.points} turns finite nodes to every side, and nudge.nodes="
                              f"{self.nodes} with nudge.random_sign={self.random_sign} are infinite or take one side: "
                              "set nudge.points=1")
        if self.joint and (self.clamps or self.random_sign or self.points > 1):
            raise ConfigError(f"nudge.joint={self.joint} takes finite real nodes that pull, and nudge.nodes="
                              f"{self.nodes} with nudge.holds={self.holds}, nudge.random_sign={self.random_sign} and "
                              f"nudge.points={self.points} are others: set nudge.joint=false, or use nudge=centered")

    @property
    def infinite(self) -> bool:
        """Whether the output is clamped to the target itself."""
        return math.inf in self.nodes

    @property
    def clamps(self) -> bool:
        """Whether the output is held, at the target or on the way there."""
        return self.holds or self.infinite

    def moment(self, order: int) -> float:
        """sum_k weight_k node_k^order; clamping is a derivative by construction (its first moment is its weight)."""
        if order % self.points != 1 % self.points:
            return 0.0
        if self.infinite and order > 0:
            return self.weights[self.nodes.index(math.inf)]
        return math.fsum(w * n**order for w, n in zip(self.weights, self.nodes))

    @property
    def needs_no_free_gradient(self) -> bool:
        """Whether a gradient left at the free equilibrium would not cancel: the weights do not sum to 0."""
        return not math.isclose(self.moment(0), 0, abs_tol=1e-9)

    @property
    def order(self) -> int | None:
        """The power p in the error O(strength^p) of the estimate against its limit, from the moments; None at infinite
        nodes."""
        if self.infinite:
            return None
        size = max(map(abs, self.nodes))  # the moment of order m grows as its power m - 1
        return next(m - 1 for m in range(2, 64) if abs(self.moment(m)) > 1e-9 * size ** (m - 1))

    @property
    def lowest(self) -> float:
        """The lowest strength of any example; of complex ones, minus the largest size."""
        bothways = self.random_sign or self.points > 1
        return min(-abs(each) if bothways else each.real for each in self.strengths)

    @cached_property
    def turns(self) -> list[tuple[complex, float]]:
        """The roots of unity that do not lie below the real line, and how often each counts; 1 alone without points."""
        if self.points == 1:
            return [(1.0, 1.0)]
        exact = {0.0: 1 + 0j, 0.25: 1j, 0.5: -1 + 0j}
        shares = [k / self.points for k in range(self.points // 2 + 1)]
        return [(exact.get(share, cmath.rect(1, 2 * math.pi * share)), 1 + (0 < share < 0.5)) for share in shares]

    @cached_property
    def strengths(self) -> Sequence[complex]:
        """lambda_k of the nodes other than 0, which are the ones to relax."""
        return [turn * n * self.strength for turn, _ in self.turns for n in self.nodes if n != 0]

    @cached_property
    def coefficients(self) -> tuple[Sequence[complex], float]:
        """w_k of the nodes other than 0 in units of the strength, and that of the node at 0, the free equilibrium."""
        weights = [w / (1 if self.infinite else self.strength) for w in self.weights]
        pairs = list(zip(weights, self.nodes))
        free = math.fsum(w for w, node in pairs if node == 0) if self.points == 1 else 0.0
        return [w * turn.conjugate() * count / self.points for turn, count in self.turns
                for w, node in pairs if node != 0], free
