"""Maps: adjoints, increments and parameter gradients against autograd and against exact fractions, values against
torch.nn."""

import math
from fractions import Fraction
from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ebmrun.errors import ConfigError
from ebmrun.theory.affine import AffineMap, AvgPool2d, Chain, Conv2d, Linear, Map, MaxPool2d, Skip, Wrapped

AFFINE = {
    "skip": lambda: Skip((2, 3)),
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
    "chain with a skip": lambda: Chain(Skip((5,)), Linear((5,), 3), Skip((3,))),
    "wrapped linear": lambda: Wrapped((5,), nn.Linear(5, 3)),
    "wrapped conv": lambda: Wrapped((2, 6, 6), nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)),
    "wrapped transposed": lambda: Wrapped((2, 3, 3), nn.ConvTranspose2d(2, 3, 2, stride=2)),
    "wrapped without bias": lambda: Wrapped((5,), nn.Linear(5, 3, bias=False)),
    "wrapped upsample": lambda: Wrapped((1, 3, 3), nn.Upsample(scale_factor=2, mode="bilinear")),
}
MAXIMA = {
    "max of a conv": lambda: MaxPool2d(Conv2d((2, 6, 6), 3, kernel=3, padding=1), 2),
    "max remainder": lambda: MaxPool2d(Conv2d((1, 8, 9), 2, kernel=2), 3),
    "max of a skip": lambda: MaxPool2d(Skip((2, 4, 4)), 2),
    "max of a chain": lambda: MaxPool2d(Chain(Conv2d((1, 6, 6), 2, 3), Conv2d((2, 4, 4), 3, 1)), 2),
    "max of a wrapped conv": lambda: MaxPool2d(Wrapped((2, 4, 4), nn.Conv2d(2, 4, 3, padding=1, groups=2)), 2),
}
MAPS = AFFINE | MAXIMA

each_affine_map = pytest.mark.parametrize("name", AFFINE)
each_map = pytest.mark.parametrize("name", MAPS)


def build(name: str) -> tuple[Map, torch.Tensor, torch.Tensor]:
    """A map with random parameters in float64, an input batch and a message batch."""
    draw = torch.Generator().manual_seed(0)
    affine = MAPS[name]().double()
    with torch.no_grad():
        for parameter in affine.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    x = torch.randn(4, *affine.shape, generator=draw, dtype=torch.float64)
    return affine, x, torch.randn(4, *affine.output_shape, generator=draw, dtype=torch.float64)


@each_affine_map
def test_adjoint_identity(name):
    """<J x, m> = <x, J^T m>, example by example."""
    affine, x, m = build(name)
    left, right = (affine.linear(x) * m).flatten(1).sum(1), (x * affine.adjoint(m)).flatten(1).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@each_map
def test_trace_is_the_value(name):
    affine, x, _ = build(name)
    value, piece = affine.trace(x)
    assert torch.equal(value, affine(x))
    assert (piece is None) == isinstance(affine, AffineMap) == (affine.anchor(piece) is None)


@each_map
@pytest.mark.parametrize("step", [0.0, 3.0])
def test_adjoint_is_that_of_autograd_on_the_piece(name, step):
    """The piece is that of ``trace``, or that of an increment which changes winners."""
    affine, x, m = build(name)
    dx = step * x.flip(0)
    piece = affine.increment(dx, affine.anchor(affine.trace(x)[1]))[1] if step else affine.trace(x)[1]
    point = (x + dx).requires_grad_()
    (expected,) = torch.autograd.grad((affine(point) * m).sum(), point)
    torch.testing.assert_close(affine.adjoint(m, piece), expected, rtol=1e-12, atol=1e-12)


