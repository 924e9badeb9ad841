"""Krylov's numbers against dense matrices."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.linalg import eigh

from ebmrun.theory.lanczos import inverse, largest_eigenvalue, tridiagonal

SIZE = 12


def drawn(seed: int, lift: float = 0.2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A symmetric matrix (positive, unless its lift is negative), a positive metric with its factor, and a vector."""
    draw = torch.Generator().manual_seed(seed)
    root, other = torch.randn(2, SIZE, SIZE, generator=draw, dtype=torch.float64)
    eye = torch.eye(SIZE, dtype=torch.float64)
    return root @ root.T / SIZE + lift * eye, other @ other.T / SIZE + 0.2 * eye, other[0]


def rows_of(h: torch.Tensor, m: torch.Tensor, v: torch.Tensor):
    return tridiagonal(h.mv, torch.linalg.inv(m).mv, v, SIZE)


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_eigenvalue_is_that_of_the_dense_pair(seed):
    h, m, v = drawn(seed)
    exact = eigh(h.numpy(), m.numpy(), eigvals_only=True)
    assert largest_eigenvalue(rows_of(h, m, v), 1e-9) == pytest.approx(exact[-1], rel=1e-9)
    near = largest_eigenvalue(rows_of(h, m, v), 1e-2)
    assert min(abs(exact - near)) <= 1e-2 * near


@pytest.mark.parametrize("seed", range(3))
def test_the_inverse_is_that_of_the_dense_matrix_in_any_metric(seed):
    h, m, v = drawn(seed)
    size = float(v @ torch.linalg.solve(m, v))
    parts = list(inverse(rows_of(h, m, v), size))
    assert min(parts) > 0 and len(parts) == SIZE
    assert math.fsum(parts) == pytest.approx(float(v @ torch.linalg.solve(h, v)), rel=1e-9)


def test_an_eigenvector_takes_one_row():
    h, m = torch.diag(torch.arange(1.0, 5, dtype=torch.float64)), torch.eye(4, dtype=torch.float64)
    assert list(inverse(rows_of(h, m, m[2]), 1.0)) == [1 / 3, 0]
    assert largest_eigenvalue(rows_of(h, m, m[2]), 1e-9) == 3


def test_no_vector_has_no_rows_and_no_work():
    h, m, v = drawn(0)
    assert list(inverse(rows_of(h, m, 0 * v), 0.0)) == [0]


def test_what_is_not_there_is_no_number():
    h, m, v = drawn(0, lift=-1.0)
    assert math.isnan(math.fsum(inverse(rows_of(h, m, v), 1.0)))
    assert math.isnan(largest_eigenvalue(list(rows_of(h, m, v))[:2], 1e-9))
    assert math.isnan(largest_eigenvalue(rows_of(h * math.nan, m, v), 1e-9))
