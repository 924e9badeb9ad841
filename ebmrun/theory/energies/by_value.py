"""An energy of which only the value is written down: autograd and Newton's method derive the rest."""

from __future__ import annotations

from abc import abstractmethod

import torch

from ebmrun.errors import RunError
from ebmrun.theory.activations import Activation
from ebmrun.theory.energies.energy import Batch, Energy


class ByValue(Energy):
    """``value`` has to be elementwise, smooth and strictly convex in x."""

    @abstractmethod
    def value(self, x: Batch, a: Batch, f: Activation) -> Batch:
        """E(x, a): one number a unit, or one an example; whatever follows the batch axis is summed."""

    def respond(self, a: Batch, t: Batch, f: Activation) -> Batch:
        """argmin_x E(x, a) - <x, t> by a safeguarded Newton iteration from f(a). Raises RunError when that does not
        reach stationarity."""
        with torch.enable_grad():
            x = f(a).detach()
            for _ in range(100):
                slope, curvature = self._slope(x, a.detach(), t.detach(), f)
                step = slope / curvature
                if bool((step.abs() <= 4 * torch.finfo(x.dtype).eps * (1 + x.abs())).all()):
                    break
                x = self._descend(x, step, slope, a.detach(), t.detach(), f)
            else:
                raise RunError(f"{type(self).__name__}.respond did not reach its minimum in 100 Newton steps: "
                               "supply respond(a, t, f) in closed form")
            if not (a.requires_grad or t.requires_grad):
                return x
            # One Newton step on the graph carries the derivative of the minimum (implicit function theorem).
            slope = torch.autograd.grad(self.value(x.requires_grad_(), a, f).sum(), x, create_graph=True)[0] - t
            return x.detach() - slope / curvature

    def _slope(self, x: Batch, a: Batch, t: Batch, f: Activation) -> tuple[Batch, Batch]:
        x = x.detach().requires_grad_()
        slope = torch.autograd.grad(self.value(x, a, f).sum(), x, create_graph=True)[0]
        return slope.detach() - t, torch.autograd.grad(slope.sum(), x)[0]

    def _descend(self, x: Batch, step: Batch, slope: Batch, a: Batch, t: Batch, f: Activation) -> Batch:
        """A Newton step, halved in every unit where it does not lessen the slope."""
        scale = torch.ones_like(x)
        for _ in range(50):
            trial = x - scale * step
            worse = ~(self._slope(trial, a, t, f)[0].abs() <= slope.abs())
            if not bool(worse.any()):
                break
            scale = torch.where(worse, scale / 2, scale)
        return trial

    def feedback(self, x: Batch, a: Batch, f: Activation) -> Batch:
        """-dE/da by autograd."""
        return derived_feedback(self, x, a, f)


def derived_feedback(energy: Energy, x: Batch, a: Batch, f: Activation) -> Batch:
    """-dE/da of any energy by autograd of its value."""
    with torch.enable_grad():
        graph = a.requires_grad or x.requires_grad
        a = a if a.requires_grad else a.detach().requires_grad_()
        return -torch.autograd.grad(energy.value(x, a, f).sum(), a, create_graph=graph)[0]
