"""The contract of an energy, measured on random states in float64 before a run relies on it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import Activation
from ebmrun.theory.cost import Cost
from ebmrun.theory.energies.by_value import ByValue, derived_feedback
from ebmrun.theory.energies.differences import ExactDisplacement, ExactError
from ebmrun.theory.energies.energy import Energy

TOLERANCE = 1e-6


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the size of the numbers where they exceed 1."""
    gap = ((a - b).abs() / (1 + b.abs())).max()
    return float(gap) if gap.isfinite() else float("inf")


def _sample(f: Activation) -> tuple[Tensor, Tensor, Tensor]:
    """Drives, messages, and states in the range of the unit: 64 examples of 5 units, away from kinks by chance."""
    draw = torch.Generator().manual_seed(0)
    a, t, b = torch.randn(3, 64, 5, generator=draw, dtype=torch.float64)
    return a, t / 4, f(b)


def disagreements(energy: Energy, f: Activation) -> dict[str, float]:
    """How far the functions of an energy contradict each other, for units f:

    - ``feedback``: from -dE/da by autograd;
    - ``respond``: how much E(x, a) - <x, t> lies below its value at the response, for states x around it;
    - ``error``, ``error_feedback``, ``displacement``, ``displacement_feedback``: from the differences that they stand
      for, where the energy has them;
    - ``feedforward``, where that is declared: the state without a message from f(a), and its feedback from zero.

    Raises ConfigError for a function that writes into its arguments.
    """
    a, t, x = _sample(f)

    def asked(function: Callable[..., Tensor], *given: Tensor) -> Tensor:
        before = [each.clone() for each in given]
        answer = function(*given, f)
        if not all(torch.equal(*pair) for pair in zip(given, before)):
            raise ConfigError(f"{type(energy).__name__}.{function.__name__} writes into its arguments, which others "
                              "still need: let it compute new tensors")
        return answer

    def total(state: Tensor) -> Tensor:
        return asked(energy.value, state, a).flatten(1).sum(1) - (state * t).sum(1)

    with torch.no_grad():
        answer, rest = asked(energy.respond, a, t), asked(energy.respond, a, torch.zeros_like(t))
        found = {"feedback": _distance(asked(energy.feedback, x, a), derived_feedback(energy, x, a, f))}
        below = [0.0]
        for mix in (1.0, 0.1, 1e-2, 1e-3):  # convex mixtures stay in the range of the activation, the simplex included
            gain = total(answer) - total(answer + mix * (x - answer))
            below.append(float((gain / mix).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=0).max()))
        found["respond"] = max(below)
        if isinstance(energy, ExactError):
            found["error"] = _distance(asked(energy.error, a, rest, t), answer - rest)
            found["error_feedback"] = _distance(
                asked(energy.error_feedback, answer - rest, a, rest), asked(energy.feedback, answer, a))
        if isinstance(energy, ExactDisplacement):
            da, dt = 0.3 * t.flip(0), 0.2 * a.flip(0)
            moved = asked(energy.respond, a + da, t + dt)
            found["displacement"] = _distance(asked(energy.displacement, answer, a, t, da, dt), moved - answer)
            found["displacement_feedback"] = _distance(
                asked(energy.displacement_feedback, answer, a, moved - answer, da),
                asked(energy.feedback, moved, a + da) - asked(energy.feedback, answer, a))
        if energy.feedforward:
            found["feedforward"] = max(_distance(rest, f(a)), _distance(asked(energy.feedback, rest, a), 0 * rest))
    return found


def require_consistent(energy: Energy, activations: dict[str, Activation]) -> None:
    """Raises ConfigError for an energy whose functions cannot be evaluated, that couples units where it leaves
    ``respond`` to be derived, or whose functions disagree, for any of the units; then with the first that does, as the
    later ones are held against ``feedback`` and ``respond``."""
    who = type(energy).__name__
    for name, f in activations.items():
        try:
            if isinstance(energy, ByValue) and not is_unitwise(energy, f):
                raise ConfigError(f"{who}.value couples the units of a layer, for which its minimum cannot be derived: "
                                  "supply respond(a, t, f), or sum over units one by one")
            found = disagreements(energy, f)
        except ConfigError:
            raise
        except Exception as error:  # whatever a user's functions raise
            raise ConfigError(f"{who} fails on random states of {name} units ({type(error).__name__}: "
                              f"{' '.join(str(error).split())}): mend it so that value(x, a, f) returns a number for "
                              "each unit or example, smooth and strictly convex in x") from error
        wrong = next((function for function, gap in found.items() if not gap <= TOLERANCE), None)
        if wrong:
            mend = ("declare feedforward = False" if wrong == "feedforward" else
                    "mend it, or let ByValue derive it from value()")
            raise ConfigError(f"{who}.{wrong} contradicts its value() by {found[wrong]:.2g} for {name} units: {mend}")


def is_unitwise(energy: Energy, f: Activation) -> bool:
    """Whether dE/dx of each unit depends on the state of that unit alone, and on no other example's."""
    a, _, x = _sample(f)
    x = x.requires_grad_()
    with torch.enable_grad():
        slope = torch.autograd.grad(energy.value(x, a, f).sum(), x, create_graph=True)[0]
        row = torch.autograd.grad(slope[0, 0], x, allow_unused=True, materialize_grads=True)[0]
    row[0, 0] = 0
    return not bool(row.any())


def require_clampable(energy: Energy, cost: Cost, output: str) -> None:
    """Clamping follows a cost only if the feedback that it adds at the output is that cost's gradient:

        feedback(y, a) - feedback(f(a), a) = -f'(a) dcost/dx at x = f(a)

    Raises ConfigError where they differ, with the largest difference.
    """
    f = cost.output
    a, _, _ = _sample(f)
    y = torch.eye(5, dtype=a.dtype)[torch.arange(len(a)) % 5]
    with torch.no_grad():
        x = f(a)
        clamped = energy.feedback(y, a, f) - energy.feedback(x, a, f)
        gap = _distance(clamped, -f.pullback(x, cost.gradient(x, y)))
    if not gap <= TOLERANCE:
        name = type(cost).__name__
        raise ConfigError(
            f"clamping arch.output={output} under {type(energy).__name__} does not follow cost {name} (they differ by "
            f"{gap:.2g}): match them; the predictive energy goes with squared_error, the others with squared_error on "
            "identity or cross_entropy on softmax outputs; or use nudge=one_sided or centered, with nudge.holds=false")
