"""Units on a kink of their activation, where the feedback -dE/da jumps from m- to m+ as the drive a crosses the kink k.

Where m- > m+ the energy has a minimum in a *on* the kink: just below it the feedback drives the unit up and just above
it down, and a relaxation that always takes one of both sides never settles. At the minimum the feedback is a number
between them, as an element of the subdifferential, that keeps a = k. It is found along with the states by a proximal
step (Rockafellar 1976),

    m <- clip(m - (a - k) / c, m+, m-),

where c is how far the drive gives way to its own feedback. Away from the kink this is m+ or m-, the feedback itself.

A maximum is on a kink likewise where its winners tie and its message m < 0 pushes them down. The message is then
shared: with shares u_j >= 0 that add up to -m, at the numbers z_j of which the largest is the maximum,

    u <- the point of {u_j >= 0, sum_j u_j = -m} next to  u_j + (z_j - max z) / c_j,

so that all with a share have one height.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ebmrun.theory.affine import MaxPool2d, Winners
from ebmrun.theory.affine.piece import Rows
from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.equilibrium import Batch, Drive

Held = Bool[Tensor, "_ ..."] | None  # the units of a layer that rest on a kink
Softness = float | Float[Tensor, "_ 1"]


def by_row(number: Softness, like: Batch) -> float | Batch:
    """A number a row, to multiply a batch of any shape."""
    return number if isinstance(number, float) else number.view(-1, *[1] * (like.ndim - 1))


def balanced(space: Coordinates, l: int, u: Batch, drive: Drive, feedback: Batch, before: Batch, then: Drive,
             softness: Softness) -> tuple[Batch, Held, Drive]:
    """The feedback of layer l, given that of the step ``before`` and the drive that it had then, with the units that a
    kink holds, and the drive with winners that share.

    ``softness`` times the compliance is c: 1 where every step goes all the way, more where it does not."""
    feedback, held = on_kinks(space, l, u, drive, feedback, before, softness)
    return feedback, held, shared(space, l, drive, feedback, before, then, softness) if space.mixes[l] else drive


def on_kinks(
    space: Coordinates, l: int, u: Batch, drive: Drive, feedback: Batch, before: Batch, softness: Softness
) -> tuple[Batch, Held]:
    """The feedback of layer l with the units that a kink of its activation holds."""
    kinks, compliance = space.activations[l].kinks, space.compliance.drives[l]
    if not kinks or compliance is None or not space.energy.jumps:
        return feedback, None
    held = torch.zeros_like(feedback, dtype=torch.bool)
    sides = space.compliance.sides
    if l not in sides:
        sides[l] = [beside(space, l, drive, kink) for kink in kinks]
    twice = torch.cat((u, u))
    for kink, both in zip(kinks, sides[l]):
        below, above = space.feedback(l, twice, both).chunk(2)
        message = before.minimum(below).maximum(above) - (drive.a - kink) / (by_row(softness, feedback) * compliance)
        rests = (above < message) & (message < below)
        feedback, held = torch.where(rests, message, feedback), held | rests
    return feedback, held


def beside(space: Coordinates, l: int, drive: Drive, kink: float) -> Drive:
    """The drives just below a kink and, along the batch axis, those just above it."""
    aside = 4 * torch.finfo(drive.a.dtype).eps * max(1.0, abs(kink))
    below, above = (torch.full_like(drive.a, kink + side) for side in (-aside, aside))
    return space.driven(l, torch.cat((below, above)), drive.pieces)


def shared(
    space: Coordinates, l: int, drive: Drive, feedback: Batch, before: Batch, at: Drive, softness: Softness
) -> Drive:
    """The drive of layer l with mixed pieces where winners of a maximum tie, for the ``feedback`` that it sends down,
    given the one ``before`` and the drive that it had then."""
    pieces = list(drive.pieces)
    for edge, ((source, affine), now, then) in enumerate(zip(space.edges[l], pieces, at.pieces)):
        if source and isinstance(affine, MaxPool2d) and now and then:
            give = space.gains[l][edge] * affine.inner.variance(space.compliance.states[source - 1])
            pieces[edge] = _mixed(affine, now, then, feedback, before, give, softness)
    return replace(drive, pieces=tuple(pieces))


def _mixed(affine: MaxPool2d, now: Winners, then: Winners, message: Batch, before: Batch, give: Batch,
           softness: Softness) -> Winners:
    """The present piece, with shares in the squares whose winners have changed or were sharing."""
    contested = (now.places != then.places).flatten()
    if then.ties is not None:
        contested[then.ties] = True
    squares = contested.nonzero().flatten()
    at = then.at(squares)
    u = affine.alone(then, at)
    if then.ties is not None and then.shares is not None:
        u[torch.searchsorted(squares, then.ties)] = then.shares
    z, c, total = affine.squares(now.image)[at].flatten(1), affine.squares(give)[0][at[1:]].flatten(1), -message[at]
    c = c * (softness if isinstance(softness, float) else softness[at[0]])
    u = u * -before[at][:, None].clamp(max=0) + (z - z.amax(1, keepdim=True)) / c
    winner = z.argmax(1, keepdim=True)
    second = u.scatter(1, winner, -math.inf).amax(1)
    ties = (total > 0) & (second > u.gather(1, winner).flatten() - total)
    return now._replace(ties=squares[ties], shares=_shared_out(u[ties], total[ties, None]))


def _shared_out(u: Rows, total: Float[Tensor, "_ 1"]) -> Rows:
    """The point next to u of those that are nowhere negative and add up to ``total``, in parts of it."""
    ordered = u.sort(1, descending=True).values
    counts = torch.arange(1, u.shape[1] + 1, device=u.device, dtype=u.dtype)
    levels = (ordered.cumsum(1) - total) / counts  # what each of the first n gives up, so that they add up
    last = (ordered > levels).sum(1, keepdim=True) - 1
    return (u - levels.gather(1, last.clamp(min=0))).clamp(min=0) / total