@each_map
@pytest.mark.parametrize("constant", [True, False])
def test_gradient_is_that_of_autograd_on_the_piece(name, constant):
    """d<m, J x + b>/dtheta at the piece of another point z, and d<m, J x>/dtheta without the constant: with the
    function that the map is near z, A(z) + J (x - z), whose dependence on theta autograd knows by J = dA/dz."""
    affine, x, m = build(name)
    z = x.flip(0).requires_grad_()
    value = affine(z)
    (down,) = torch.autograd.grad((value * m).sum(), z, create_graph=True)
    image = (down * x).sum() + constant * ((value * m).sum() - (down * z).sum())
    parameters = list(affine.parameters())
    expected = []
    if parameters:
        expected = torch.autograd.grad(image, parameters, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        found = affine.gradient(m, x, affine.trace(z)[1], constant)
    assert len(found) == len(parameters)
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@each_map
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_an_increment_is_the_difference_of_two_images(name, size):
    affine, x, _ = build(name)
    dx = size * x.flip(0)
    found, piece = affine.increment(dx, affine.anchor(affine.trace(x)[1]))
    torch.testing.assert_close(found, affine(x + dx) - affine(x), rtol=1e-11, atol=1e-12)
    if piece is not None:
        assert torch.equal(piece.places, affine.trace(x + dx)[1].places)
        assert size < 1 or not torch.equal(piece.places, affine.trace(x)[1].places)


@each_map
@pytest.mark.parametrize("size", [1e-12, 1e-200])
def test_a_small_increment_keeps_its_digits(name, size):
    """Within its piece it is J dx to a few units in the last place of |J| |dx|, beside biases and values of about 1."""
    affine, x, _ = build(name)
    dx = size * x.flip(0)
    jacobians = torch.autograd.functional.jacobian(affine, x)  # of shape (4, *outputs, 4, *inputs)
    for n in range(len(x)):
        jacobian = jacobians[n].select(x[n].new_zeros(affine.output_shape).ndim, n).flatten(-len(affine.shape))
        exact, scale = jacobian @ dx[n].flatten(), jacobian.abs() @ dx[n].flatten().abs()
        found = affine.increment(dx[n : n + 1], affine.anchor(affine.trace(x[n : n + 1])[1]))[0][0]
        assert ((found - exact).abs() <= 2e-15 * scale).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_increment_that_changes_the_winner_is_exact(dtype):
    """Inputs are small integers and some epsilons, weights and biases small integers, so that gaps of some epsilons
    between the numbers of a square are exact, and steps are of their size. The reference is computed in fractions."""
    draw = torch.Generator().manual_seed(1)
    affine = MaxPool2d(Conv2d((2, 4, 4), 3, kernel=1), 2).to(dtype)
    epsilon = 2.0 ** -(9 if dtype == torch.float32 else 38)
    with torch.no_grad():
        for parameter in affine.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape, generator=draw))
    x = torch.randint(-1, 2, (5, 2, 4, 4), generator=draw).to(dtype)
    x += epsilon * torch.randint(-8, 9, x.shape, generator=draw).to(dtype)
    dx = (epsilon * torch.randn(x.shape, generator=draw, dtype=torch.float64)).to(dtype)
    found, piece = affine.increment(dx, affine.anchor(affine.trace(x)[1]))
    assert not torch.equal(piece.places, affine.trace(x)[1].places)

    weight = [[Fraction(w) for w in row] for row in affine.inner.weight.flatten(1).tolist()]
    bias = [Fraction(b) for b in affine.inner.bias.tolist()]

    def image(n, c, i, j, moved):
        values = [Fraction(x[n, k, i, j].item()) + moved * Fraction(dx[n, k, i, j].item()) for k in range(2)]
        return sum(w * v for w, v in zip(weight[c], values)) + bias[c]

    for n, c, i, j in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
        square = [(2 * i + p, 2 * j + q) for p in range(2) for q in range(2)]
        before, after = ([image(n, c, *at, moved) for at in square] for moved in (0, 1))
        scale = max(abs(a - b) for a, b in zip(before, after))
        error = abs(Fraction(found[n, c, i, j].item()) - (max(after) - max(before)))
        assert error <= 8 * Fraction(torch.finfo(dtype).eps) * scale
        winner = square[after.index(max(after))]
        assert piece.places[n, c, i, j] == 4 * winner[0] + winner[1]


