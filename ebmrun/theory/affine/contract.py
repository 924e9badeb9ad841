"""The contract of a map, measured on random inputs before a run relies on it."""

from __future__ import annotations

import torch
from torch import Tensor

from ebmrun.theory.affine.abstract import Map


def disagreement(affine: Map) -> str | None:
    """What makes a map unfit for an energy, and the mend; None where nothing does.

    The same input must give the same output, and one example must not change another's (as in BatchNorm, whose energy
    is no sum over examples). Increments must be differences of values, which they are not where a module that is not
    affine is wrapped; adjoint and parameter gradient must be those of autograd.
    """
    like = next(affine.parameters(), torch.empty(()))
    draw = torch.Generator().manual_seed(0)
    x, dx = torch.randn(2, 3, *affine.shape, generator=draw, dtype=torch.float64).to(like)
    message = torch.randn(3, *affine.output_shape, generator=draw, dtype=torch.float64).to(like)

    def differ(found: Tensor, expected: Tensor, scale: Tensor) -> bool:
        tolerance = 100 * torch.finfo(like.dtype).eps ** 0.75
        return not bool((found - expected).abs().max() <= tolerance * scale.abs().max())

    with torch.no_grad():
        value = affine(x)
        if not torch.equal(value, affine(x)):
            return "draws random numbers (as Dropout does), so that a state has no drive of its own: remove that layer"
        size = value - affine(torch.zeros_like(x))
        # A map that cannot take one example at all (BatchNorm over units) couples examples too.
        try:
            alone = torch.cat([affine(x[:1]), affine(x[1:])])
        except ValueError:
            alone = torch.full_like(value, torch.nan)
        if differ(alone, value, size):
            return ("couples the examples of a batch (as BatchNorm does), so that no energy of one example exists: "
                    "remove that layer, or use a map that acts on each example")
        if differ(affine.increment(dx, affine.anchor(affine.trace(x)[1]))[0], affine(x + dx) - value, size):
            return "has a map that is not affine: move its nonlinearity into arch.activation"
    with torch.enable_grad():
        point, parameters = x.requires_grad_(), [p for p in affine.parameters() if p.requires_grad]
        product = (affine(point) * message).sum()
        down, *expected = torch.autograd.grad(product, [point, *parameters], materialize_grads=True)
    with torch.no_grad():
        piece, kind = affine.trace(x)[1], type(affine).__name__
        if differ(affine.adjoint(message, piece), down, down):
            return f"has a map whose adjoint is not the transpose of its linear part: mend {kind}.adjoint"
        found = affine.gradient(message, x, piece) if parameters else []
        if len(found) != len(expected) or any(differ(*pair, pair[1]) for pair in zip(found, expected)):
            return f"has a map whose gradient is not that of its parameters: mend {kind}.gradient"
    return None
