"""Random numbers that are a function of key, count and place."""

import math

import pytest
import torch

from ebmrun.theory.draws import GOLDEN, Draws, mixed


def keys(count: int, first: int = 0) -> torch.Tensor:
    return torch.arange(first, first + count)[:, None]


def test_bits_are_mixed_as_by_splitmix64():
    """The first three numbers of seed 1234567, as its authors' own code gives them."""
    state = torch.tensor([1234567]) + torch.arange(1, 4) * GOLDEN
    assert [bits % 2**64 for bits in mixed(state).tolist()] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_an_examples_numbers_do_not_depend_on_its_batch():
    whole, part = Draws(keys(7)), Draws(keys(3, first=2))
    for shape in ((5,), (2, 3)):
        for draw in ("normal", "uniform"):
            many, few = (getattr(each, draw)(torch.zeros(n, *shape)) for each, n in ((whole, 7), (part, 3)))
            assert torch.equal(many[2:5], few)
    stacked = Draws(keys(7)).normal(torch.zeros(14, 4))  # two nodes on copies of the batch
    assert torch.equal(stacked[[2, 3, 4, 9, 10, 11]], Draws(keys(3, first=2)).normal(torch.zeros(6, 4)))


def test_normal_numbers_have_the_moments_of_theirs():
    n = 400_000
    z = Draws(keys(n // 100)).normal(torch.zeros(n // 100, 100, dtype=torch.float64)).flatten()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # var z^p = E z^2p - (E z^p)^2
        assert abs(float((z**power).mean()) - moment) < 4.5 * math.sqrt(variance / n)
    assert abs(float((z.abs() < 1).double().mean()) - math.erf(1 / math.sqrt(2))) < 4.5 * math.sqrt(0.22 / n)


def test_uniform_numbers_fill_their_interval():
    u = Draws(keys(1000)).uniform(torch.zeros(1000, 100))
    assert u.min() >= 0 and u.max() < 1
    assert torch.histc(u, 10, 0, 1).sub(10_000).abs().max() < 4.5 * math.sqrt(9000)


@pytest.mark.parametrize("other", ["next draw", "next key", "next place", "other copy", "imaginary part"])
def test_numbers_of_another_draw_key_place_or_part_are_others(other: str):
    rows, draws = 2000, Draws(keys(2000))
    x = draws.normal(torch.zeros(2 * rows, 50, dtype=torch.complex128 if other.startswith("im") else torch.float64))
    first, second = {
        "next draw": lambda: (x, draws.normal(x)), "next key": lambda: (x[:-1], x[1:]),
        "next place": lambda: (x[:, :-1], x[:, 1:]), "other copy": lambda: x.chunk(2),
        "imaginary part": lambda: (x.real, x.imag),
    }[other]()
    assert abs(float((first * second).mean())) < 4.5 / math.sqrt(first.numel())
    for part in (first, second):  # the square of a normal number has the variance 2
        assert abs(float(part.square().mean()) - 1) < 4.5 * math.sqrt(2 / part.numel())