def test_equal_numbers_of_a_square_have_one_winner():
    """On the kink itself trace and an increment of zero agree, or a free equilibrium would seem to move."""
    affine = MaxPool2d(Skip((1, 4, 4)), 2)
    x = torch.ones(1, 1, 4, 4)
    found, piece = affine.increment(torch.zeros_like(x), affine.anchor(affine.trace(x)[1]))
    assert torch.equal(piece.places, affine.trace(x)[1].places) and not found.any()
    assert affine.adjoint(torch.ones(1, 1, 2, 2), piece).sum() == 4


@each_map
def test_adjoint_carries_derivatives(name):
    """Implicit differentiation goes through the adjoint, in its message and in its parameters."""
    affine, x, m = build(name)
    m, piece = m[:1].requires_grad_(), affine.trace(x[:1])[1]

    def adjoint(m, *parameters):
        named = dict(zip((key for key, _ in affine.named_parameters()), parameters))
        return torch.func.functional_call(Adjoint(affine), {f"affine.{k}": v for k, v in named.items()}, (m, piece))

    parameters = [p.detach().clone().requires_grad_() for p in affine.parameters()]
    assert torch.autograd.gradcheck(adjoint, (m, *parameters), atol=1e-6, fast_mode=True)


class Adjoint(nn.Module):
    def __init__(self, affine: Map) -> None:
        super().__init__()
        self.affine = affine

    def forward(self, m, piece):
        return self.affine.adjoint(m, piece)


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
    maximum, x, _ = build("max remainder")
    image = F.conv2d(x, maximum.inner.weight, maximum.inner.bias)[..., :6, :6].reshape(4, 2, 2, 3, 2, 3)
    torch.testing.assert_close(maximum(x), image.amax((3, 5)))


def test_a_skip_costs_nothing():
    skip, x, m = build("skip")
    assert skip(x) is x and skip.linear(x) is x and skip.adjoint(m) is m


def test_chain_is_the_composition():
    chain, x, _ = build("chain")
    conv, _, linear = chain.maps
    hidden = F.avg_pool2d(F.conv2d(x, conv.weight, conv.bias, padding=1), 2).flatten(1)
    torch.testing.assert_close(chain(x), F.linear(hidden, linear.weight, linear.bias))


@pytest.mark.parametrize(("name", "shape"), [("conv stride padding", (3, 4, 3)), ("conv stride remainder", (2, 2, 3)),
                                             ("pool remainder", (2, 3, 2)), ("linear on images", (3,)),
                                             ("linear", (3,)), ("wrapped transposed", (3, 6, 6)), ("chain", (4,)),
                                             ("max remainder", (2, 2, 2)), ("skip", (2, 3))])
def test_output_shape(name, shape):
    """floor((n + 2 padding - kernel) / stride) + 1 for a convolution, floor(n / size) for a pool."""
    affine, x, _ = build(name)
    assert affine.output_shape == shape == affine(x).shape[1:]


@pytest.mark.parametrize("make", [lambda: Conv2d((1, 3, 8), 2, kernel=5), lambda: AvgPool2d((1, 8, 3), 4),
                                  lambda: MaxPool2d(Skip((1, 8, 3)), 4)])
def test_a_window_larger_than_its_input_is_refused(make):
    with pytest.raises(ConfigError, match="larger than its input.*use a smaller arch.(kernel|pool)"):
        make()


def test_a_padded_kernel_may_exceed_its_input():
    assert Conv2d((1, 3, 3), 1, kernel=5, padding=2).output_shape == (1, 3, 3)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Wrapped((5,), nn.Linear(4, 3)), r"Linear does not take inputs of shape \(5,\): mat1 and mat2"),
    (lambda: Wrapped((2, 2), nn.Flatten(0)), r"Flatten makes \(8,\) of a batch of 2: let it keep the batch axis"),
    (lambda: Chain(Linear((5,), 4), Linear((3,), 2)), r"takes shape \(3,\) from .*\(4,\)"),
    (lambda: Chain(), "a chain needs a map or more"),
])
def test_maps_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ConfigError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_map_twice_in_a_chain_is_refused():
    square = Linear((4,), 4)
    with pytest.raises(ConfigError, match="share parameters"):
        Chain(square, square)


