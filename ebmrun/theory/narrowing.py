"""Examples that have settled leave a relaxation, and those that have not go on without them.

Each example has an equilibrium of its own, and a batch has settled when its slowest one has: where maxima tie, a few
need many times the steps of the others. An example leaves when ||answer - u|| is a tenth of what the tolerance allows
the mean one, in every layer. What those that left had still to go counts in the residual to the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ebmrun.theory.affine import Piece
from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.equilibrium import Batch, Drive, FreeEquilibrium
from ebmrun.theory.kinks import Held
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxation import Step
from ebmrun.theory.residual import Left

Rows = Int64[Tensor, " rows"]
Part = Shaped[Tensor, "..."]  # of a step: a batch, or a number without rows
OfParts = Callable[..., Part]
Parted = tuple[Coordinates, Pull, Step]
OfPieces = Callable[..., Piece]

MARGIN = 0.1  # of the tolerance: what the others reach while the last ones settle, where all stay
WORTH = 1 << 17  # numbers that leave at once, for their steps to cost more than their leaving


class Narrowing:
    """Who has left: each time, the last step of those that were there, and the rows that went on; and ``norms``, of all
    who left, one for each difference that a residual measures."""

    def __init__(self, space: Coordinates, pull: Pull) -> None:
        self.space, self.pull = space, pull
        self.left: list[tuple[Step, Rows]] = []
        self.norms: list[float] = []
        self.examples = len(space.free.states[0])
        self.units = sum(x[0].numel() for x in space.free.states) if space.independent else 0

    def parted(self, space: Coordinates, pull: Pull, step: Step, left: Left, tol: float) -> Parted | None:
        """Coordinates, pull and step of the rows that have to go on, where at most half do and the others are worth
        parting with; those of all again, and for good, where the way has shrunk so far that who left has not settled.
        Nobody leaves while a layer has not moved: what hears nothing yet looks as if it had settled."""
        there, depth = len(left.parts[0]), len(left.gaps)
        ways = left.norms[depth : 2 * depth]
        if any(gap > tol / 2 * way for gap, way in zip(self.norms, ways)):
            return self.rejoined(step)
        if there // 2 * self.units < WORTH or not all(ways):
            return None
        allowed = [MARGIN * tol * way / math.sqrt(self.examples) for way in ways]
        gaps = torch.stack([norms_of(gap.flatten(1), 1) for gap in left.parts[:depth]], 1)
        rows = (gaps > gaps.new_tensor(allowed)).any(1).nonzero().flatten()
        if not 0 < len(rows) <= there // 2:
            return None
        leaves = torch.ones(there, dtype=torch.bool, device=rows.device)
        leaves[rows] = False
        norms = torch.stack([norms_of(part[leaves]) for part in left.parts]).tolist()
        self.norms = [math.hypot(*pair) for pair in zip(norms, self.norms)] if self.norms else norms
        self.left.append((step, rows))
        narrow = type(space)(space.network, space.energy, free_of(rows, space.free))
        strength = pull.strength if isinstance(pull.strength, float) else pull.strength[rows]
        return narrow, replace(pull, targets=pull.targets[rows], strength=strength), taken(narrow, step, rows)

    def rejoined(self, step: Step) -> Parted:
        """Coordinates, pull and step of all rows, for good."""
        step, self.left, self.norms, self.units = self.whole(step), [], [], 0
        return self.space, self.pull, step

    def whole(self, step: Step) -> Step:
        """The last step of every example."""
        for wide, rows in reversed(self.left):
            step = put(wide, rows, step)
        return step


def norms_of(part: Part, dim: int | None = None) -> Part:
    """In float64: squares of small numbers have no place in float32."""
    return torch.linalg.vector_norm(part, dim=dim, dtype=torch.promote_types(part.dtype, torch.float64)).real


def free_of(rows: Rows, free: FreeEquilibrium) -> FreeEquilibrium:
    """The equilibria of some rows, each with its input."""
    take, piece = taking(rows)
    states, messages, feedback = ([take(x) for x in part] for part in (free.states, free.messages, free.feedback))
    drives = [drive_of(take, piece, drive) for drive in free.drives]
    return FreeEquilibrium(free.inputs[rows % len(free.inputs)], states, drives, messages, feedback)


def taken(narrow: Coordinates, step: Step, rows: Rows) -> Step:
    """The step of some rows."""
    return step_of(*taking(rows), narrow.input, step)


def taking(rows: Rows) -> tuple[OfParts, OfPieces]:
    """What takes some rows of a batch, once for all places that it stands at, and of a piece."""
    made: dict[int, Part] = {}

    def take(x: Part) -> Part:
        if id(x) not in made:
            made[id(x)] = x[rows] if x.ndim else x
        return made[id(x)]

    return take, lambda piece: piece and piece.take(rows)


def put(wide: Step, rows: Rows, narrow: Step) -> Step:
    """A step of all rows with those of some replaced."""
    made: dict[tuple[int, int], Part] = {}

    def replaced(x: Part, y: Part) -> Part:
        if (id(x), id(y)) not in made:
            made[id(x), id(y)] = x.index_copy(0, rows, y) if x.ndim else x
        return made[id(x), id(y)]

    if wide.held is not None or narrow.held is not None:  # a step that balances no kinks holds nobody
        of_all, of_some = wide.held or [None] * len(wide.moved), narrow.held or [None] * len(wide.moved)
        held = [(x, y) if x is y is None else (nobody(x, u), nobody(y, v))
                for x, y, u, v in zip(of_all, of_some, wide.moved, narrow.moved)]
        wide, narrow = (these._replace(held=list(each)) for these, each in zip((wide, narrow), zip(*held)))
    return step_of(replaced, lambda x, y: x and y and x.put(rows, y), wide.signals[0], wide, narrow)


def nobody(held: Held, like: Batch) -> Held:
    """Who is held, and none where that was not asked."""
    return torch.zeros_like(like, dtype=torch.bool) if held is None else held


def step_of(part: OfParts, piece: OfPieces, inputs: Batch, *steps: Step) -> Step:
    """The step that functions of batches and of pieces make of one or several, with its inputs."""

    def each(lists: Sequence[Sequence[Part]]) -> list[Part]:
        return [part(*parts) for parts in zip(*lists)]

    def known(lists: Sequence[Sequence[Part | None]]) -> list[Part | None]:
        return [None if parts[0] is None else part(*parts) for parts in zip(*lists)]

    before, answers, moved, drives, signals, messages, feedback, senders, held = zip(*steps)
    return Step(
        each(before), each(answers), each(moved), [drive_of(part, piece, *parts) for parts in zip(*drives)],
        [inputs, *each([these[1:] for these in signals])], known(messages),
        {l: part(*(these[l] for these in feedback)) for l in feedback[0]}, each(senders),
        None if held[0] is None else known(held))


def drive_of(part: OfParts, piece: OfPieces, *drives: Drive) -> Drive:
    """The same for a drive."""
    pieces = tuple(piece(*parts) for parts in zip(*(drive.pieces for drive in drives)))
    return Drive(part(*(drive.a for drive in drives)), pieces, part(*(drive.origin for drive in drives)),
                 part(*(drive.risen for drive in drives)))
