"""Who drives the dynamics: how far a step goes, where the next begins, and when an equilibrium is reached."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import NamedTuple

import torch

from ebmrun.errors import Diverged
from ebmrun.theory.anderson import Anderson
from ebmrun.theory.conjugate import conjugate_steps, conjugate_steps_from
from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.narrowing import Narrowing
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Pull
from ebmrun.theory.over_relaxation import FIRST_STEP_SIZE, OverRelaxation
from ebmrun.theory.relaxation import UNBALANCED, Proposal, Step, arrived, held_pass, steps
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.residual import UNMEASURED, residual

# What a plain sweep may leave of the residual, and two of all, or else conjugate gradients take over.
ENOUGH, FIRST = 0.3, 0.01
FIRST_SWEEPS = 2  # where there are kinks: from which conjugate gradients begin
PATIENCE, PROGRESS, NEAR = 5, 0.2, 0.02  # where there are kinks: every so many sweeps, what these may leave, or less


Dynamics = Generator[Step, Proposal | None]
Onward = Callable[[Coordinates, Pull, Step], Dynamics] | None  # from a step


class Relaxed(NamedTuple):
    """The last step of a relaxation, and how many there were; the residual, and whether it met the tolerance (None
    where it was not measured). ``drowned`` is a layer whose displacement is lost in the digits of its numbers; ``how``,
    the way of the last step, and ``unread``, first steps that cannot meet the tolerance, are for another relaxation of
    the same network to go on by."""

    last: Step
    steps: int
    how: Relaxation
    residual: float | None = None
    converged: bool | None = None
    drowned: int | None = None
    unread: int = 1

    def after(self, phase: Relaxed) -> Relaxed:
        """Both together: all steps, the larger residual, and whether both met the tolerance."""
        residuals = [each.residual for each in (phase, self) if each.residual is not None]
        converged = phase.converged and self.converged if residuals else None
        return self._replace(steps=phase.steps + self.steps, residual=max(residuals, default=None), converged=converged)


def relax(space: Coordinates, pull: Pull, how: Relaxation, max_steps: int, unread: int = 1) -> Relaxed:
    """Relaxes from the free equilibrium that the coordinates start at. The first ``unread`` steps are not measured:
    after one the displacement is that step itself, so that its residual says nothing, and no ratio of changes is yet
    that of the slowest. Raises Diverged."""
    if how.frozen:
        return Relaxed(held_pass(space, pull), 1, how)
    acceleration, step_size = decided(how, space, pull)
    unbalanced = 1 if True in space.mixes else 2 if acceleration == "conjugate" else UNBALANCED
    dynamics = steps(space, pull, how.order, step_size, unbalanced)

    def swept(space: Coordinates, pull: Pull, step: Step) -> Dynamics:
        return steps(space, pull, how.order, step_size, unbalanced - count, step)

    # How those go on that others leave behind; None for a way that begins at the free equilibrium alone.
    onward: Onward = swept if how.order == "sweep" and acceleration != "anderson" else None
    descending: Onward = None if space.energy.feedforward else conjugate_steps_from
    anderson = Anderson() if acceleration == "anderson" else None
    over = OverRelaxation(step_size) if acceleration == "adaptive" else None
    sweeps: list[Step] | None = [] if acceleration == "conjugate" else None  # plain ones, for as long as they do
    proposal: Proposal | None = None
    left, last, best, narrowing = UNMEASURED, FIRST / ENOUGH, math.inf, Narrowing(space, pull)
    for count in range(1, max_steps + 1):
        step = dynamics.send(proposal) if proposal else next(dynamics)
        proposal = None
        if count == max_steps or (count > unread and (over or (how.tol and count % how.check_every == 0))):
            left = residual(space, step, pull, narrowing.norms)
            if math.isnan(left.residual):
                raise diverged(step, pull, count, step_size)
            if count == max_steps or (left.residual <= how.tol and count > 1):
                lost = left.drowned if left.residual >= (how.tol or 1) else None
                found = how if over is None else replace(how, acceleration="adaptive", step_size=step_size)
                ahead = over.unread(how.tol) if over else 1
                step = narrowing.whole(step)
                return Relaxed(step, count, found, left.residual, left.residual <= how.tol, lost, ahead)
            if over:
                over.follow(step_size * math.hypot(*left.gaps))
                step_size = over.step_size
                proposal = step.moved, step_size
                if over.slow:
                    how, over, step_size = replace(how, acceleration="conjugate", step_size=1.0), None, 1.0
                    if not descending:
                        space, pull, step = narrowing.rejoined(step)
                    dynamics, proposal, onward = conjugate_steps_from(space, pull, step), None, descending
            may_part = count > FIRST_SWEEPS and (space.kinked or sweeps is None)
            parted = narrowing.parted(space, pull, step, left, how.tol) if onward and may_part else None
            if parted and onward:
                space, pull, step = parted
                dynamics, proposal = onward(space, pull, step), None
                if over:
                    over.change = 0.0  # the next is that of others
        if anderson:
            proposal = anderson.propose(step.before, step.moved), step_size
        if sweeps is not None:
            if count <= FIRST_SWEEPS or not space.kinked:
                sweeps.append(step)
            if space.kinked:  # sweeps settle units on kinks and winners that tie better, if at all
                if count % PATIENCE == 0:
                    if not left.residual <= max(PROGRESS * best, NEAR):
                        space, pull, step = narrowing.rejoined(step)
                        dynamics = conjugate_steps(space, pull, sweeps[: FIRST_SWEEPS - pull.clamps])
                        sweeps, onward = None, descending
                    best = left.residual
            elif pull.clamps or (count > 1 and not left.residual <= ENOUGH * last):
                dynamics, sweeps, onward = conjugate_steps(space, pull, sweeps), None, descending
            last = left.residual if count > 1 else last
    raise AssertionError("unreachable: the last step returns")


def decided(how: Relaxation, space: Coordinates, pull: Pull) -> tuple[str, float]:
    """The acceleration and the first step size, with what ``acceleration=auto`` stands for. Where there is no minimum
    to descend to, and where a clamped output alone moves, steps are plain."""
    if not (space.descends or how.acceleration == "anderson") or space.network.depth == pull.clamps:
        return "none", how.step_size
    if how.acceleration != "auto":
        return how.acceleration, how.step_size
    if how.order != "sweep" or how.step_size != 1:
        return "none", how.step_size
    return ("conjugate", 1.0) if space.energy.feedforward else ("adaptive", FIRST_STEP_SIZE)


def read(space: Coordinates, pull: Pull, phase: Relaxed, how: Relaxation) -> Step:
    """The step whose signals and messages the learning rule multiplies.

    A held pass and a converged sweep have them at hand, the latter within its tolerance. Otherwise they are taken at
    the states that were reached, so that they are the derivatives of the energy there, not one step before.
    """
    at_hand = how.frozen or (how.order == "sweep" and phase.converged)
    return phase.last if at_hand else arrived(space, pull, phase.last)


def diverged(step: Step, pull: Pull, count: int, step_size: float) -> Diverged:
    """The error that names the layer nearest to the output whose residual is no number, and what may settle it."""
    wide = torch.promote_types(step.answers[0].dtype, torch.float64)
    sizes = [torch.linalg.vector_norm(answer, dtype=wide) for answer in step.answers]
    layer = next((l for l in reversed(range(len(sizes))) if not sizes[l].isfinite()), 0)
    smaller = "optim.lr" if pull.rests or pull.clamps else "optim.lr or nudge.strength"
    return Diverged(f"the {'free phase' if pull.rests else 'relaxation'} diverged at layer {layer + 1} within {count} "
                    f"steps of size {step_size:.3g}: use a smaller {smaller}, or relax=sweep "
                    f"relax.step_size={step_size / 2:.2g}")


def warn_of_lost_digits(network: Network, layer: int, dtype: torch.dtype) -> None:
    """Says where a displacement is too small for what holds it."""
    name = str(dtype).removeprefix("torch.")
    warnings.warn(f"the nudge moves {network.names[layer]} by less than the digits that {name} leaves, so that its "
                  "gradient is noise: use relax.coordinates=error, a larger nudge.strength, or precision=float64",
                  stacklevel=2)