@each_map
def test_the_tangent_is_the_derivative_on_the_piece(name):
    affine, x, _ = build(name)
    dx = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    with torch.no_grad():
        _, piece = affine.trace(x)
        h = 1e-6
        expected = (affine(x + h * dx) - affine(x - h * dx)) / (2 * h)
        torch.testing.assert_close(affine.tangent(dx, piece), expected, rtol=1e-7, atol=1e-7)


def rows(affine: Map) -> torch.Tensor:
    """J as a matrix, column by column."""
    basis = torch.eye(prod(affine.shape), dtype=torch.float64).view(-1, *affine.shape)
    with torch.no_grad():
        return affine.linear(basis).flatten(1).t()


@pytest.mark.parametrize("name", ["skip", "linear", "conv", "conv stride padding", "conv even kernel",
                                  "linear on images", "chain with a skip"])
def test_the_variance_of_outputs(name):
    """sum_j J_ij^2 v_j from the matrix."""
    affine, x, _ = build(name)
    v = x[:1].square()
    expected = (rows(affine).square() @ v.flatten()).view(1, *affine.output_shape)
    torch.testing.assert_close(affine.variance(v), expected)


@pytest.mark.parametrize("name", ["pool", "pool remainder", "chain", "chain learned first"])
def test_the_variance_of_composed_maps_is_bounded(name):
    """From above by what is said, since a mean's variance is at most the mean of variances; and a chain's first map
    may make its second one's inputs depend on each other, by no more than a factor of their number."""
    affine, x, _ = build(name)
    v = x[:1].square()
    exact = (rows(affine).square() @ v.flatten()).view(1, *affine.output_shape)
    if "chain" not in name:
        assert bool((affine.variance(v) >= exact - 1e-12).all())
    else:
        assert bool((affine.variance(v) > exact / prod(affine.shape)).all())


@pytest.mark.parametrize("name", ["wrapped linear", "wrapped conv"])
def test_the_variance_of_any_affine_module_is_estimated(name):
    """Of 64 probes; a square of a sum of random signs deviates by at most sqrt(2) of its mean."""
    affine, x, _ = build(name)
    v = x[:1].square()
    exact = (rows(affine).square() @ v.flatten()).view(1, *affine.output_shape)
    with torch.no_grad():
        assert bool(((affine.variance(v) / exact - 1).abs() < 5 * math.sqrt(2 / 64)).all())


def test_a_mixture_of_winners_is_the_mean_of_both():
    """J of two pieces in shares: adjoint, tangent and gradient are linear in it."""
    affine, x, message = build("max of a conv")
    one = affine.trace(x)[1]
    every = torch.arange(one.places.numel())
    first = affine.alone(one, one.at(every))
    squares = affine.squares(one.image).flatten(4).flatten(0, 3)
    assert torch.equal(first, torch.eye(4)[squares.argmax(1)])
    second = squares.masked_fill(first == 1, -torch.inf).argmax(1)
    mixed = one._replace(ties=every[::2], shares=(0.3 * first + 0.7 * torch.eye(4)[second])[::2])
    other = one._replace(ties=every[::2], shares=torch.eye(4)[second][::2])
    for function in (lambda piece: affine.adjoint(message, piece), lambda piece: affine.tangent(x, piece),
                     lambda piece: affine.gradient(message, x, piece)[0]):
        torch.testing.assert_close(function(mixed), 0.3 * function(one) + 0.7 * function(other))
        torch.testing.assert_close(function(one._replace(ties=every, shares=first)), function(one))
