"""The one dynamics. In any coordinates u, with drives d_l and messages t_l,

    t_l = gamma A_{l+1}^T feedback(x_{l+1}, a_{l+1})  for l < L,     t_L = -lambda dcost/dx_L
    u_l <- u_l + step_size (respond(d_l, t_l) - u_l)

One step refreshes the drives from the input up and then moves the layers from the output down: with ``order=sweep``
each layer hears the layer above as it has just moved (Gauss-Seidel), with ``synchronous`` as it was before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from ebmrun.errors import ConfigError, Diverged
from ebmrun.theory.anderson import Anderson
from ebmrun.theory.coordinates import Batch, Coordinates, Drive
from ebmrun.theory.pull import Pull

CHOICES = {
    "order": ("sweep", "synchronous"),
    "coordinates": ("error", "state"),
    "reading": ("equilibrium", "first_step", "frozen"),
    "acceleration": ("none", "anderson"),
}

SQUARABLE = (1e-15, 1e15)  # norms whose squares float32 can hold; others are taken in float64, at twice the time


@dataclass
class Relaxation:
    """How to relax: layer by layer (``sweep``) or all at once (``synchronous``), by ``step_size`` in (0, 2] of the way
    to each answer, in ``coordinates`` of one kind or the other, with or without ``acceleration``. Raises ConfigError
    for values out of range.

    ``reading``: ``equilibrium`` uses the states at which the relaxation ends. ``first_step`` reads each layer at the
    step at which the message first reaches it (Song et al. 2020); ``frozen`` keeps drives, Jacobians and the cost's
    gradient at the forward pass (Millidge, Tschantz & Buckley 2020). ``tol`` (0 or more) bounds the residual: the
    largest over layers of ||respond - u|| / ||moved - start||; 0 runs ``max_steps`` (1 or more) in any case.
    ``free_steps`` bounds a free phase that has to settle (null: ``max_steps``). The residual is read every
    ``check_every`` steps.
    """

    order: str = "sweep"
    coordinates: str = "error"
    reading: str = "equilibrium"
    acceleration: str = "none"
    step_size: float = 1.0
    tol: float = 1e-3
    max_steps: int = 100
    free_steps: int | None = None
    check_every: int = 1

    def __post_init__(self) -> None:
        for key, choices in CHOICES.items():
            if getattr(self, key) not in choices:
                raise ConfigError(f"relax.{key}={getattr(self, key)} is unknown: choose one of {', '.join(choices)}")
        if not 0 < self.step_size <= 2:
            raise ConfigError(f"relax.step_size={self.step_size} must lie in (0, 2]: 1 moves a state all the way")
        if not (self.tol >= 0 and math.isfinite(self.tol)):
            raise ConfigError(f"relax.tol={self.tol} must be 0 or a positive number: try 1e-3")
        for key in ("max_steps", "free_steps", "check_every"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ConfigError(f"relax.{key}={getattr(self, key)} must be 1 or more")
        if self.reading == "first_step" and self.order != "synchronous":
            raise ConfigError("relax.reading=first_step follows a message from layer to layer, but relax.order=sweep "
                              "carries it through all of them in one step: set relax.order=synchronous")
        if self.reading == "first_step" and self.step_size != 1:
            raise ConfigError(f"relax.step_size={self.step_size} with relax.reading=first_step weakens the message at "
                              "each layer: set relax.step_size=1")
        if self.reading == "first_step" and self.acceleration != "none":
            raise ConfigError("relax.reading=first_step leaves nothing to accelerate: set relax.acceleration=none")

    def require_depth(self, depth: int) -> None:
        """Raises ConfigError when a message cannot reach the first of ``depth`` layers."""
        if self.reading == "first_step" and self.max_steps < depth:
            raise ConfigError(f"relax.max_steps={self.max_steps} is too few for relax.reading=first_step: the message "
                              f"reaches the first of {depth} layers at step {depth}, set relax.max_steps={depth}")


@dataclass
class Relaxed:
    """The last step of a relaxation, for layers l = 0..L-1 counting from the input: the variables moved to, what they
    aimed at, the drives, the signals that made those drives, the messages received and sent; with the steps taken, the
    residual and whether it met the tolerance."""

    moved: list[Batch]
    aims: list[Batch]
    drives: list[Drive]
    signals: list[Batch]
    received: list[Batch | None]
    sent: list[Batch]
    steps: int = 0
    residual: float = 0.0
    converged: bool = False


def ascend(
    space: Coordinates, u: Sequence[Batch], inputs: Batch, first: Drive
) -> tuple[list[Drive], list[Batch]]:
    """One pass up: the drives, and the signals that made them. The input's drive, ``first``, never changes."""
    drives, signals = [first], [inputs]
    for l in range(1, len(space.maps)):
        signals.append(space.signal(l - 1, u[l - 1], drives[l - 1]))
        drives.append(space.drive(l, signals[l]))
    return drives, signals


