"""The two gradients that an energy-based one is held against.

    backprop   d/dtheta of the cost of the forward pass
    implicit   d/dtheta of the cost at the free equilibrium, by implicit differentiation

They coincide where the free equilibrium is the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from ebmrun.errors import Diverged
from ebmrun.theory.algorithm import Estimate, Output, Prediction
from ebmrun.theory.coordinates import State
from ebmrun.theory.cost import Cost
from ebmrun.theory.equilibrium import Batch, FreeEquilibrium
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.nudge import Pull
from ebmrun.theory.relaxation import descend
from ebmrun.theory.solver import Relaxed


@dataclass(frozen=True)
class Backprop:
    """Backpropagation by autograd (Rumelhart, Hinton & Williams 1986), as an algorithm and as a reference."""

    cost: Cost

    @torch.no_grad()
    def predict(self, network: Network, x: Batch) -> Prediction:
        """The forward pass."""
        return Prediction(network(x))

    def estimate(self, network: Network, x: Batch, y: Output) -> Estimate:
        """The gradient of the mean cost of the forward pass."""
        with torch.enable_grad():
            output = network(x)
            gradients = torch.autograd.grad(self.cost.value(output, y).mean(), network.weights)
        return Estimate(list(gradients), output.detach())


@dataclass(frozen=True)
class Implicit:
    """Implicit differentiation of the free equilibrium x = Phi(x, theta), Phi being one synchronous step without a
    nudge (Almeida 1987; Pineda 1987):

        (1 - dPhi/dx)^T v = dC/dx,      g = (dPhi/dtheta)^T v

    The linear system is solved by GMRES with products from autograd. ``residual`` of the estimate is the larger of that
    of the equilibrium and that of the linear solve; ``converged`` says whether both met their tolerance, the solve to
    within a factor of ten, since GMRES stops by a residual that it updates and this one is computed anew.
    """

    learning: EnergyLearning
    slack: ClassVar[float] = 10.0  # of the solve, in tolerances

    def predict(self, network: Network, x: Batch) -> Prediction:
        """The output state at the free equilibrium."""
        return self.learning.predict(network, x)

    def estimate(self, network: Network, x: Batch, y: Output) -> Estimate:
        """The gradient of the mean cost at the free equilibrium. Raises Diverged where it has none."""
        free, phase = self._free(network, x)
        states = [state.detach().requires_grad_() for state in free.states]
        with torch.enable_grad():
            image = self._step(network, free, states)
            pull = torch.autograd.grad(self.learning.cost.value(states[-1], y).mean(), states, allow_unused=True,
                                       materialize_grads=True)
            adjoint, residual, converged = self._solve(image, states, pull)
            gradients = torch.autograd.grad(image, network.weights, adjoint, allow_unused=True, materialize_grads=True)
        return Estimate(
            list(gradients),
            free.states[-1],
            phase.steps if phase else None,
            max(residual, phase.residual or 0.0) if phase else residual,
            converged and (phase is None or bool(phase.converged)),
        )

    def _free(self, network: Network, x: Batch) -> tuple[FreeEquilibrium, Relaxed | None]:
        """The free equilibrium to nearly all digits, whatever the relaxation of the run, and how it was reached."""
        how = replace(self.learning.relaxation, frozen=False, order="sweep", step_size=1.0, tol=tightest(x),
                      max_steps=1000, free_steps=None)
        try:
            with torch.no_grad():
                return replace(self.learning, relaxation=how).free_equilibrium(network, x)
        except Diverged as error:  # which names the reference's own step size, that no key of a run sets
            raise Diverged("the implicit reference found no free equilibrium, its relaxation diverged: use "
                           "alignment.reference=backprop, or a smaller energy.feedback_gain or optim.lr") from error

    def _step(self, network: Network, free: FreeEquilibrium, states: Sequence[Batch]) -> list[Batch]:
        """Phi: every state's answer to its drive and to the messages from above."""
        space = State(network, self.learning.energy, free)
        signals = [free.inputs, *states]
        drives = [space.drive(l, signals) for l in range(len(states))]
        pull = Pull(self.learning.cost, states[-1], 0.0)
        return descend(space, states, drives, signals, pull, False, [1.0] * len(states)).answers

    def _solve(
        self, image: Sequence[Batch], states: Sequence[Batch], pull: Sequence[Batch]
    ) -> tuple[list[Batch], float, bool]:
        """v, the relative residual of its system, and whether that met the tolerance."""
        from scipy.sparse.linalg import LinearOperator, gmres  # which few runs need, and all would wait for

        sizes, tolerance = [state.numel() for state in states], self._tolerance(states[-1])

        def flat(parts: Sequence[Batch]) -> np.ndarray:
            return torch.cat([part.reshape(-1) for part in parts]).double().cpu().numpy()

        def parts(vector: np.ndarray) -> list[Batch]:
            pieces = torch.from_numpy(np.ascontiguousarray(vector)).split(sizes)
            return [piece.to(state).view_as(state) for piece, state in zip(pieces, states)]

        def product(vector: np.ndarray) -> np.ndarray:
            return vector - flat(pulled_back(image, states, parts(vector)))

        right = flat(pull)
        operator = LinearOperator((len(right), len(right)), matvec=product, dtype=np.float64)
        solution, _ = gmres(operator, right, rtol=0.9 * tolerance, restart=100, maxiter=10)
        size = float(np.linalg.norm(right))
        residual = float(np.linalg.norm(product(solution) - right)) / size if size else 0.0
        if not np.isfinite(residual):
            raise Diverged("the implicit gradient is no number: the free equilibrium has no finite derivative there, "
                           "use alignment.reference=backprop or a smaller optim.lr")
        return parts(solution), residual, residual <= self.slack * tolerance

    def _tolerance(self, x: Batch) -> float:
        """Of the linear system."""
        return tightest(x)


def tightest(x: Batch) -> float:
    """The smallest tolerance that the digits of these numbers allow for."""
    return float(torch.finfo(x.dtype).eps ** 0.75)


def pulled_back(image: Sequence[Batch], states: Sequence[Batch], v: Sequence[Batch]) -> tuple[Batch, ...]:
    """(dPhi/dx)^T v."""
    return torch.autograd.grad(image, states, v, retain_graph=True, allow_unused=True, materialize_grads=True)
