"""Networks against torch.nn, their first weights, and what is refused."""

import math

import pytest
import torch
from torch import nn

from ebmrun.errors import ConfigError
from ebmrun.theory.affine import AffineMap, AvgPool2d, Linear
from ebmrun.theory.network import Layer, Network, cnn, initialise, mlp, require_affine
from ebmrun.theory.units import unit

MLP = {"hidden": [7, 6], "activation": "tanh", "output": "identity"}
CNN = {"channels": [3, 4], "kernel": 3, "stride": 1, "pool": 2, "hidden": [5], "activation": "sigmoid",
       "output": "softmax"}


def images(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(6, 1, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def copy_parameters(source: nn.Module, target: nn.Module) -> None:
    for ours, theirs in zip(source.parameters(), target.parameters(), strict=True):
        theirs.data.copy_(ours.data)


def test_mlp_is_torch_nn():
    network = initialise(mlp((1, 9, 8), 10, **MLP).double(), seed=3)
    like = nn.Sequential(nn.Flatten(), nn.Linear(72, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 10))
    copy_parameters(network, like.double())
    torch.testing.assert_close(network(images()), like(images()))


def test_mlp_without_hidden_layers_is_one_affine_map():
    network = initialise(mlp((4,), 3, hidden=[], activation="relu", output="sigmoid").double(), seed=0)
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 4)
    weight, bias = network.parameters()
    torch.testing.assert_close(network(x), torch.sigmoid(x @ weight.T + bias))


def test_cnn_is_torch_nn():
    network = initialise(cnn((1, 9, 8), 10, **CNN).double(), seed=3)
    like = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.AvgPool2d(2), nn.Sigmoid(),
        nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(16, 5), nn.Sigmoid(), nn.Linear(5, 10), nn.Softmax(1)).double()
    copy_parameters(network, like)
    torch.testing.assert_close(network(images()), like(images()))


def test_cnn_with_stride_and_without_pooling_or_hidden_layers():
    network = cnn((1, 9, 8), 10, **CNN | {"stride": 2, "pool": 1, "hidden": [], "kernel": 5})
    like = nn.Sequential(
        nn.Conv2d(1, 3, 5, stride=2, padding=2), nn.Sigmoid(), nn.Conv2d(3, 4, 5, stride=2, padding=2), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(24, 10), nn.Softmax(1)).double()
    initialise(network.double(), seed=0)
    copy_parameters(network, like)
    torch.testing.assert_close(network(images()), like(images()))


def test_first_weights_are_uniform_with_the_variance_of_lecun():
    """Uniform in +-b with b^2 = 1 / fan_in: all within, both ends nearly reached, variance b^2 / 3."""
    network = initialise(mlp((400,), 300, hidden=[], activation="relu", output="identity"), seed=0)
    weight, bias = network.parameters()
    bound = 1 / math.sqrt(400)
    assert bound * 0.999 < weight.abs().max() <= bound
    assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.02)
    assert 0.9 * bound < bias.abs().max() <= bound
    kernel = next(initialise(cnn((1, 9, 8), 10, **CNN | {"channels": [500]}), seed=0).parameters())
    assert 0.99 / 3 < kernel.abs().max() <= 1 / 3  # fan_in = 1 * 3 * 3


def test_the_same_seed_gives_the_same_numbers_in_every_precision():
    single, double = (initialise(cnn((1, 9, 8), 10, **CNN).to(d), seed=5) for d in (torch.float32, torch.float64))
    for a, b in zip(single.parameters(), double.parameters()):
        assert torch.equal(a, b.float())


def test_initialise_neither_reads_nor_moves_the_global_generator():
    torch.manual_seed(1)
    first = initialise(mlp((4,), 3, **MLP), seed=5)
    state = torch.get_rng_state()
    second = initialise(mlp((4,), 3, **MLP), seed=5)
    other = initialise(mlp((4,), 3, **MLP), seed=6)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))


def test_by_layer_groups_in_the_order_of_parameters():
    network = cnn((1, 9, 8), 10, **CNN)
    grouped = network.by_layer(list(network.parameters()))
    assert [len(group) for group in grouped] == [2, 2, 2, 2]
    assert all(a is b for layer, group in zip(network.layers, grouped) for a, b in zip(layer.parameters(), group))
    pool, flat = AvgPool2d((1, 4, 4), 2), AffineMap((1, 2, 2), nn.Flatten())
    pooled = Network([Layer(pool, unit("identity")), Layer(flat, unit("tanh"))])
    assert pooled.by_layer([]) == [[], []]


def layers(*modules: nn.Module, shape: tuple[int, ...] = (4,)) -> Network:
    return Network([Layer(Linear((4,), 4), unit("tanh")) if shape == (4,) else Layer(AvgPool2d(shape, 1), unit("tanh")),
                    *(Layer(AffineMap(shape, module), unit("identity")) for module in modules)])


