"""How the state that answers a drive and a message changes with them, to first order, and the energy to second.

    tangent(energy, x, a, rest, da, dt, f)  =  dx,   <dx, E_xx dx + E_xa da> + <da, E_ax dx + E_aa da>  unit by unit

at x = respond(a, t), along da and dt; with None for the dt of a clamped state, which does not change, or for the da of
a drive that does not. Terms in the distance of x from rest = respond(a, 0) may be left out (Gauss-Newton). By autograd
of the value, but for energies with a form of their own below.
"""

from __future__ import annotations

from functools import singledispatch

import torch

from ebmrun.theory.activations import Activation
from ebmrun.theory.energies.energy import Batch, Energy
from ebmrun.theory.energies.hopfield import Hopfield
from ebmrun.theory.energies.lifted import Lifted
from ebmrun.theory.energies.predictive import Predictive

Tangent = tuple[Batch, Batch]


@singledispatch
def tangent(
    energy: Energy, x: Batch, a: Batch, rest: Batch, da: Batch | None, dt: Batch | None, f: Activation
) -> Tangent:
    """dx, and what the energy bends by."""
    da = torch.zeros_like(a) if da is None else da
    with torch.enable_grad():
        x, a = x.detach().requires_grad_(), a.detach().requires_grad_()
        by_x, by_a = torch.autograd.grad(energy.value(x, a, f).sum(), (x, a), create_graph=True)
        xx = torch.autograd.grad(by_x.sum(), x, retain_graph=True, materialize_grads=True)[0]
        xa, aa = torch.autograd.grad((by_a * da).sum(), (x, a), materialize_grads=True)  # E_xa da, E_aa da
    dx = torch.zeros_like(x) if dt is None else (dt - xa) / xx
    return dx, dx * (xx * dx + 2 * xa) + aa * da


@tangent.register
def _(
    energy: Predictive, x: Batch, a: Batch, rest: Batch, da: Batch | None, dt: Batch | None, f: Activation
) -> Tangent:
    predicted = None if da is None else f.pullback(rest, da)
    if dt is None:
        return torch.zeros_like(x), torch.zeros_like(x) if predicted is None else predicted.square()
    return dt if predicted is None else predicted + dt, dt.square()


@tangent.register
def _(
    energy: Lifted, x: Batch, a: Batch, rest: Batch, da: Batch | None, dt: Batch | None, f: Activation
) -> Tangent:
    bent = torch.zeros_like(x) if da is None else da * f.pullback(rest, da)
    if dt is None:
        return torch.zeros_like(x), bent
    dx = f.pullback(x, dt if da is None else da + dt)
    return dx, dx * (dt if da is None else dt - da) + bent


@tangent.register
def _(
    energy: Hopfield, x: Batch, a: Batch, rest: Batch, da: Batch | None, dt: Batch | None, f: Activation
) -> Tangent:
    if dt is None:
        return torch.zeros_like(x), torch.zeros_like(x)
    dx = f.pullback(x, dt if da is None else da + dt)
    return dx, dx * (dt if da is None else dt - da)
