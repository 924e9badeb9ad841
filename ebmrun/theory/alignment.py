"""How close a gradient is to a reference: overall and per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MEASURES = ("cosine", "angle", "norm_ratio", "relative_error")


def _measures(gg: float, rr: float, dd: float) -> dict[str, float]:
    """From ||g||^2, ||r||^2 and ||g - r||^2. The cosine comes from 1 - cos = (dd - (|g| - |r|)^2) / (2 |g| |r|), which
    does not lose the small angles that <g, r> / (|g| |r|) rounds away."""
    g, r = math.sqrt(gg), math.sqrt(rr)
    if g == 0 or r == 0:
        same = float(g == r)  # two zeros are the same; one zero has no direction in common with anything else
        return {
            "cosine": same,
            "angle": 0.0 if same else 90.0,
            "norm_ratio": 1.0 if same else 0.0,
            "relative_error": 0.0 if same else 1.0,
        }
    versine = min(max((dd - (g - r) ** 2) / (2 * g * r), 0.0), 2.0)  # its range, which round-off may leave
    return {
        "cosine": 1 - versine,
        "angle": math.degrees(2 * math.asin(math.sqrt(versine / 2))),
        "norm_ratio": g / r,
        "relative_error": math.sqrt(dd) / r,
    }


def alignment(
    gradient: Sequence[Sequence[Tensor]],
    reference: Sequence[Sequence[Tensor]],
    prefix: str = "alignment",
    names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Measures of a gradient g against a reference r, both grouped by layer, with norms in float64:

        cosine <g, r> / (|g| |r|) in [-1, 1],  angle arccos(cosine) in degrees,
        norm_ratio |g| / |r|,  relative_error |g - r| / |r|

    under ``prefix/cosine`` and so on, and for each layer under ``prefix/cosine/NAME``, by default layer1, layer2...
    The largest relative error of a layer is ``prefix/relative_error/worst``, and the number of that layer
    ``prefix/relative_error/worst_layer``: the error over all layers is mostly that of the layer with the largest
    gradient.

    Two zero gradients agree fully (1, 0, 1, 0). If one alone is zero, the cosine is 0, the angle 90, the ratio 0 and
    the relative error 1; these stand for the undefined values where it is the reference that is zero.
    """
    device = next(t.device for layer in gradient for t in layer)
    zero = torch.zeros((), dtype=torch.float64, device=device)

    def norms(layer: Sequence[Tensor]) -> Tensor:
        return torch.stack([zero, *(torch.linalg.vector_norm(t, dtype=torch.float64) for t in layer)])

    squares = torch.stack([
        torch.stack([norms(g), norms(r), norms([a - b for a, b in zip(g, r)])]).square().sum(1)
        for g, r in zip(gradient, reference)
    ]).tolist()  # waits for the device once
    totals = [math.fsum(column) for column in zip(*squares)]
    found = {f"{prefix}/{key}": value for key, value in _measures(*totals).items()}
    layers = [_measures(*row) for row in squares]
    worst = max(range(len(layers)), key=lambda l: layers[l]["relative_error"])
    found |= {f"{prefix}/relative_error/worst": layers[worst]["relative_error"],
              f"{prefix}/relative_error/worst_layer": worst + 1}
    for name, measures in zip(names or [f"layer{l}" for l in range(1, len(layers) + 1)], layers):
        found |= {f"{prefix}/{key}/{name}": value for key, value in measures.items()}
    return found


def columns(names: Sequence[str], prefix: str = "alignment") -> list[str]:
    """The keys of ``alignment`` for layers of these names."""
    whole = [f"{prefix}/{key}" for key in (*MEASURES, "relative_error/worst", "relative_error/worst_layer")]
    return whole + [f"{prefix}/{key}/{name}" for name in names for key in MEASURES]
