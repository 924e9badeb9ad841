"""What a few products tell of a symmetric matrix H in a metric M (Lanczos 1950; Golub & Meurant 1994).

H M^-1 is self-adjoint in <u, v> = u^T M^-1 v. In the basis that grows from v by one product a row it is tridiagonal, T,

    largest_eigenvalue    of M^-1 H, that of T
    inverse               v^T H^-1 v = <v, v> (T^-1)_11, by the pivots of T
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

Flat = Float[Tensor, " variables"]
Operator = Callable[[Flat], Flat]
Row = tuple[float, float]  # the diagonal of T, and what is right of it


def tridiagonal(bend: Operator, answer: Operator, v: Flat, most: int) -> Iterator[Row]:
    """T, for H = ``bend`` and M^-1 = ``answer``: so many rows at most, fewer where they hold all there is."""
    before, way = torch.zeros_like(v), answer(v)
    norm = math.sqrt(max(float(v @ way), 0))
    for _ in range(most):
        if not norm > 0:
            return
        v, way = v / norm, way / norm
        image = bend(way) - norm * before
        a = float(image @ way)
        if not math.isfinite(a):
            return
        before, v = v, image - a * v
        way = answer(v)
        norm = math.sqrt(max(float(v @ way), 0))
        yield a, norm


def largest_eigenvalue(rows: Iterable[Row], tolerance: float) -> float:
    """The first within a relative tolerance of an eigenvalue; NaN where the rows end before."""
    from scipy.linalg import eigh_tridiagonal  # which few runs need, and all would wait for

    diagonal: list[float] = []
    beside: list[float] = []
    for k, (a, b) in enumerate(rows):
        diagonal.append(a)
        (value,), vectors = eigh_tridiagonal(diagonal, beside, select="i", select_range=(k, k))
        if b * abs(vectors[-1, 0]) <= tolerance * value:
            return float(value)
        beside.append(b)
    return math.nan


def inverse(rows: Iterable[Row], size: float) -> Iterator[float]:
    """Parts that add up to v^T H^-1 v, for <v, v> = ``size``; NaN where H is not positive."""
    term, carried = size, 0.0
    for a, b in rows:
        pivot = a - carried
        if pivot <= 0:
            yield math.nan
            return
        yield term / pivot
        carried = b * b / pivot
        term *= carried / pivot
    if term == 0:
        yield 0.0
