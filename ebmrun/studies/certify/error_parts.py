"""What the error of an estimate is made of, each part measured on one batch:

    g - r  =  (g_settled - r)  +  (g_64 - g_settled)  +  (g - g_64)
              nudge bias          unfinished             round-off
                                  relaxation

On a machine with noise, g is what it would be without, and the noise of a draw g_r is one part more, g_r - g; of that
and of all of it, the root of the mean square over draws.

g_settled is fully relaxed in float64, g_64 relaxed as asked in float64, and g as asked in the precision asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.errors import Diverged, RunError
from ebmrun.experiment import Parts, first_batch
from ebmrun.theory.algorithm import Algorithm, Estimate
from ebmrun.theory.analog import AnalogLearning, perfect
from ebmrun.theory.coordinates import forward_pass
from ebmrun.theory.feedback_alignment import backprop_of
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.probe import probe
from ebmrun.theory.references import Implicit

Gradient = Float[Tensor, "parameters"]
TOLERANCE = 1e-13
DRAWS = 16
STEPS = (30, 60, 120, 250, 500, 1000)  # one after the other, as long as they help


def settled(learning: EnergyLearning, steps: int) -> EnergyLearning:
    """The same member, relaxed as far as float64 or so many steps allow. A reading that asks for no equilibrium stays
    what it is."""
    how = replace(learning.relaxation, tol=TOLERANCE, max_steps=steps, free_steps=None, check_every=1)
    if not how.frozen:
        step = how.step_size if how.order == "sweep" else 1.0
        how = replace(how, order="sweep", coordinates="error", step_size=step)
    return replace(learning, relaxation=how)


@dataclass(frozen=True)
class Point:
    """Relative errors at one value h of what tends to 0; NaN where the relaxation diverged, or where nothing was
    measured.

    ``bias`` is the error of the fully relaxed estimate, ``to_backprop`` the same against backprop, ``residual`` what
    its relaxation left, NaN for a reading that has none; ``unfinished``, ``round_off`` and ``noise`` are the other
    parts, ``total`` the error of the estimate as asked.
    """

    value: float
    bias: float = math.nan
    to_backprop: float = math.nan
    residual: float = math.nan
    unfinished: float = math.nan
    round_off: float = math.nan
    noise: float = math.nan
    total: float = math.nan

    @property
    def settled(self) -> bool:
        """Whether what is left to relax is at most a twentieth of the bias, or nothing that counts."""
        return not (math.isnan(self.bias) or self.residual > max(self.bias / 20, 1e-9))

    @property
    def sum(self) -> float:
        """Of the parts; infinite where they cannot be told apart. In float64 there is no round-off to tell."""
        parts = (self.bias, self.unfinished, self.round_off, self.noise)
        known = self.settled and not math.isnan(self.total)
        return math.fsum(part for part in parts if not math.isnan(part)) if known else math.inf

    @property
    def measured(self) -> dict[str, float]:
        """What is a number, by name."""
        return {key: value for key, value in vars(self).items() if math.isfinite(value)}


@dataclass(frozen=True)
class Bench:
    """A network and the first batch of its training set, to measure members of the family on."""

    parts: Parts

    @cached_property
    def _as_asked(self) -> tuple:
        return self.parts.network, *first_batch(self.parts)

    @cached_property
    def _exact(self) -> tuple:
        network, x, y = self._as_asked
        return deepcopy(network).double(), x.double(), y.double()

    @property
    def double(self) -> bool:
        return self._as_asked[1].dtype == torch.float64

    @cached_property
    def backprop(self) -> Gradient:
        """In float64, by the network's own way down."""
        return self._gradient(backprop_of(self.parts.network, self.parts.cost), exact=True)[0]

    def implicit(self, learning: EnergyLearning) -> tuple[Gradient, Estimate]:
        """The gradient at the free equilibrium of a member, in float64, with how that was reached."""
        return self._gradient(Implicit(learning), exact=True)

    def _gradient(self, algorithm: Algorithm, exact: bool) -> tuple[Gradient, Estimate]:
        estimate = algorithm.estimate(*(self._exact if exact else self._as_asked))
        flat = torch.cat([gradient.reshape(-1).double() for gradient in estimate.gradients])
        if not flat.isfinite().all():
            raise RunError("the gradient is no finite number: use a smaller nudge.strength or relax.step_size")
        return flat, estimate

    def _settled(self, learning: EnergyLearning, limit: Gradient) -> tuple[Gradient, float, float]:
        """The fully relaxed gradient, its error against a limit and its residual. More steps are taken as long as that
        counts beside the error and they halve it: a unit that jumps over its kink and back leaves one that no step
        lessens."""
        left = math.inf
        for steps in (*STEPS[:-1], max(STEPS[-1], learning.relaxation.max_steps)):
            before = left
            gradient, estimate = self._gradient(settled(learning, steps), exact=True)
            bias = float((gradient - limit).norm() / limit.norm())
            left = math.nan if estimate.residual is None else estimate.residual
            if not max(TOLERANCE, bias / 1000) < left <= before / 2:
                break
        return gradient, bias, left

    def free_distance(self, learning: EnergyLearning) -> float:
        """||x - forward|| / ||forward|| over the states of all layers at the free equilibrium. An energy that is said
        to rest at the forward pass is not taken at its word: its states move one step from there. Raises Diverged."""
        network, x, _ = self._exact
        steps = 1 if learning.energy.feedforward else STEPS[-1]
        with torch.no_grad():
            forward = forward_pass(network, x)
            free = settled(learning, steps).settle(network, forward)[0]
        gap = sum(float((a - b).square().sum()) for a, b in zip(free.states, forward.states))
        return math.sqrt(gap / sum(float(b.square().sum()) for b in forward.states))

    def regime(self, learning: EnergyLearning) -> dict[str, float]:
        """That of a member as asked; empty where it diverges."""
        try:
            return probe(learning, *self._as_asked)
        except Diverged:
            return {}

    def point(self, learning: EnergyLearning, value: float, limit: Gradient, in_parts: bool) -> Point:
        """The errors of a member against its limit, relative to the size of that."""
        size, noisy, learning = float(limit.norm()), learning, perfect(learning)
        try:
            full, bias, residual = self._settled(learning, limit)
        except RunError:
            return Point(value)
        to_backprop = float((full - self.backprop).norm() / self.backprop.norm())
        found = Point(value, bias, to_backprop, residual)
        if not in_parts:
            return found
        try:
            exact, _ = self._gradient(learning, exact=True)
            asked, _ = self._gradient(learning, exact=False)
            drawn = self._drawn(noisy) if isinstance(noisy, AnalogLearning) else []
        except RunError:
            return found
        return replace(
            found,
            unfinished=float((exact - full).norm()) / size,
            round_off=math.nan if self.double else float((asked - exact).norm()) / size,
            noise=mean_square([each - asked for each in drawn]) / size,
            total=(mean_square([each - limit for each in drawn]) if drawn else float((asked - limit).norm())) / size,
        )

    def _drawn(self, learning: AnalogLearning) -> list[Gradient]:
        """Estimates as asked, each with noise of its own."""
        network, x, y = self._as_asked
        keys = torch.arange(DRAWS * len(x), device=x.device).view(DRAWS, len(x), 1)
        found = [learning.estimate(network, x, y, keys=each).gradients for each in keys]
        return [torch.cat([gradient.reshape(-1).double() for gradient in each]) for each in found]


def mean_square(errors: Sequence[Gradient]) -> float:
    """The root of the mean square of their sizes; NaN for none."""
    return math.sqrt(sum(float(each.square().sum()) for each in errors) / len(errors)) if errors else math.nan
