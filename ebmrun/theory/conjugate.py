"""Nonlinear conjugate gradients of the nudged energy (Polak & Ribiere 1969), for nudges too strong for plain sweeps.

The variables are the messages s_l that the states answer, x_l = respond(a_l, s_l), with drives refreshed on the way up.
One pass down then gives the messages t_l that the states would hear, and with D = dx/ds, which is symmetric,

    dF/ds_l = -gamma^-h_l D_l (t_l - s_l)

The energy's Hessian over these variables is D plus a matrix of as many ranks as there are outputs, however deep the
network is; conjugate directions need about as many steps as that has eigenvalues that count. Each example has
coefficients of its own. The length of a step is exact for the energy to second order along it, by one more pass up
through the linearised network.

A weak nudge needs none of it: an example takes plain sweeps for as long as they shrink its gap t - s well enough.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.equilibrium import Batch, Drive
from ebmrun.theory.error import Error
from ebmrun.theory.kinks import Softness, by_row
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxation import Proposal, Step, descend

Flat = Float[Tensor, "batch variables"]  # of all layers that move, one after another
Each = Float[Tensor, "batch 1"]

ENOUGH = 0.1  # of the gap's square: what a plain sweep may leave
ENOUGH_ON_KINKS = 0.5  # likewise where units balance, for which plain sweeps are made
SHORTER = 5  # times that a step is shortened, at most
SOFT = 2.0  # kinks under conjugate steps, which go less than all the way


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
        return flat(self.step.answered) - self.s

    @cached_property
    def way(self) -> Flat:
        """D (t - s), the way from the states to their answers."""
        count = len(self.messages)
        if all(answer is t for answer, t in zip(self.step.answers, self.step.answered)):
            return self.gap  # of states that are their messages
        return flat(self.step.answers[:count]) - flat(self.step.before[:count])


class Descent:
    """The energy of one relaxation over its messages."""

    def __init__(self, space: Coordinates, pull: Pull) -> None:
        self.space, self.pull = space, pull
        self.start, self.still, self.signals = space.start()
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
        return [part.view_as(like) for part, like in zip(vector.split(self.sizes, 1), self.moving)]

    def weighted(self, vector: Flat) -> Flat:
        """Each layer's part times gamma^-h."""
        return vector if self.gains is None else vector * self.gains[: vector.shape[1]]

    def product(self, a: Flat, b: Flat) -> Each:
        """<a, b>, weighted."""
        return self.weighted(a * b).sum(1, keepdim=True)

    def scaled(self, vector: Flat) -> Flat:
        """The output's part at its scale."""
        if isinstance(self.scale, float) and self.scale == 1:
            return vector
        rest = vector.shape[1] - self.sizes[-1]
        return torch.cat([vector[:, :rest], vector[:, rest:] * self.scale], 1)

    def swept(self, messages: list[Batch], sweep: Step) -> list[Batch]:
        """What a plain sweep makes of messages."""
        *others, last = sweep.answered
        return [*others, torch.lerp(messages[-1], last, self.scale)]

    def at(self, messages: list[Batch], before: Step | None, softness: Softness) -> Point:
        """The states that answer messages, and a step from there."""
        space = self.space
        u, drives, signals = list(self.start), list(self.still), [space.input]
        for l, hears in enumerate(space.network.hears_layers):
            if hears:
                drives[l] = space.drive(l, signals)
            if l == len(messages):
                u[l] = space.from_state(self.pull.targets, drives[l])
            else:
                u[l] = space.respond(l, drives[l], messages[l])
            if l + 1 < len(u):
                signals.append(space.signal(u[l], drives[l]))
        return self.down(messages, u, drives, signals, before, softness)

    def along(self, point: Point, p: Flat, length: Each, plain: Bool[Tensor, "batch 1"]) -> Point:
        """The point at that length along p."""
        messages = self.layers(torch.addcmul(point.s, p, length))
        return self.at(messages, kinks_of(self.space, point), torch.where(plain, 1.0, SOFT))

    def down(self, messages: list[Batch], u: Sequence[Batch], drives: list[Drive], signals: list[Batch],
             before: Step | None, softness: Softness) -> Point:
        """The step from states whose drives are known."""
        step = descend(self.space, u, drives, signals, self.pull, True, [1.0] * len(u), before, softness)
        return Point(messages, step, softness)

    def curvature(self, at: Point, p: Flat) -> Each:
        """Of the energy along p: what it gains to second order."""
        space, step, parts = self.space, at.step, [*self.layers(p), None]
        dx, bends = [p], []  # the input's place is taken by what no edge asks for
        for l, (edges, drive, held) in enumerate(zip(space.edges, step.drives, step.held or [None] * len(parts))):
            pushed = [affine.tangent(dx[source], piece)
                      for (source, affine), piece in zip(edges, drive.pieces) if source]
            da = sum(pushed[1:], pushed[0]) if pushed else torch.zeros_like(step.before[l])
            stiff, compliance = None, space.compliance.drives[l] if held is not None else None
            if held is not None and compliance is not None:  # a kink gives way by c times the change of its feedback
                stiff = torch.where(held, da.square() / (by_row(at.softness, da) * compliance), 0)
                da = torch.where(held, 0, da)
            below_top = l + 1 < len(step.signals)
            x = step.signals[l + 1] if below_top and not space.relative else space.state(step.before[l], drive)
            moved, bent = space.energy.tangent(x, space.total(l, drive), rest(space, l, drive), da, parts[l],
                                               space.activations[l])
            bends.append(bent if stiff is None else bent + stiff)
            dx.append(moved)
        found = self.weighted(flat(bends)).sum(1, keepdim=True)
        if self.pull.clamps:
            return found
        return found + self.pull.curvature(space.state(step.before[-1], step.drives[-1]), dx[-1])


