"""The levels that bits leave."""

import math

import pytest
import torch

from ebmrun.theory.grid import Grid


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("span", [0.5, 1.0, 3.0])
def test_rounding_is_idempotent_and_half_a_step_off_at_most(bits: int, span: float):
    grid, x = Grid(span, bits), torch.linspace(-2 * span, 2 * span, 4001, dtype=torch.float64)
    near = grid.nearest(x)
    assert torch.equal(grid.nearest(near), near)
    inside = x.abs() <= span
    assert (near - x)[inside].abs().max() <= grid.step / 2 * (1 + 1e-12)
    assert near.unique().numel() == 2**bits - 1 and 0 in near
    torch.testing.assert_close(near[~inside].abs(), torch.full_like(x[~inside], span))  # saturated


def test_complex_numbers_are_rounded_part_by_part():
    z = torch.complex(torch.tensor([0.3, -0.8]), torch.tensor([0.9, 0.1]))
    assert torch.equal(Grid(1.0, 2).nearest(z), torch.complex(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 0.0])))


def test_random_rounding_keeps_the_mean_and_takes_a_level_next_to_the_number():
    grid, n = Grid(1.0, 3), 100_000
    draws = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for x in (0.1, -0.4, 0.9):
        found = grid.stochastic(torch.full((n,), x, dtype=torch.float64), draws)
        assert set((found / grid.step).round().int().tolist()) <= {math.floor(x / grid.step), math.ceil(x / grid.step)}
        assert abs(float(found.mean()) - x) < 4.5 * grid.step / 2 / math.sqrt(n)


def test_without_bits_numbers_stay():
    x = torch.tensor([0.123, 7.0])
    assert torch.equal(Grid(1.0, None).nearest(x), x) and torch.equal(Grid(1.0, None).stochastic(x, x), x)
