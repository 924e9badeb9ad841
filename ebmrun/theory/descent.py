"""The nudged energy over messages: its gradient, and its curvature along a direction.

The variables are the messages s_l that the states answer, x_l = respond(a_l, s_l), with drives refreshed on the way up.
One pass down then gives the messages t_l that the states would hear, and with D = dx/ds, which is symmetric,

    dF/ds_l = -gamma^-h_l D_l (t_l - s_l)

exactly for the predictive energy, and to first order in t - s for others. The curvature along a direction takes one
more pass up through the linearised network.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.displacement import Displacement
from ebmrun.theory.energies.tangent import tangent
from ebmrun.theory.equilibrium import Batch, Drive
from ebmrun.theory.error import Error
from ebmrun.theory.kinks import Softness, by_row
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxation import Step, descend

Flat = Float[Tensor, "batch variables"]  # of all layers that move, one after another
Each = Float[Tensor, "batch 1"]
Plain = Bool[Tensor, "batch 1"] | None  # the examples that take plain sweeps; None where none does

SOFT = 2.0  # kinks under steps that go less than all the way


class Point:
    """Messages, and the step from the states that answer them."""

    def __init__(self, messages: list[Batch], step: Step, softness: Softness) -> None:
        self.messages, self.step, self.softness = messages, step, softness

    @cached_property
    def s(self) -> Flat:
        return flat(self.messages)

    @cached_property
    def gap(self) -> Flat:
        """t - s."""
        return flat(answered(self.step)) - self.s

    @cached_property
    def way(self) -> Flat:
        """D (t - s), the way from the states to their answers."""
        count = len(self.messages)
        if all(answer is t for answer, t in zip(self.step.answers, answered(self.step))):
            return self.gap  # of states that are their messages
        return flat(self.step.answers[:count]) - flat(self.step.before[:count])


class Descent:
    """The energy of one relaxation over its messages."""

    def __init__(self, space: Coordinates, pull: Pull) -> None:
        self.space, self.pull = space, pull
        self.start, self.still, _ = space.start()
        self.moving = self.start[: len(self.start) - pull.clamps]
        self.sizes = [u[0].numel() for u in self.moving]
        # An output has 1 / (1 + lambda c) of the way to go: so much for the gap's part there, as a preconditioner.
        self.scale = 1.0 if pull.clamps else pull.step

    @cached_property
    def gains(self) -> Float[Tensor, " _"] | None:
        """gamma^-h of each unit's layer; None where all are 1."""
        gains = self.space.energy.layer_gains(self.space.network.heights)
        if all(gain == 1 for gain in gains):
            return None
        return torch.cat([u.new_full((u[0].numel(),), gain) for u, gain in zip(self.start, gains)])

    def layers(self, vector: Flat) -> list[Batch]:
        parts = zip(vector.split_with_sizes(self.sizes, 1), self.moving)
        return [part if like.ndim == 2 else part.view_as(like) for part, like in parts]

    def weighted(self, vector: Flat) -> Flat:
        """Each layer's part times gamma^-h."""
        return vector if self.gains is None else vector * self.gains[: vector.shape[1]]

    def product(self, a: Flat, b: Flat) -> Each:
        """<a, b>, weighted."""
        return torch.sum(self.weighted(a * b), 1, True)

    def scaled(self, vector: Flat) -> Flat:
        """The output's part at its scale."""
        if isinstance(self.scale, float) and self.scale == 1:
            return vector
        rest = vector.shape[1] - self.sizes[-1]
        return torch.cat([vector[:, :rest], vector[:, rest:] * self.scale], 1)

    def swept(self, messages: list[Batch], sweep: Step) -> list[Batch]:
        """What a plain sweep makes of messages."""
        *others, last = answered(sweep)
        return [*others, torch.lerp(messages[-1], last, self.scale)]

    def at(self, messages: list[Batch], before: Step | None, softness: Softness) -> Point:
        """The states that answer messages, and a step from there."""
        space = self.space
        u, drives, signals = list(self.start), list(self.still), [space.input]
        for l, hears in enumerate(space.network.hears_layers):
            if hears:
                drives[l] = space.drive(l, signals)
            if l < len(messages):  # what is clamped moves in the step
                u[l] = space.respond(l, drives[l], messages[l])
            if l + 1 < len(u):
                signals.append(space.signal(u[l], drives[l]))
        return self.down(messages, u, drives, signals, before, softness)

    def along(self, point: Point, p: Flat, length: Each, plain: Plain) -> Point:
        """The point at that length along p."""
        messages = self.layers(torch.addcmul(point.s, p, length))
        return self.at(messages, kinks_of(self.space, point), SOFT if plain is None else torch.where(plain, 1.0, SOFT))

    def down(self, messages: list[Batch], u: Sequence[Batch], drives: list[Drive], signals: list[Batch],
             before: Step | None, softness: Softness) -> Point:
        """The step from states whose drives are known, at which it stays: another decides where the next starts."""
        step = descend(self.space, u, drives, signals, self.pull, True, [1.0] * len(u), before, softness)
        stays = [*u[: len(messages)], *step.moved[len(messages) :]]
        return Point(messages, step._replace(before=stays, moved=stays), softness)

    def curvature(self, at: Point, p: Flat) -> Each:
        """Of the energy along p: what it gains to second order."""
        space, step, parts = self.space, at.step, [*self.layers(p), None]
        dx, bends = [p], []  # the input's place is taken by what no edge asks for
        for l, (edges, drive, held) in enumerate(zip(space.edges, step.drives, step.held or [None] * len(parts))):
            pushed = [affine.tangent(dx[source], piece)
                      for (source, affine), piece in zip(edges, drive.pieces) if source]
            da = sum(pushed[1:], pushed[0]) if pushed else None
            stiff, compliance = None, space.compliance.drives[l] if held is not None else None
            if not (da is None or held is None or compliance is None):
                # A kink gives way by c times the change of its feedback.
                stiff = torch.where(held, da.square() / (by_row(at.softness, da) * compliance), 0)
                da = torch.where(held, 0, da)
            below_top = l + 1 < len(step.signals)
            x = step.signals[l + 1] if below_top and not space.relative else space.state(step.before[l], drive)
            moved, bent = tangent(space.energy, x, total(space, l, drive), answer_alone(space, l, drive), da, parts[l],
                                  space.activations[l])
            bends.append(bent if stiff is None else bent + stiff)
            dx.append(moved)
        found = torch.sum(self.weighted(flat(bends)), 1, True)
        if self.pull.clamps:
            return found
        return found + bend(self.pull, space.state(step.before[-1], step.drives[-1]), dx[-1])


