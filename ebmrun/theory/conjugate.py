"""Nonlinear conjugate gradients of the nudged energy (Polak & Ribiere 1969), for nudges too strong for plain sweeps.

The energy's Hessian over the messages (``descent``) is D = dx/ds plus a matrix of as many ranks as there are outputs,
however deep the network is; conjugate directions need about as many steps as that has eigenvalues that count. Each
example has coefficients of its own. The length of a step is exact for the energy to second order along it.

A weak nudge needs none of it: an example takes plain sweeps for as long as they shrink its gap t - s well enough.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.descent import SOFT, Descent, Each, Flat, Plain, Point, answered, kinks_of, rest
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxation import Proposal, Step

ENOUGH = 0.1  # of the gap's square: what a plain sweep may leave
ENOUGH_ON_KINKS = 0.5  # likewise where units balance, for which plain sweeps are made
SHORTER = 5  # times that a step is shortened, at most


def conjugate_steps(space: Coordinates, pull: Pull, sweeps: Sequence[Step]) -> Generator[Step, Proposal | None]:
    """A step from each iterate after plain sweeps from the free equilibrium on: after one where the output is clamped,
    which is an infinite nudge, after two or more elsewhere."""
    descent = Descent(space, pull)
    before = messages = [rest(space, l) for l in range(len(descent.moving))]
    for sweep in sweeps[:-1]:
        before, messages = messages, descent.swept(messages, sweep)
    if len(sweeps) == 1:
        return descending(descent, Point(messages, sweeps[0], 1.0), None)
    return descending(descent, Point(before, sweeps[-2], 1.0), Point(messages, sweeps[-1], 1.0))


def conjugate_steps_from(space: Coordinates, pull: Pull, step: Step) -> Generator[Step, Proposal | None]:
    """A step from each iterate, from the answers of another step on."""
    descent = Descent(space, pull)
    at = descent.at(answered(step), None, SOFT)
    yield at.step
    yield from descending(descent, at, None)


def descending(descent: Descent, at: Point, new: Point | None) -> Generator[Step, Proposal | None]:
    """From a point, and from the one that a plain sweep leads to where such sweeps may be trusted."""
    space, one = descent.space, torch.ones_like(at.s[:, :1])
    z = p = descent.scaled(at.gap)
    slope = size = descent.product(at.way, p).clamp(min=0)  # by a positive D: what is below 0 is round-off
    length = one
    plain: Plain = None
    if new:
        if space.kinked:  # what has not settled may be a kink's: the same states, with units balanced on them
            met = new.step
            new = descent.down(new.messages, met.before, met.drives, met.signals, kinks_of(space, at), 1.0)
        plain = descent.product(new.way, p) >= -0.5 * slope
    if new is None or plain is None or not bool(plain.all()):
        length = exact(descent, at, p, slope, plain, one)
        new = descent.along(at, p, length, plain)
        yield new.step
    while True:
        there = descent.product(new.way, p)
        for _ in range(0 if space.kinked else SHORTER):  # a kink turns the slope by its feedback alone
            turned = there + slope < 0
            turned = turned if plain is None else turned & ~plain
            if not bool(turned.any()):
                break
            length = torch.where(turned, length * slope / (slope - there), length)
            new = descent.along(at, p, length, plain)
            yield new.step
            there = descent.product(new.way, p)
        at, before, z_before = new, size, z
        z = descent.scaled(at.gap)
        size = descent.product(at.way, z).clamp(min=0)
        beta = ratio(size - descent.product(at.way, z_before), before, one).clamp(min=0)
        slope = torch.addcmul(size, there, beta)
        ends = slope <= 0  # p would lead up
        if plain is not None:
            plain = plain & (size <= (ENOUGH_ON_KINKS if space.kinked else ENOUGH) * before)
            ends = ends | plain
            plain = plain if bool(plain.any()) else None
        p, slope = torch.addcmul(z, p, beta.masked_fill(ends, 0)), torch.where(ends, size, slope)
        length = exact(descent, at, p, slope, plain, one)
        new = descent.along(at, p, length, plain)
        yield new.step


def exact(descent: Descent, at: Point, p: Flat, slope: Each, plain: Plain, one: Each) -> Each:
    """The length of a step along p, for the energy to second order; 1 for the examples that take plain steps."""
    if plain is None:
        return ratio(slope, descent.curvature(at, p), one)
    return one if bool(plain.all()) else torch.where(plain, one, ratio(slope, descent.curvature(at, p), one))


def ratio(a: Each, b: Each, one: Each) -> Each:
    """a / b; 1, a plain step, where b is not positive."""
    return torch.where(b > 0, a / b, one)