class Quadratic(nn.Module):
    def forward(self, x):
        return x + x**2


class Centred(nn.Module):
    """Subtracts the mean over the batch: linear, and yet it couples examples."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


@pytest.mark.parametrize(("network", "message"), [
    (layers(nn.BatchNorm1d(4)), "layer 2 couples the examples of a batch.*remove that layer"),
    (layers(nn.BatchNorm2d(2), shape=(2, 3, 3)), "layer 2 couples the examples of a batch"),
    (layers(nn.Linear(4, 4), Centred()), "layer 3 couples the examples of a batch"),
    (layers(Quadratic()), "layer 2 has a map that is not affine.*arch.activation"),
    (layers(nn.LayerNorm(4)), "layer 2 has a map that is not affine"),
    (layers(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), "layer 2 has a map that is not affine"),
], ids=["BatchNorm1d", "BatchNorm2d", "batch mean", "quadratic", "LayerNorm", "hidden ReLU"])
def test_layers_that_no_energy_of_one_example_describes_are_refused(network, message):
    initialise(network, seed=0)
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ConfigError, match=message):
            require_affine(network.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_layers_pass(dtype):
    require_affine(initialise(mlp((1, 9, 8), 10, **MLP).to(dtype), seed=0))
    require_affine(initialise(cnn((1, 9, 8), 10, **CNN).to(dtype), seed=0))
    require_affine(initialise(layers(nn.Linear(4, 4), nn.Identity()).to(dtype), seed=0))
    require_affine(mlp((784,), 10, [500], "relu", "identity").to(dtype).requires_grad_(False).apply(_large))


def _large(module: nn.Module) -> None:
    """Weights of a size at which only a relative tolerance is right."""
    if isinstance(module, Linear):
        with torch.no_grad():
            module.weight.fill_(1e3)
            module.bias.fill_(1e3)


def test_softmax_inside_is_refused():
    with pytest.raises(ConfigError, match="layer 2 has softmax units.*at the output"):
        Network([Layer(Linear((4,), 4), unit(name)) for name in ("tanh", "softmax", "tanh")])
    with pytest.raises(ConfigError, match="layer 1 has softmax units"):
        mlp((4,), 3, hidden=[5], activation="softmax", output="identity")


@pytest.mark.parametrize(("change", "message"), [
    ({"hidden": [0]}, r"arch.hidden=\[0\] holds 0.*1 or more"),
    ({"hidden": [8, -3]}, r"arch.hidden=\[8, -3\] holds -3"),
    ({"hidden": [2.5]}, r"arch.hidden=\[2.5\] holds 2.5.*integer"),
    ({"hidden": [True]}, "arch.hidden.*integer"),
    ({"hidden": 8}, r"arch.hidden=8 must be a list.*\[8\]"),
    ({"hidden": None}, r"arch.hidden=None must be a list"),
    ({"hidden": "8"}, r"arch.hidden=8 must be a list"),
    ({"activation": "swish"}, "activation 'swish' is unknown: choose one of"),
    ({"output": "linear"}, "activation 'linear' is unknown: choose one of"),
])
@pytest.mark.usefixtures("untyped")
def test_bad_mlp(change, message):
    with pytest.raises(ConfigError, match=message):
        mlp((4,), 3, **MLP | change)


@pytest.mark.parametrize(("change", "message"), [
    ({"channels": []}, "arch.channels=.* has no convolution.*arch=mlp"),
    ({"channels": [4, 0]}, "arch.channels=.* holds 0"),
    ({"channels": 4}, r"arch.channels=4 must be a list"),
    ({"kernel": 0}, r"arch.kernel=\[0\] holds 0: every entry must be an integer of 1 or more"),
    ({"kernel": 2.0}, r"arch.kernel=\[2.0\] holds 2.0: every entry must be an integer of 1 or more"),
    ({"stride": -1}, r"arch.stride=\[-1\] holds -1: every entry must be an integer of 1 or more"),
    ({"pool": 0}, r"arch.pool=\[0\] holds 0: every entry must be an integer of 1 or more"),
    ({"pool": 9}, r"pool of 9 is larger than its input \(3, 9, 8\).*use a smaller one"),
    ({"channels": [2] * 5}, r"pool of 2 is larger than its input \(2, 1, 1\)"),
    ({"hidden": [0]}, "arch.hidden=.* holds 0"),
    ({"activation": "softmax"}, "layer 1 has softmax units"),
])
@pytest.mark.usefixtures("untyped")
def test_bad_cnn(change, message):
    with pytest.raises(ConfigError, match=message):
        cnn((1, 9, 8), 10, **CNN | change)


def test_cnn_needs_images():
    with pytest.raises(ConfigError, match=r"inputs of shape \(64,\) are no images"):
        cnn((64,), 10, **CNN)
