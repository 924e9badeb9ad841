"""The residual: what a step leaves to do, as a part of the way that has been gone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import truediv
from typing import NamedTuple

import torch

from ebmrun.theory.coordinates import Coordinates, State
from ebmrun.theory.equilibrium import Batch
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxation import Step

SQUARABLE = (1e-15, 1e15)  # norms whose squares float32 can hold; others are taken in float64, at twice the time


class Left(NamedTuple):
    """What a step leaves to do: the residual, the layer whose digits it rests on, if they are lost; ||answer - u|| of
    each layer, of the examples that are there; the differences that were measured, and their norms for all examples."""

    residual: float
    drowned: int | None
    gaps: list[float]
    parts: list[Batch]
    norms: list[float]


UNMEASURED = Left(math.nan, None, [], [], [])


def residual(space: Coordinates, step: Step, pull: Pull, gone: Sequence[float] = ()) -> Left:
    """The largest over layers of ||answer - u|| / ||moved - start||, with the norms of examples that are ``gone``; NaN
    where a state is no number.

    Where a variable holds the whole state, half a digit of that counts as left to move under a nudge, and everywhere
    the smallest number that there is: what is below it cannot be seen. A layer that has not moved counts 1, unless
    nothing pulls on it (``silent``).
    """
    depth, states = len(step.answers), space.free.states
    moved = torch._foreach_sub(step.moved, states) if isinstance(space, State) else step.moved
    parts = [*torch._foreach_sub(step.answers, list(step.before)), *moved]
    blurred = not (space.exact or pull.rests)
    parts = parts + states if blurred else parts
    norms, clamped = torch.stack(torch._foreach_norm(parts)).tolist(), depth - 1 if pull.clamps else None
    # A clamped output has a gap of 0 once it has its target.
    plain = all(SQUARABLE[0] < norm < SQUARABLE[1] or (norm == 0 and l == clamped) for l, norm in enumerate(norms))
    if not plain:
        wide = torch.promote_types(parts[0].dtype, torch.float64)
        norms = torch.stack(torch._foreach_norm(parts, dtype=wide)).real.tolist()
        if not all(map(math.isfinite, norms)):
            return UNMEASURED
    gaps, norms = norms[:depth], [math.hypot(*pair) for pair in zip(norms, gone)] if gone else norms
    if plain and not blurred:
        return Left(max(map(truediv, norms, norms[depth:])), None, gaps, parts, norms)
    info = torch.finfo(moved[0].dtype)
    half, least = info.eps / 2 if blurred else 0.0, info.tiny * info.eps
    worst, drowned = 0.0, None
    for l, (gap, way, digit) in enumerate(zip(norms, norms[depth:], norms[2 * depth :] or [0.0] * depth)):
        digit = half * digit + least * math.sqrt(moved[l].numel())
        left = max(gap, digit) / way if way else float(gap > 0 or not (pull.rests or silent(space, step, l)))
        if left > worst:
            worst, drowned = left, l if digit >= gap else None
    return Left(worst, drowned, gaps, parts, norms)


def silent(space: Coordinates, step: Step, l: int) -> bool:
    """Whether a layer that has not moved has no reason to: its message is zero and none that was lost on its way, each
    layer above having sent zero for a slope of zero or for being silent itself; or its own slope is zero."""
    info = torch.finfo(step.moved[l].dtype)
    counts = info.tiny / info.eps  # a number with all its digits
    message = step.messages[l]
    if message is None:
        return True
    size = float(message.abs().max())
    if size > 0:
        return space.exact and size > counts
    above = [m for m, edges in enumerate(space.edges) for source, _ in edges if source == l + 1]
    return all(float(step.feedback[m].abs().max()) == 0 and
               (float(step.moved[m].abs().max()) > counts or silent(space, step, m)) for m in above)