def conjugate_steps(space: Coordinates, pull: Pull, sweeps: Sequence[Step]) -> Generator[Step, Proposal | None]:
    """A step from each iterate after plain sweeps from the free equilibrium on: after one where the output is clamped,
    which is an infinite nudge, after two or more elsewhere."""
    descent = Descent(space, pull)
    before = messages = [space.rest(l) for l in range(len(descent.moving))]
    for sweep in sweeps[:-1]:
        before, messages = messages, descent.swept(messages, sweep)
    if len(sweeps) == 1:
        return descending(descent, Point(messages, sweeps[0], 1.0), None)
    return descending(descent, Point(before, sweeps[-2], 1.0), Point(messages, sweeps[-1], 1.0))


def conjugate_steps_from(space: Coordinates, pull: Pull, step: Step) -> Generator[Step, Proposal | None]:
    """A step from each iterate, from the answers of another step on."""
    descent = Descent(space, pull)
    at = descent.at(step.answered, None, SOFT)
    yield at.step
    yield from descending(descent, at, None)


def descending(descent: Descent, at: Point, new: Point | None) -> Generator[Step, Proposal | None]:
    """From a point, and from the one that a plain sweep leads to where such sweeps may be trusted."""
    space = descent.space
    plain = torch.full((len(at.step.before[0]), 1), new is not None, dtype=torch.bool, device=at.s.device)
    p = descent.scaled(at.gap)
    slope = size = descent.product(at.way, p)
    length = torch.ones_like(slope)
    if new:
        if space.kinked:  # what has not settled may be a kink's: the same states, with units balanced on them
            met = new.step
            new = descent.down(new.messages, met.before, met.drives, met.signals, kinks_of(space, at), 1.0)
        plain = descent.product(new.way, p) >= -0.5 * slope
    if new is None or not bool(plain.all()):
        length = torch.where(plain, length, ratio(slope, descent.curvature(at, p)))
        new = descent.along(at, p, length, plain)
        yield new.step
    while True:
        for _ in range(0 if space.kinked else SHORTER):  # a kink turns the slope by its feedback alone
            there = descent.product(new.way, p)
            turned = ~plain & (there < -slope)
            if not bool(turned.any()):
                break
            length = torch.where(turned, length * slope / (slope - there), length)
            new = descent.along(at, p, length, plain)
            yield new.step
        old, at, before = at, new, size
        z, way = descent.scaled(at.gap), descent.scaled(at.way)
        size = descent.product(at.gap, way)
        plain = plain & (size <= (ENOUGH_ON_KINKS if space.kinked else ENOUGH) * before)
        beta = torch.where(plain, 0.0, ratio(size - descent.product(old.gap, way), before)).clamp(min=0)
        uphill = descent.product(at.way, z), descent.product(at.way, p)
        beta = torch.where(uphill[0] + beta * uphill[1] > 0, beta, 0)  # else p would lead up
        p, slope = torch.addcmul(z, p, beta), uphill[0] + beta * uphill[1]
        length = torch.ones_like(slope)
        if not bool(plain.all()):
            length = torch.where(plain, length, ratio(slope, descent.curvature(at, p)))
        new = descent.along(at, p, length, plain)
        yield new.step


def flat(parts: Sequence[Batch]) -> Flat:
    return torch.cat([part.flatten(1) for part in parts], 1)


def rest(space: Coordinates, l: int, drive: Drive) -> Batch:
    """respond(a_l, 0); the origin of errors."""
    if isinstance(space, Error):
        return drive.origin
    a = space.total(l, drive)
    return space.energy.respond(a, torch.zeros_like(a), space.activations[l])


def ratio(a: Each, b: Each) -> Each:
    """a / b; 1, a plain step, where b is not positive."""
    return torch.where(b > 0, a / b, 1.0)


def kinks_of(space: Coordinates, at: Point) -> Step | None:
    """The step to balance kinks from."""
    return at.step if space.kinked else None
