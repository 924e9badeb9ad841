"""In which regime a relaxation is: which step is stable, how much is left to do, and whether one sweep does it all.

At the states x that it has reached, with the nudged energy's gradient g and Hessian H over them, and the metric
M_l = gamma^-h_l E_xx of layer l, in which a small step towards the answers is -M^-1 g,

    largest_eigenvalue     mu of M^-1 H: synchronous steps of size s (Euler's, of gradient flow) settle for s < 2 / mu
    stable_step            2 / mu
    work_done              W / (W + g^T H^-1 g / 2), W = F(start) - F(x): where F is quadratic, as in a linear network,
                           the share of the way from the start's energy down to the equilibrium's
    cosine_to_one_sweep    between the gradient by weights and that of one sweep from the free equilibrium, which is
                           backprop, exactly, where that equilibrium is the forward pass

The start is the free equilibrium, with a clamped output at its target. All is measured in float64 by a few products
with H (``lanczos``), over all examples and nodes. A unit on a kink has one of its slopes in H, in g the balanced one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch

from ebmrun.theory.algorithm import Output
from ebmrun.theory.alignment import alignment
from ebmrun.theory.coordinates import Coordinates
from ebmrun.theory.energies.tangent import tangent
from ebmrun.theory.equilibrium import Batch
from ebmrun.theory.lanczos import Flat, inverse, largest_eigenvalue, tridiagonal
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxation import Step, ascend, descend
from ebmrun.theory.solver import read, relax

KEYS = ("probe/largest_eigenvalue", "probe/stable_step", "probe/work_done", "probe/cosine_to_one_sweep")
PRODUCTS = 200  # with H at most, for mu and for the work
NEAR, TOLERANCE = 1e-2, 1e-3  # relative: how near to an eigenvalue mu is, and what the share may be off by


@torch.no_grad()
def probe(learning: EnergyLearning, network: Network, x: Batch, y: Output) -> dict[str, float]:
    """The numbers of one batch, under ``KEYS``; those without a meaning are left out: all where nothing relaxes or
    nodes are complex, joint or of a drawn sign; all but the cosine where feedback is untied, so that
    there is no energy; the work where the energy is not convex. What misses its tolerance is left out, too. Raises
    Diverged."""
    nudge = learning.nudge
    if (learning.relaxation.frozen or network.depth == nudge.clamps or nudge.random_sign or nudge.points > 1
            or nudge.joint):
        return {}
    how = learning.relaxation  # of states, in which float64 leaves a weak nudge no more digits than this
    how = replace(how, coordinates="state", tol=how.tol and max(how.tol, 1e-6))
    learning, network = replace(learning, relaxation=how), deepcopy(network).double().requires_grad_(False)
    free, phase = learning.free_equilibrium(network, x.double())
    space, pull = learning.around(network, free, y.double())
    how = phase.how if phase else how
    nudged = relax(space, pull, how, how.max_steps)
    once = replace(how, order="sweep", acceleration="none", step_size=1.0, tol=0.0, frozen=learning.energy.feedforward)
    gradient, swept = (learning.learning_rule(space, read(space, pull, way, how))
                       for way, how in ((nudged, how), (relax(space, pull, once, 1), once)))
    cosine = {KEYS[3]: alignment([gradient], [swept])["alignment/cosine"]}
    if not network.tied:  # there is no energy, nor a Hessian that is symmetric
        return cosine
    # Steps of more than all the way leave the range of a unit, where there is no energy; answers do not.
    reached = nudged.last.answers if nudged.how.step_size > 1 else nudged.last.moved
    start = [*space.free.states[:-1], pull.targets if pull.clamps else space.free.states[-1]]
    here, before = (Curved(space, pull, states, nudged.last) for states in (reached, start))
    mu, share = here.largest_eigenvalue(), here.work_done(before.energy)
    return {key: value for key, value in zip(KEYS, (mu, 2 / mu, share)) if math.isfinite(value)} | cosine


class Curved:
    """The nudged energy around the states x that a ``last`` step has led to, summed over batch and nodes."""

    def __init__(self, space: Coordinates, pull: Pull, states: list[Batch], last: Step) -> None:
        self.energy_of, self.activations = space.energy, space.activations
        self.gains = space.energy.layer_gains(space.network.heights)
        with torch.enable_grad():
            states = [state.detach().requires_grad_() for state in states]
            self.drives, signals = ascend(space, states, space.start()[1])
            self.parts = [gain * space.energy.value(x, drive.a, f).sum()
                          for gain, x, drive, f in zip(self.gains, states, self.drives, space.activations)]
            added = (pull.cost.value(states[-1], pull.targets)[:, None] * pull.strength).sum()
            whole = self.parts if pull.clamps else [*self.parts, added]
            energy = torch.stack(whole).sum()
        self.energy, self.moving = float(energy), states[: len(states) - pull.clamps]
        self.slopes = torch.autograd.grad(energy, self.moving, create_graph=True)
        before = last if last.held else None
        self.messages = descend(space, states, self.drives, signals, pull, False, [1.0] * len(states), before).messages

    def largest_eigenvalue(self) -> float:
        """mu, from any start; NaN where that is not found."""
        draw = torch.Generator().manual_seed(0)
        start = flat([torch.randn(x.shape, generator=draw, dtype=x.dtype).to(x.device) for x in self.moving])
        return largest_eigenvalue(tridiagonal(self.bend, self.answer, start, PRODUCTS), NEAR)

    def work_done(self, start: float) -> float:
        """The share, from the energy at the start; NaN where H is not positive, or float64 too short."""
        work, push, left, added = start - self.energy, self.push(), 0.0, math.inf
        rows = tridiagonal(self.bend, self.answer, push, PRODUCTS)
        for added in inverse(rows, float(push @ self.answer(push))):
            left += added / 2
            if added / 2 <= TOLERANCE * (work + left):
                break
        error = max(added / 2, torch.finfo(push.dtype).eps * abs(start))
        return work / (work + left) if error < TOLERANCE * (work + left) else math.nan

    def push(self) -> Flat:
        """-g: gamma^-h_l (t_l - E_x), with kinks in balance."""
        return flat([gain * t - torch.autograd.grad(part, x, retain_graph=True)[0]
                     for gain, t, part, x in zip(self.gains, self.messages, self.parts, self.moving) if t is not None])

    def answer(self, v: Flat) -> Flat:
        """M^-1 v: how states answer more of their messages."""
        layers = zip(self.moving, self.drives, self.by_layer(v), self.activations, self.gains)
        return flat([tangent(self.energy_of, x, drive.a, x, None, dt, f)[0] / gain
                     for x, drive, dt, f, gain in layers])

    def bend(self, v: Flat) -> Flat:
        """H v."""
        return flat(torch.autograd.grad(self.slopes, self.moving, self.by_layer(v), True, materialize_grads=True))

    def by_layer(self, v: Flat) -> list[Batch]:
        return [part.view_as(x) for part, x in zip(v.split([x.numel() for x in self.moving]), self.moving)]


def flat(parts: Sequence[Batch]) -> Flat:
    return torch.cat([part.flatten() for part in parts])
