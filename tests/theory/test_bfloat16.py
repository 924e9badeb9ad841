"""Maps with products in bfloat16, against whole numbers that its 8 bits hold exactly.

A number k (1 + 2^-10) with a small whole k is rounded to k. Products of such operands are then sums of whole numbers,
exact in whatever order they are added, and those below 256 need no second rounding; any other operand gives fractions.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ebmrun.errors import ConfigError
from ebmrun.theory.affine import AffineMap, AvgPool2d, Chain, Conv2d, Linear, Map, MaxPool2d, Skip, Wrapped
from ebmrun.theory.affine.bfloat16 import in_bfloat16

OFF = 1 + 2.0**-10  # which bfloat16 does not see
MAPS: dict[str, Callable[[], Map]] = {
    "linear": lambda: Linear((5,), 3),
    "linear on images": lambda: Linear((2, 3, 4), 3),
    "conv": lambda: Conv2d((2, 6, 7), 3, kernel=3),
    "conv stride padding": lambda: Conv2d((2, 7, 6), 3, kernel=3, stride=2, padding=1),
    "conv stride remainder": lambda: Conv2d((1, 8, 9), 2, kernel=3, stride=3),
    "chain": lambda: Chain(Conv2d((2, 6, 6), 3, kernel=3), AvgPool2d((3, 4, 4), 2)),
    "max of a conv": lambda: MaxPool2d(Conv2d((2, 6, 6), 3, kernel=3, padding=1), 2),
    "wrapped linear": lambda: Wrapped((5,), nn.Linear(5, 3)),
    "wrapped conv": lambda: Wrapped((2, 6, 6), nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)),
}
OWN = [name for name in MAPS if not name.startswith("wrapped")]  # whose biases are no operands
each_map = pytest.mark.parametrize("name", MAPS)


def whole(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).double()


def build(name: str) -> tuple[Map, Map, Tensor, Tensor]:
    """A map whose weights are whole numbers, in float64; the same in bfloat16 of weights that are slightly off; and
    whole inputs and messages. Biases are whole."""
    exact = MAPS[name]().double()
    off = MAPS[name]()
    with torch.no_grad():
        for seed, (p, q) in enumerate(zip(exact.parameters(), off.parameters())):
            p.copy_(whole(tuple(p.shape), seed))
            q.copy_(p * OFF if p.ndim > 1 else p)
        x, message = whole((4, *exact.shape), 10), whole((4, *exact.output_shape), 11)
        return exact, in_bfloat16(off), x, message


def slightly_off(x: Tensor) -> Tensor:
    return (x * OFF).float()


@torch.no_grad()
@each_map
def test_products_are_those_of_rounded_operands(name: str) -> None:
    exact, low, x, message = build(name)
    value, piece = low.trace(slightly_off(x))
    assert value.dtype == torch.float32 and torch.equal(value.double(), exact(x))
    assert torch.equal(low(slightly_off(x)), value)
    assert torch.equal(low.tangent(slightly_off(x), piece).double(), exact.tangent(x, exact.trace(x)[1]))
    down = low.adjoint(slightly_off(message) if name != "chain" else message.float(), piece)
    assert down.dtype == torch.float32
    assert torch.equal(down.double(), exact.adjoint(message, exact.trace(x)[1]))


@each_map
def test_gradients_are_those_of_rounded_operands(name: str) -> None:
    """The sum over the batch, of which a bias needs no product: its messages keep their digits."""
    exact, low, x, message = build(name)
    piece = exact.trace(x)[1]
    sent = slightly_off(message) if name != "chain" else message.float()  # which takes a fourth of each
    for constant in (True, False):
        found = low.gradient(sent, slightly_off(x), piece, constant)
        expected = exact.gradient(message, x, piece, constant)
        assert [each.dtype for each in found] == [torch.float32] * len(expected)
        weight, bias = found
        assert torch.equal(weight.double(), expected[0])
        factor = OFF if constant and name in OWN and name != "chain" else 1
        torch.testing.assert_close(bias.double(), factor * expected[1], rtol=1e-6, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", OWN)
def test_a_bias_keeps_its_digits(name: str) -> None:
    """Of numbers that are exact in float32, by one digit less than is lost in bfloat16."""
    exact, low, x, _ = build(name)
    before = low(x.float())
    biases = [(p, q) for p, q in zip(exact.parameters(), low.parameters()) if p.ndim == 1]
    for p, q in biases:
        p.add_(2.0**-10)
        q.add_(2.0**-10)
    assert torch.equal(in_bfloat16(original(low))(x.float()).double(), exact(x))
    assert biases and not torch.equal(exact(x), before.double())


def original(low: Map) -> Map:
    """What a map in bfloat16 was made of."""
    if isinstance(low, MaxPool2d):
        inner = original(low.inner)
        assert isinstance(inner, AffineMap)
        return MaxPool2d(inner, low.size)
    if isinstance(low, Chain):
        return Chain(*(each if isinstance(each, AvgPool2d) else original(each) for each in low.maps))
    return low.whole


@torch.no_grad()
def test_winners_are_told_apart_by_all_digits() -> None:
    """Two places tie at 200; what one of them gains, 2^-10, bfloat16 does not see beside them."""
    affine = Conv2d((1, 2, 2), 1, kernel=1)
    affine.weight.fill_(1)
    affine.bias.zero_()
    pool = in_bfloat16(MaxPool2d(affine, 2))
    x = torch.tensor([[[[200.0, 3.0], [200.0, 7.0]]]])
    dx = torch.tensor([[[[0.0, 0.0], [2.0**-10, 0.0]]]])
    gain, piece = pool.increment(dx, pool.anchor(pool.trace(x)[1]))
    assert gain.item() == 2.0**-10 and piece.places.item() == 2


@torch.no_grad()
def test_a_displacement_keeps_its_range() -> None:
    """It may be as small as in float32, where half precision has no number."""
    exact, low, x, _ = build("linear")
    assert torch.equal(low.increment(2.0**-100 * x.float())[0].double(), 2.0**-100 * exact.increment(x)[0])


@pytest.mark.parametrize("name", MAPS)
def test_autograd_rounds_the_operands_of_its_products_too(name: str) -> None:
    """And gives gradients to the parameters of the map that was rounded."""
    exact, _, x, message = build(name)
    off = MAPS[name]()
    with torch.no_grad():
        for p, q in zip(exact.parameters(), off.parameters()):
            q.copy_(p * OFF if p.ndim > 1 else p)
    sent = slightly_off(message) if name != "chain" else message.float()
    point, parameters = slightly_off(x).requires_grad_(), list(off.parameters())
    down, weight, _ = torch.autograd.grad(in_bfloat16(off)(point), [point, *parameters], sent)
    piece = exact.trace(x)[1]
    assert torch.equal(down.double(), exact.adjoint(message, piece))
    assert torch.equal(weight.double(), exact.gradient(message, x, piece)[0])


def test_maps_without_products_stay_what_they_are() -> None:
    for affine in (Skip((3,)), AvgPool2d((1, 4, 4), 2)):
        assert in_bfloat16(affine) is affine


class Mine(AffineMap):
    """A map of a user's own, of which nothing is known."""

    def forward(self, x):
        return 2 * x

    linear = forward

    def adjoint(self, message, piece=None):
        return 2 * message

    def gradient(self, message, x, piece=None, constant=True):
        return []


@pytest.mark.parametrize("affine", [Mine((4,), (4,)), Chain(Mine((4,), (4,)), Linear((4,), 2)),
                                    MaxPool2d(Mine((1, 4, 4), (1, 4, 4)), 2)])
def test_a_map_whose_products_are_not_known_is_refused(affine: Map) -> None:
    with pytest.raises(ConfigError, match="precision=bf16 does not know the products of Mine, a map of your own: use "):
        in_bfloat16(affine)
