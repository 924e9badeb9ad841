"""The free equilibrium, around which a nudge moves the states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Inexact
from torch import Tensor

from ebmrun.theory.affine import Piece

Batch = Inexact[Tensor, "_ ..."]  # of any layer, with one row an example, or one a node and example

ZERO = torch.zeros(())


@dataclass(slots=True)
class Drive:
    """What a layer hears from below: the sum ``a`` of its maps (of their increments, for displacements), for each map
    the piece that its input lies on, the ``origin`` that u counts from, ``ZERO`` for a state, and by how much that has
    ``risen`` from the free equilibrium, where signals count from there."""

    a: Batch
    pieces: tuple[Piece, ...]
    origin: Inexact[Tensor, "..."] = ZERO
    risen: Inexact[Tensor, "..."] = ZERO


class FreeEquilibrium(NamedTuple):
    """States without a nudge: the inputs, and for each layer the state x_l = respond(a_l, t_l), the drive, and the
    messages t_l that it hears and m_l that it sends; the messages are left out where all are zero."""

    inputs: Batch
    states: list[Batch]
    drives: list[Drive]
    messages: list[Batch]
    feedback: list[Batch]

    def repeat(self, nodes: int) -> FreeEquilibrium:
        """The same for several nodes along the batch axis, but for the inputs and what they alone drive."""
        if nodes == 1:
            return self
        drives = [Drive(stacked(drive.a, nodes), tuple(piece and piece.repeat(nodes)
                                                       for piece in drive.pieces)) for drive in self.drives]
        states, messages, feedback = ([stacked(each, nodes) for each in part]
                                      for part in (self.states, self.messages, self.feedback))
        return FreeEquilibrium(self.inputs, states, drives, messages, feedback)


def stacked(batch: Tensor, nodes: int) -> Tensor:
    """Copies of a batch, one after another along its first axis."""
    return torch.cat([batch] * nodes)  # a quarter of the time of Tensor.repeat


def first(piece: Piece, examples: int) -> Piece:
    """The piece of one node, for what hears the input alone."""
    return piece and piece.first(examples)
