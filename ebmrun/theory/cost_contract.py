"""What a cost promises: a number for each example, of which ``gradient`` is the derivative. Held against autograd on
random outputs before a run relies on it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import Activation
from ebmrun.theory.cost import Cost, Output

EXAMPLES = 16


def require_consistent(cost: Cost, f: Activation, like: Float[Tensor, "classes"]) -> None:
    """Checks a cost on states in the range of the output units f and on one-hot targets, as many as ``like`` has
    entries, in its precision and on its device:

        gradient(x, y) = d value(x, y) / dx,    gradient(x + d, y) - gradient(x, y) = curvature d  where that is not 0

    Raises ConfigError for functions that disagree, with the largest difference; that fail, return other shapes or write
    into their arguments; and for a value that depends on the other examples of the batch.
    """
    who = type(cost).__name__
    draw = torch.Generator().manual_seed(0)
    drives = torch.randn(2, EXAMPLES, len(like), generator=draw, dtype=torch.float64).to(like)
    y = torch.eye(len(like)).to(like)[torch.arange(EXAMPLES) % len(like)]
    x, other = f(drives[0]), f(drives[1])
    try:
        found = _disagreements(cost, x, other, y)
    except ConfigError:
        raise
    except Exception as error:  # whatever a user's functions raise
        raise ConfigError(f"{who} fails on random outputs ({type(error).__name__}: {' '.join(str(error).split())}): "
                          "write value(x, y) and gradient(x, y) in functions of torch") from error
    tolerance = torch.finfo(like.dtype).eps ** 0.5
    for name, gap in found.items():
        if not gap <= tolerance:
            raise ConfigError(f"{who}.{name} by {gap:.2g}: fix it")


def _disagreements(cost: Cost, x: Output, other: Output, y: Output) -> dict[str, float]:
    """The largest differences, relative to the size of the numbers where they exceed 1, by what they contradict."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        value = _asked(cost, "value", (len(x),), x, y)
        slope = torch.autograd.grad(value.sum(), x)[0]
    x = x.detach()
    gradient = _asked(cost, "gradient", x.shape, x, y)
    found = {
        "value depends on the other examples of the batch": _distance(cost.value(x[:1], y[:1]), value[:1].detach()),
        "gradient contradicts the derivative of its value()": _distance(gradient, slope),
    }
    if cost.curvature:
        change = _asked(cost, "gradient", x.shape, other, y) - gradient
        found["curvature contradicts its gradient()"] = _distance(change, cost.curvature * (other - x))
    return found


def _asked(cost: Cost, name: str, shape: tuple[int, ...], *given: Tensor) -> Tensor:
    """The answer of one of a cost's functions, which has to leave its arguments as they are."""
    before = [each.detach().clone() for each in given]
    answer = getattr(cost, name)(*given)
    if not all(torch.equal(*pair) for pair in zip(given, before)):
        raise ConfigError(f"{type(cost).__name__}.{name} writes into its arguments, which others still need: let it "
                          "compute new tensors")
    if not isinstance(answer, Tensor) or answer.shape != shape:
        got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        what = "one number an example" if name == "value" else "one number a unit"
        raise ConfigError(f"{type(cost).__name__}.{name} returns {got} for outputs of shape {tuple(given[0].shape)}: "
                          f"return {what}, of shape {tuple(shape)}")
    return answer


def _distance(a: Tensor, b: Tensor) -> float:
    gap = ((a - b).abs() / (1 + b.abs())).max()
    return float(gap) if gap.isfinite() else float("inf")
