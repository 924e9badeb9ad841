"""The one dynamics. In any coordinates u, with drives d_l and messages t_l,

    t_l = sum_m gamma^(h_l - h_m) A_ml^T feedback(x_m, a_m)  over the layers m that hear l,     t_L = -lambda dcost/dx_L
    u_l <- u_l + step_size (respond(d_l, t_l) - u_l)

where h is a layer's height, its longest way to the output (in a chain every message goes down one layer, by gamma). One
step refreshes the drives from the input up and then moves the layers from the output down: sweeping, each layer hears
those above as they have just moved (Gauss-Seidel); synchronously, as they were before.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import NamedTuple

import torch

from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.equilibrium import Batch, Drive
from ebmrun.theory.kinks import Held, Softness, balanced
from ebmrun.theory.nudge import Pull

Size = float | Batch  # of a step: one number, or one a row
Proposal = tuple[Sequence[Batch], float]  # where the next step starts, and how far it goes

LATE = 2.0  # softness of kinks where the layer below answers a step later
UNBALANCED = 4  # first steps, which mostly reach the equilibrium where no unit comes to a kink


class Step(NamedTuple):
    """One step: the variables before, what they should be by drive and message, and those moved to; the drives and the
    signals that made them; the messages heard, none by a clamped output; the feedback of layers that send any to others
    and the variables that it is sent from; the units of each layer that a kink holds, where kinks were balanced."""

    before: Sequence[Batch]
    answers: list[Batch]
    moved: list[Batch]
    drives: list[Drive]
    signals: list[Batch]
    messages: list[Batch | None]
    feedback: dict[int, Batch]
    senders: Sequence[Batch]
    held: list[Held] | None


def ascend(space: Coordinates, u: Sequence[Batch], still: Sequence[Drive]) -> tuple[list[Drive], list[Batch]]:
    """One pass up: the drives, and the signals that made them. What hears the input alone keeps its drive."""
    drives: list[Drive] = []
    signals = [space.input]
    for l, hears in enumerate(space.network.hears_layers):
        if l:
            signals.append(space.signal(u[l - 1], drives[l - 1]))
        drives.append(space.drive(l, signals) if hears else still[l])
    return drives, signals


def descend(space: Coordinates, u: Sequence[Batch], drives: list[Drive], signals: list[Batch], pull: Pull, sweeps: bool,
            sizes: Sequence[Size], before: Step | None = None, softness: Softness = 1.0) -> Step:
    """One pass down: moves every layer by its step and sends its message along its edges; where the step ``before`` is
    given, with units balanced on their kinks."""
    top, clamps, inner, gains = len(u) - 1, pull.clamps, space.network.inner, space.gains
    moved, answers = list(u), list(u)
    messages: list[Batch | None] = [None] * len(u)
    senders, feedback = moved if sweeps else u, dict[int, Batch]()
    held: list[Held] | None = None
    if before is not None:
        held, drives = [None] * len(u), list(drives)
    for l in range(top, -1, -1):
        drive = drives[l]
        if l == top and clamps:
            answers[l] = moved[l] = space.from_state(pull.targets, drive)
        else:
            t = messages[l]
            if t is None:
                t = messages[l] = pull.message(space.state(u[l], drive))
            answers[l], size = space.respond(l, drive, t), sizes[l]
            moved[l] = answers[l] if isinstance(size, float) and size == 1 else torch.lerp(u[l], answers[l], size)
        if not inner[l]:  # what hears the input alone moves nobody
            continue
        feedback[l] = space.feedback(l, senders[l], drive)
        if before is not None and held is not None:
            feedback[l], held[l], drive = balanced(space, l, senders[l], drive, feedback[l], before.feedback[l],
                                                   before.drives[l], softness)
            drives[l] = drive
        for edge, below in inner[l]:
            message, heard, gain = space.down(l, edge, feedback[l], drive), messages[below], gains[l][edge]
            message = message if gain == 1 else gain * message
            messages[below] = message if heard is None else heard + message
    return Step(u, answers, moved, drives, signals, messages, feedback, senders, held)


def in_two_colours(space: Coordinates, u: Sequence[Batch], drives: list[Drive], signals: list[Batch], pull: Pull,
                   sizes: Sequence[Size], before: Step | None) -> Step:
    """The layers of even height all at once, and then, with drives refreshed, those of odd height."""
    even = [height % 2 == 0 for height in space.network.heights]
    now, then = zip(*((size, 0.0) if e else (0.0, size) for e, size in zip(even, sizes)))
    first = descend(space, u, drives, signals, pull, False, now, before, LATE)
    drives, signals = ascend(space, first.moved, drives)
    second = descend(space, first.moved, drives, signals, pull, False, then, before, LATE)
    return second._replace(before=u, answers=[a if e else b for e, a, b in zip(even, first.answers, second.answers)],
                           messages=[a if e else b for e, a, b in zip(even, first.messages, second.messages)])


def steps(space: Coordinates, pull: Pull, order: str, step_size: float, unbalanced: int = UNBALANCED,
          last: Step | None = None) -> Generator[Step, Proposal | None]:
    """The dynamics from the free equilibrium that the coordinates start at, or on from the ``last`` step, without end:
    layers one after another (``sweep``), every other one (``even_odd``), or all at once (``synchronous``). Send it a
    proposal to go on from elsewhere, or by steps of another size."""
    start, still, signals = space.start()
    u: Sequence[Batch] = start
    drives, before, count = still, last if unbalanced <= 0 and space.kinked else None, 0
    if last:
        drives, signals = ascend(space, u := last.moved, still)
    output = 1.0 if order == "synchronous" else pull.step
    while True:
        sizes = [*[step_size] * (len(u) - 1), step_size * output]
        if order == "even_odd":
            step = in_two_colours(space, u, drives, signals, pull, sizes, before)
        else:
            step = descend(space, u, drives, signals, pull, order == "sweep", sizes, before)
        count += 1
        before = step if count >= unbalanced and space.kinked else None
        u, step_size = (yield step) or (step.moved, step_size)
        drives, signals = ascend(space, u, still)


def held_pass(space: Coordinates, pull: Pull) -> Step:
    """One pass down with drives, slopes and the cost's gradient held at the forward pass: every message crosses the
    network once, in reverse order of its layers, so that all have arrived (Song et al. 2020; Millidge et al. 2020)."""
    u, drives, signals = space.start()
    return descend(space, u, drives, signals, pull, True, [1.0] * len(u))


def arrived(space: Coordinates, pull: Pull, step: Step) -> Step:
    """The same with drives, signals and feedback at the states moved to, where they are derivatives of the energy."""
    drives, signals = ascend(space, step.moved, step.drives)
    moved, feedback = list(step.moved), dict[int, Batch]()
    if pull.clamps:
        moved[-1] = space.from_state(pull.targets, drives[-1])
    for l, before in step.feedback.items():
        drive, feedback[l] = drives[l], space.feedback(l, moved[l], drives[l])
        if step.held is not None:
            feedback[l], _, drives[l] = balanced(space, l, moved[l], drive, feedback[l], before, step.drives[l], 1.0)
    return step._replace(before=moved, moved=moved, senders=moved, drives=drives, signals=signals, feedback=feedback)


def sent(space: Coordinates, step: Step) -> list[Batch]:
    """The feedback of every layer, that of those which hear the input alone included."""
    return [step.feedback[l] if l in step.feedback else space.feedback(l, u, drive)
            for l, (u, drive) in enumerate(zip(step.senders, step.drives))]