def flat(parts: Sequence[Batch]) -> Flat:
    return torch.cat([part.flatten(1) for part in parts], 1)


def answered(step: Step) -> list[Batch]:
    """The messages of the layers that move."""
    return [message for message in step.messages if message is not None]


def rest(space: Coordinates, l: int) -> Batch:
    """The message that u_l answers where it starts."""
    if space.free.messages and not space.relative:
        return space.free.messages[l]
    return torch.zeros_like(space.free.states[l])


def total(space: Coordinates, l: int, drive: Drive) -> Batch:
    """a_l."""
    return space.free.drives[l].a + drive.a if isinstance(space, Displacement) else drive.a


def answer_alone(space: Coordinates, l: int, drive: Drive) -> Batch:
    """respond(a_l, 0); the origin of errors."""
    if isinstance(space, Error):
        return drive.origin
    a = total(space, l, drive)
    return space.energy.respond(a, torch.zeros_like(a), space.activations[l])


def bend(pull: Pull, x: Batch, dx: Batch) -> Each:
    """lambda <dx, C'' dx> with the Hessian of the cost at x, by autograd of its gradient."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        slope = (pull.cost.gradient(x, pull.targets) * dx).sum()
        bent = torch.autograd.grad(slope, x)[0] if slope.requires_grad else torch.zeros_like(dx)
    return torch.sum(pull.strength * bent * dx, 1, True)


def kinks_of(space: Coordinates, at: Point) -> Step | None:
    """The step to balance kinks from."""
    return at.step if space.kinked else None
