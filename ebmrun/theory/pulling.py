"""Where the nodes of a nudge pull or hold the output."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.theory.cost import Cost
from ebmrun.theory.nudge import Pull
from ebmrun.theory.stencil import Nudge

Output = Float[Tensor, "batch classes"]


def pull_of(nudge: Nudge, cost: Cost, targets: Output, free: Output) -> Pull:
    """The pulls of the nodes other than 0 on copies of one batch, node by node, given its free output.

    A nudge that holds clamps the output at c = free + lambda (target - free) (Stern et al. 2021; Scellier et al. 2023).
    With V(c) the least internal energy for an output of c, and o the free output, where V' = 0, its estimate tends to

        d/dlambda dV/dtheta  =  (do/dtheta)^T V''(o) (o - target)

    as lambda tends to 0: the implicit gradient of the squared error, weighted by the curvature V'' of the energy, which
    tends to that of the output units alone as the feedback gain tends to 0.
    """
    if not nudge.holds:
        return Pull.stacked(cost, targets, nudge.strengths)
    return Pull(cost, torch.cat([torch.lerp(free, targets, strength) for strength in nudge.strengths]), math.inf)