def descend(
    space: Coordinates,
    u: Sequence[Batch],
    drives: list[Drive],
    signals: list[Batch],
    pull: Pull,
    sweeps: bool,
    steps: Sequence[float | Batch],
) -> Relaxed:
    """One pass down: moves every layer by its step and sends its message."""
    top, gain = len(u) - 1, space.energy.feedback_gain
    moved, aims, received, sent = ([cast(Any, None)] * len(u) for _ in range(4))
    for l in range(top, -1, -1):
        if l < top:
            t = space.maps[l + 1].adjoint(sent[l + 1])
            received[l] = t if gain == 1 else gain * t
        elif not pull.clamps:
            received[l] = pull.message(space.state(l, u[l], drives[l]))
        if l == top and pull.clamps:
            aims[l] = moved[l] = space.place(l, pull.targets, drives[l])
        else:
            aims[l], step = space.respond(l, drives[l], received[l]), steps[l]
            moved[l] = aims[l] if isinstance(step, float) and step == 1 else torch.lerp(u[l], aims[l], step)
        sent[l] = space.feedback(l, moved[l] if sweeps else u[l], drives[l])
    return Relaxed(moved, aims, drives, signals, received, sent)


def residual(last: Relaxed, u: list[Batch], start: list[Batch] | None) -> float:
    """The largest over layers of ||aim - u|| / ||moved - start||, with 0/0 = 0, 1 for a layer that has not moved
    but should, and ``start=None`` for zeros; NaN where a state is no number."""
    away = last.moved if start is None else torch._foreach_sub(last.moved, start)
    norms = _norms([*torch._foreach_sub(last.aims, u), *away])
    if not all(map(math.isfinite, norms)):
        return math.nan
    gaps, displacements = norms[: len(u)], norms[len(u) :]
    return max(gap / away if away else float(gap > 0) for gap, away in zip(gaps, displacements))


def _norms(parts: list[Batch]) -> list[float]:
    """Euclidean norms, with one wait for the device; with a second one where a square may be out of range, or is 0."""
    norms = torch.stack(torch._foreach_norm(parts)).tolist()
    if all(SQUARABLE[0] < norm < SQUARABLE[1] for norm in norms):
        return norms
    return torch.stack(torch._foreach_norm(parts, dtype=torch.float64)).tolist()


def diverged(last: Relaxed, step: int, how: Relaxation) -> Diverged:
    """The error that names the layer nearest to the output whose residual is no number, and the step size."""
    depth = len(last.aims)
    sizes = [torch.linalg.vector_norm(aim, dtype=torch.float64) for aim in last.aims]
    layer = next((l for l in reversed(range(depth)) if not sizes[l].isfinite()), 0)
    return Diverged(f"the relaxation diverged at layer {layer + 1} within {step} steps with relax.step_size="
                    f"{how.step_size}: use a smaller relax.step_size, nudge.strength or optim.lr")


def relax(space: Coordinates, pull: Pull, how: Relaxation, max_steps: int) -> Relaxed:
    """Relaxes from the free equilibrium that the coordinates start at. Raises Diverged."""
    start, drives, signals = space.start()
    frozen = how.reading == "frozen"
    if how.reading != "equilibrium":
        pull = pull.held_at(space.state(len(start) - 1, start[-1], drives[-1]))
    sweeps = how.order == "sweep"
    steps = [how.step_size] * (len(start) - 1) + [how.step_size * (pull.step if sweeps else 1)]
    if how.reading == "first_step":
        # A layer is read at the step at which the message arrives: layers below have not moved yet, and layers above
        # have been read already. So these readings, L steps long, are one pass down over the drives of the start.
        last = descend(space, start, drives, signals, pull, True, steps)
        last.steps, last.converged = len(start), True
        return last
    acceleration = Anderson() if how.acceleration == "anderson" else None
    u = start
    for step in range(1, max_steps + 1):
        last = descend(space, u, drives, signals, pull, sweeps, steps)
        # After the first step the displacement is that step itself, and its residual says nothing.
        if step == max_steps or (how.tol and step > 1 and step % how.check_every == 0):
            gap = residual(last, u, None if space.starts_at_zero else start)
            if math.isnan(gap):
                raise diverged(last, step, how)
            if gap <= how.tol or step == max_steps:
                last.steps, last.residual, last.converged = step, gap, gap <= how.tol
                return last
        u = acceleration.propose(u, last.moved) if acceleration else last.moved
        if not frozen:
            drives, signals = ascend(space, u, signals[0], drives[0])
    raise AssertionError("unreachable: the last step returns")


def read(space: Coordinates, last: Relaxed, how: Relaxation) -> tuple[list[Batch], list[Batch]]:
    """The signals and messages that the learning rule multiplies.

    A converged sweep has them at hand, within its tolerance. Otherwise they are taken at the states that were reached,
    so that they are the derivatives of the energy there, not one step before.
    """
    if how.reading == "first_step" or (how.order == "sweep" and last.converged):
        return last.signals, last.sent
    drives, signals = last.drives, last.signals
    if how.reading != "frozen":
        drives, signals = ascend(space, last.moved, signals[0], drives[0])
    return signals, [space.feedback(l, u, drives[l]) for l, u in enumerate(last.moved)]
