"""Where the nodes of a nudge pull or hold the output, example by example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.errors import ConfigError
from ebmrun.theory.coordinates import Term
from ebmrun.theory.cost import Cost, Output
from ebmrun.theory.nudge import Pull
from ebmrun.theory.stencil import Nudge

Signs = Float[Tensor, "batch 1"]  # 1 or -1


def pull_of(nudge: Nudge, cost: Cost, targets: Output, free: Output, signs: Signs | None = None) -> Pull:
    """The pulls of the nodes other than 0 on copies of one batch, node by node, given its free output and, for a nudge
    that draws them, a sign s for each example, whose strengths are s lambda.

    A nudge that holds clamps the output at c = free + lambda (target - free) (Stern et al. 2021; Scellier et al. 2023).
    With V(c) the least internal energy for an output of c, and o the free output, where V' = 0, its estimate tends to

        d/dlambda dV/dtheta  =  (do/dtheta)^T V''(o) (o - target)

    as lambda tends to 0: the implicit gradient of the squared error, weighted by the curvature V'' of the energy, which
    tends to that of the output units alone as the feedback gain tends to 0. Raises ConfigError without signs to draw.
    """
    if nudge.random_sign and signs is None:
        raise ConfigError(f"nudge.random_sign={nudge.random_sign} draws a sign for each example of a training, and "
                          "there is none here: set nudge.random_sign=false")
    if signs is None and not nudge.holds and nudge.points == 1:
        return Pull.stacked(cost, targets, cast("Sequence[float]", nudge.strengths))
    side = torch.ones_like(targets[:, :1]) if signs is None else signs
    strengths = torch.cat([strength * side for strength in nudge.strengths])
    nodes = len(nudge.strengths)
    if nudge.holds:
        return Pull(cost, free.repeat(nodes, 1) + strengths * (targets - free).repeat(nodes, 1), math.inf)
    return Pull(cost, targets.repeat(nodes, 1), strengths)


def signed(terms: Sequence[Term], signs: Signs) -> list[Term]:
    """The terms of a learning rule whose weights have each example's sign: all are linear in the message."""
    return [term._replace(message=term.message * signs.repeat(len(term.message) // len(signs), 1).view(
        -1, *[1] * (term.message.ndim - 1))) for term in terms]
