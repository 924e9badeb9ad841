"""Affine maps: the adjoint identity, the linear part, and parameter gradients, each against autograd."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ebmrun.errors import ConfigError
from ebmrun.theory.affine import AffineMap, AvgPool2d, Chain, Conv2d, Linear

MAPS = {
    "linear": lambda: Linear((5,), 3),
    "conv": lambda: Conv2d((2, 6, 7), 3, kernel=3),
    "conv stride padding": lambda: Conv2d((2, 7, 6), 3, kernel=3, stride=2, padding=1),
    "conv stride remainder": lambda: Conv2d((1, 8, 9), 2, kernel=3, stride=3),
    "conv even kernel": lambda: Conv2d((2, 5, 5), 2, kernel=4, stride=2, padding=2),
    "pool": lambda: AvgPool2d((2, 6, 4), 2),
    "pool remainder": lambda: AvgPool2d((2, 7, 5), 2),
    "linear on images": lambda: Linear((2, 3, 4), 3),
    "chain": lambda: Chain(Conv2d((1, 7, 7), 2, 3, padding=1), AvgPool2d((2, 7, 7), 2), Linear((2, 3, 3), 4)),
    "chain without parameters": lambda: Chain(AvgPool2d((1, 4, 4), 2), AvgPool2d((1, 2, 2), 2)),
    "chain learned first": lambda: Chain(Linear((5,), 4), Linear((4,), 3)),
    "generic linear": lambda: AffineMap((5,), nn.Linear(5, 3)),
    "generic conv": lambda: AffineMap((2, 6, 6), nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)),
    "generic transposed": lambda: AffineMap((2, 3, 3), nn.ConvTranspose2d(2, 3, 2, stride=2)),
    "generic without bias": lambda: AffineMap((5,), nn.Linear(5, 3, bias=False)),
    "generic upsample": lambda: AffineMap((1, 3, 3), nn.Upsample(scale_factor=2, mode="bilinear")),
}


def build(name: str) -> tuple[AffineMap, torch.Tensor, torch.Tensor]:
    """A map with random parameters in float64, an input batch and a message batch."""
    draw = torch.Generator().manual_seed(0)
    affine = MAPS[name]().double()
    with torch.no_grad():
        for parameter in affine.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    x = torch.randn(4, *affine.shape, generator=draw, dtype=torch.float64)
    return affine, x, torch.randn(4, *affine.output_shape, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("name", MAPS)
def test_adjoint_identity(name):
    """<A x, m> = <x, A^T m> for the linear part A, example by example."""
    affine, x, m = build(name)
    left, right = (affine.linear(x) * m).flatten(1).sum(1), (x * affine.adjoint(m)).flatten(1).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_linear_is_the_difference_of_two_images(name):
    affine, x, _ = build(name)
    dx = x.flip(0) * 3
    torch.testing.assert_close(affine.linear(dx), affine(x + dx) - affine(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("constant", [True, False])
def test_gradient_is_that_of_autograd(name, constant):
    """d<m, A(x)>/dtheta; without the constant part, d<m, A(x) - A(0)>/dtheta."""
    affine, x, m = build(name)
    image = affine(x) if constant else affine(x) - affine(torch.zeros_like(x))
    parameters = list(affine.parameters())
    expected = []
    if parameters:
        expected = torch.autograd.grad((image * m).sum(), parameters, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        found = affine.gradient(m, x, constant)
    assert len(found) == len(parameters)
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", MAPS)
def test_adjoint_carries_derivatives(name):
    """Implicit differentiation goes through the adjoint, in its message and in its parameters."""
    affine, _, m = build(name)
    m = m[:1].requires_grad_()

    def adjoint(m, *parameters):
        named = dict(zip((key for key, _ in affine.named_parameters()), parameters))
        return torch.func.functional_call(Adjoint(affine), {f"affine.{k}": v for k, v in named.items()}, (m,))

    parameters = [p.detach().clone().requires_grad_() for p in affine.parameters()]
    assert torch.autograd.gradcheck(adjoint, (m, *parameters), atol=1e-6)


class Adjoint(nn.Module):
    def __init__(self, affine: AffineMap) -> None:
        super().__init__()
        self.affine = affine

    def forward(self, m):
        return self.affine.adjoint(m)


def test_forward_of_the_maps_with_a_closed_form():
    linear, x, _ = build("linear")
    torch.testing.assert_close(linear(x), torch.stack([linear.weight @ row + linear.bias for row in x]))
    conv, x, _ = build("conv stride padding")
    like = nn.Conv2d(2, 3, 3, stride=2, padding=1).double()
    like.load_state_dict({"weight": conv.weight, "bias": conv.bias})
    torch.testing.assert_close(conv(x), like(x), rtol=0, atol=0)
    pool, x, _ = build("pool remainder")
    blocks = x[:, :, :6, :4].reshape(4, 2, 3, 2, 2, 2)  # the last row and the last column are the remainder
    torch.testing.assert_close(pool(x), blocks.mean((3, 5)))
    images, x, _ = build("linear on images")
    torch.testing.assert_close(images(x), torch.einsum("oi,ni->no", images.weight, x.reshape(4, 24)) + images.bias)


def test_chain_is_the_composition():
    chain, x, _ = build("chain")
    conv, _, linear = chain.maps
    hidden = F.avg_pool2d(F.conv2d(x, conv.weight, conv.bias, padding=1), 2).flatten(1)
    torch.testing.assert_close(chain(x), F.linear(hidden, linear.weight, linear.bias))


@pytest.mark.parametrize(("name", "shape"), [("conv stride padding", (3, 4, 3)), ("conv stride remainder", (2, 2, 3)),
                                             ("pool remainder", (2, 3, 2)), ("linear on images", (3,)),
                                             ("linear", (3,)), ("generic transposed", (3, 6, 6))])
def test_output_shape(name, shape):
    """floor((n + 2 padding - kernel) / stride) + 1 for a convolution, floor(n / size) for a pool."""
    assert MAPS[name]().output_shape == shape


@pytest.mark.parametrize("make", [lambda: Conv2d((1, 3, 8), 2, kernel=5), lambda: AvgPool2d((1, 8, 3), 4)])
def test_a_window_larger_than_its_input_is_refused(make):
    with pytest.raises(ConfigError, match="larger than its input.*use a smaller one"):
        make()


def test_a_padded_kernel_may_exceed_its_input():
    assert Conv2d((1, 3, 3), 1, kernel=5, padding=2).output_shape == (1, 3, 3)
