"""Units on a kink of their activation, where the feedback -dE/da jumps from m- to m+ as the drive a crosses the kink k.

Where m- > m+ the energy has a minimum in a *on* the kink: just below it the feedback drives the unit up and just above
it down, and a relaxation that always takes one of both sides never settles. At the minimum the feedback is a number
between them, as an element of the subdifferential, that keeps a = k. It is found along with the states by a proximal
step (Rockafellar 1976),

    m <- clip(m - (a - k) / c, m+, m-),

where c is how far the drive gives way to its own feedback. Away from the kink this is m+ or m-, the feedback itself.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ebmrun.theory.coordinates import Batch, Coordinates, Drive

Held = Bool[Tensor, "_ ..."] | None  # the units of a layer that rest on a kink
Softness = float | Float[Tensor, "_ 1"]


def by_row(number: Softness, like: Batch) -> float | Batch:
    """A number a row, to multiply a batch of any shape."""
    return number if isinstance(number, float) else number.view(-1, *[1] * (like.ndim - 1))


def balanced(
    space: Coordinates, l: int, u: Batch, drive: Drive, feedback: Batch, before: Batch, softness: Softness
) -> tuple[Batch, Held]:
    """The feedback of layer l, given that of the step before, with the units that a kink holds.

    ``softness`` times the compliance is c: 1 where every step goes all the way, more where it does not."""
    kinks, compliance = space.activations[l].kinks, space.compliances[l]
    if not kinks or compliance is None:
        return feedback, None
    held = torch.zeros_like(feedback, dtype=torch.bool)
    for kink in kinks:
        aside = 4 * torch.finfo(feedback.dtype).eps * max(1.0, abs(kink))
        below, above = (space.feedback(l, u, space.beside(l, drive, torch.full_like(drive.a, kink + side)))
                        for side in (-aside, aside))
        message = before.minimum(below).maximum(above) - (drive.a - kink) / (by_row(softness, feedback) * compliance)
        rests = (above < message) & (message < below)
        feedback, held = torch.where(rests, message, feedback), held | rests
    return feedback, held

