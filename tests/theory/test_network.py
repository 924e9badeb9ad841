"""Networks as graphs of layers against torch, their first weights, and what is refused."""

import copy
import math

import pytest
import torch
from torch import nn

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import ACTIVATIONS, activation
from ebmrun.theory.affine import AffineMap, AvgPool2d, Chain, Conv2d, Linear, MaxPool2d, Skip, Wrapped
from ebmrun.theory.architectures import cnn, mlp
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.network import Layer, Network
from ebmrun.theory.network_contract import require_affine, require_owned

TANH, IDENTITY, SOFTMAX = activation("tanh"), activation("identity"), activation("softmax")


def chain(*widths: int) -> list[Layer]:
    """Dense layers of tanh units, the last without."""
    layers = [Layer([(l, Linear(pair, widths[l + 1]))], TANH) for l, pair in enumerate(zip(widths[:-1]))]
    layers[-1].activation = IDENTITY
    return layers


def diamond() -> Network:
    """Input 5; layers 6 (from the input), 4 (from 1), 4 (from 1 and the input), 4 (from 3), 3 (from 2, 4 and 1)."""
    return Network([
        Layer([(0, Linear((5,), 6))], TANH, "stem"),
        Layer([(1, Linear((6,), 4))], activation("relu"), "short"),
        Layer([(1, Linear((6,), 4)), (0, Linear((5,), 4))], activation("sigmoid")),
        Layer([(3, Skip((4,)))], activation("softplus"), "long"),
        Layer([(2, Linear((4,), 3)), (4, Linear((4,), 3)), (1, Linear((6,), 3))], IDENTITY),
    ])


def test_forward_adds_the_edges_of_each_layer():
    network = initialise(diamond().double(), seed=1)
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b, c, d, e, f, g = (affine for edges in network.edges for _, affine in edges if not isinstance(affine, Skip))

    def image(affine, x):
        return x @ affine.weight.T + affine.bias

    stem = torch.tanh(image(a, x))
    short, middle = torch.relu(image(b, stem)), torch.sigmoid(image(c, stem) + image(d, x))
    long = nn.functional.softplus(middle)
    torch.testing.assert_close(network(x), image(e, short) + image(f, long) + image(g, stem))


def test_heights_are_the_longest_ways_to_the_output():
    assert diamond().heights == [3, 1, 2, 1, 0]
    assert Network(chain(4, 3, 3, 2)).heights == [2, 1, 0]


def test_names_and_depth():
    network = diamond()
    assert network.names == ["stem", "short", "layer3", "long", "layer5"] and network.depth == 5
    assert network.output is IDENTITY and [source for source, _ in network.edges[4]] == [2, 4, 1]
    assert list(network.named_activations) == ["tanh", "relu", "sigmoid", "softplus", "identity"]
    assert all(network.named_activations[name] is ACTIVATIONS[name] for name in network.named_activations)


def test_a_copy_moves_by_itself():
    """Edges are plain lists: after a copy and a change of type they must be those of the copy."""
    network = initialise(diamond(), 0)
    other = copy.deepcopy(network).double()
    with torch.no_grad():
        other.edges[0][0][1].weight.fill_(0)
    assert other.layers[0].maps[0] is other.edges[0][0][1] and not other.weights[0].any()
    assert network.weights[0].any() and network(torch.zeros(1, 5)).dtype == torch.float32
    assert other(torch.zeros(1, 5, dtype=torch.float64)).dtype == torch.float64


def test_first_weights_are_uniform_with_a_bound_by_fan_in():
    """Uniform in +-b with b^2 = gain^2 / fan_in: all within, both ends nearly reached, variance b^2 / 3; biases with
    b^2 = 1 / fan_in. A map's own gain multiplies both."""
    def drawn(affine, gain):
        weight, bias = initialise(Network([Layer([(0, affine)], IDENTITY)], gain), seed=0).parameters()
        return weight, bias

    for own in (1.0, 0.1):
        weight, bias = drawn(Linear((400,), 300, own), 2.0)
        bound = own / math.sqrt(400)
        assert 2 * bound * 0.999 < weight.abs().max() <= 2 * bound
        assert weight.var().item() == pytest.approx((2 * bound) ** 2 / 3, rel=0.02)
        assert 0.9 * bound < bias.abs().max() <= bound
        kernel, _ = drawn(Conv2d((1, 9, 8), 500, 3, gain=own), 1.0)
        assert 0.99 * own / 3 < kernel.abs().max() <= own / 3  # fan_in = 1 * 3 * 3


def test_each_layer_has_its_gain():
    """A gain multiplies weights, in every edge of its layer, and no bias."""
    gains = [1.0, 2.0, 4.0, 8.0, 0.5]
    plain, scaled = initialise(diamond(), 3), initialise(Network(list(diamond().layers), gains), 3)
    for gain, before, after in zip(gains, plain.layers, scaled.layers):
        for (key, weight), other in zip(before.named_parameters(), after.parameters()):
            torch.testing.assert_close(other, weight * (gain if key.endswith("weight") else 1.0))


def test_the_same_seed_gives_the_same_numbers_in_every_precision():
    single, double = (initialise(diamond().to(d), seed=5) for d in (torch.float32, torch.float64))
    for a, b in zip(single.parameters(), double.parameters()):
        assert torch.equal(a, b.float())


def test_initialise_neither_reads_nor_moves_the_global_generator():
    torch.manual_seed(1)
    first = initialise(diamond(), seed=5)
    state = torch.get_rng_state()
    second = initialise(diamond(), seed=5)
    other = initialise(diamond(), seed=6)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))


def test_by_layer_groups_in_the_order_of_parameters():
    network = diamond()
    grouped = network.by_layer(network.weights)
    assert [len(group) for group in grouped] == [2, 2, 4, 0, 6]
    assert all(a is b for layer, group in zip(network.layers, grouped) for a, b in zip(layer.parameters(), group))
    in_order = [p for edges in network.edges for _, affine in edges for p in affine.parameters()]
    assert all(a is b for a, b in zip(in_order, network.weights, strict=True))


def layers(*modules: nn.Module, shape: tuple[int, ...] = (4,)) -> Network:
    first = Linear((4,), 4) if shape == (4,) else AvgPool2d(shape, 1)
    wrapped = [Layer([(l, Wrapped(shape, module))], IDENTITY) for l, module in enumerate(modules, 1)]
    return Network([Layer([(0, first)], TANH), *wrapped])


class Quadratic(nn.Module):
    def forward(self, x):
        return x + x**2


class Centred(nn.Module):
    """Subtracts the mean over the batch: linear, and yet it couples examples."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class Diagonal(AffineMap):
    """a = w x, which may be told to get one of its functions wrong."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__((4,), (4,))
        self.weight, self.wrong = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, -4.0])), wrong

    def forward(self, x):
        return self.weight * x

    def linear(self, dx):
        return self.weight * dx * (2 if self.wrong == "linear" else 1)

    def adjoint(self, message, piece=None):
        return self.weight * (message.flip(1) if self.wrong == "adjoint" else message)

    def gradient(self, message, x, piece=None, constant=True):
        return [] if self.wrong == "none" else [(message * (message if self.wrong == "gradient" else x)).sum(0)]


def own(wrong: str) -> Network:
    return Network([Layer([(0, Linear((4,), 4))], TANH), Layer([(1, Diagonal(wrong)), (0, Skip((4,)))], TANH, "mine")])


@pytest.mark.parametrize(("network", "message"), [
    (layers(nn.BatchNorm1d(4)), "layer2 couples the examples of a batch.*remove that layer"),
    (layers(nn.BatchNorm2d(2), shape=(2, 3, 3)), "layer2 couples the examples of a batch"),
    (layers(nn.Linear(4, 4), Centred()), "layer3 couples the examples of a batch"),
    (layers(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1))), "layer2 draws random numbers .as Dropout does.*remove"),
    (layers(Quadratic()), "layer2 has a map that is not affine.*arch.activation"),
    (layers(nn.LayerNorm(4)), "layer2 has a map that is not affine"),
    (layers(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), "layer2 has a map that is not affine"),
    (Network([Layer([(0, MaxPool2d(Wrapped((1, 4, 4), Quadratic()), 2))], TANH)]), "layer1 .* is not affine"),
    (own("linear"), "mine has a map that is not affine"),
    (own("adjoint"), "mine has a map whose adjoint is not the transpose of its linear part: mend Diagonal.adjoint"),
    (own("gradient"), "mine has a map whose gradient is not that of its parameters: mend Diagonal.gradient"),
    (own("none"), "mine has a map whose gradient is not that of its parameters: mend Diagonal.gradient"),
], ids=["BatchNorm1d", "BatchNorm2d", "batch mean", "Dropout", "quadratic", "LayerNorm", "hidden ReLU",
        "max of quadratic", "wrong linear", "wrong adjoint", "wrong gradient", "no gradient"])
def test_maps_that_no_energy_of_one_example_describes_are_refused(network, message):
    initialise(network, seed=0)
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ConfigError, match=message):
            require_affine(network.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_and_piecewise_affine_maps_pass(dtype):
    require_affine(initialise(diamond().to(dtype), seed=0))
    require_affine(initialise(layers(nn.Linear(4, 4), nn.Identity()).to(dtype), seed=0))
    require_affine(initialise(own("").to(dtype), seed=0))
    image = Conv2d((2, 9, 9), 3, 3)
    pooling = Network([Layer([(0, MaxPool2d(image, 2))], TANH), Layer([(1, AvgPool2d((3, 3, 3), 3))], TANH),
                       Layer([(2, Chain(Skip((3, 1, 1)), Linear((3, 1, 1), 2))), (0, Linear((2, 9, 9), 2))], TANH)])
    require_affine(initialise(pooling.to(dtype), seed=0))
    require_affine(Network(chain(784, 500, 10)).to(dtype).requires_grad_(False).apply(_large))


def test_a_parameter_that_several_maps_share_is_named():
    once = Linear((4,), 4)
    twice = Network([Layer([(0, once)], TANH), Layer([(1, once)], TANH)])
    with pytest.raises(ConfigError, match="layers.1.maps.0.weight .* the same parameter as layers.0.maps.0.weight"):
        require_owned(twice)
    two_edges = Network([Layer([(0, Linear((4,), 4))], TANH), Layer([(1, once), (0, once)], TANH)])
    with pytest.raises(ConfigError, match="layers.1.maps.1.weight .* the same parameter as layers.1.maps.0.weight"):
        require_owned(two_edges)
    with pytest.raises(ConfigError, match="two maps of a chain share parameters"):
        Chain(once, once)
    bias = Network(chain(4, 4, 4, 4))
    bias.layers[2].maps[0].bias = bias.layers[0].maps[0].bias
    with pytest.raises(ConfigError, match="layers.2.maps.0.bias .* the same parameter as layers.0.maps.0.bias"):
        require_owned(bias)


def test_a_parameter_of_no_map_is_named():
    network = Network(chain(4, 4))
    network.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(ConfigError, match="scale of the network is a parameter of no layer's map"):
        require_owned(network)


def test_a_parameter_that_may_not_move_is_named():
    network = Network([Layer([(0, Linear((4,), 4))], TANH), Layer([(1, Linear((4,), 4))], TANH)])
    network.edges[1][0][1].bias.requires_grad_(False)
    with pytest.raises(ConfigError, match="layers.1.maps.0.bias of the network has requires_grad=False.*buffer"):
        require_owned(network)


def test_parameters_of_one_map_each_pass():
    require_owned(mlp((1, 9, 8), 10, [7, 5], "tanh", "identity"))
    require_owned(cnn((1, 9, 8), 10, [3, 4], 3, 1, 2, [7], "relu", "identity"))
    inner = nn.Linear(4, 4)  # shared within one map, whose gradient is that of its parameters as they are
    require_owned(Network([Layer([(0, Wrapped((4,), nn.Sequential(inner, inner)))], TANH)]))


def _large(module: nn.Module) -> None:
    """Weights of a size at which only a relative tolerance is right."""
    if isinstance(module, Linear):
        with torch.no_grad():
            module.weight.fill_(1e3)
            module.bias.fill_(1e3)


shared = Linear((4,), 4)


@pytest.mark.parametrize(("make", "message"), [
    (list, "a network has no layer"),
    (lambda: [Layer([], TANH)], "layer1 has no edge: give it one"),
    (lambda: [Layer([(1, Linear((4,), 4))], TANH)], r"layer1 is layer 1 and has an edge from 1: use 0 .* to 0"),
    (lambda: [*chain(4, 4, 3), Layer([(-1, Linear((4,), 3))], TANH)], "layer3 is layer 3 and has an edge from -1"),
    (lambda: [*chain(4, 5), Layer([(1, Linear((4,), 3))], TANH)],
     r"layer2 takes shape \(4,\), but layer1 makes \(5,\): use one shape"),
    (lambda: [*chain(4, 5), Layer([(1, Linear((5,), 3)), (0, Linear((5,), 3))], TANH)],
     r"layer2 takes shape \(5,\), but the input has \(4,\): use one shape"),
    (lambda: [*chain(4, 5), Layer([(1, Linear((5,), 3)), (0, Linear((4,), 2))], TANH)],
     r"layer2 adds shapes \(3,\) and \(2,\): use one shape"),
    (lambda: [*chain(4, 5, 4), Layer([(1, Linear((5,), 3))], TANH)], "layer2 is not the source of any layer above it"),
    (lambda: [Layer([(0, Linear((4,), 4))], f) for f in (TANH, TANH)], "layer1 is not the source of any layer"),
    (lambda: [Layer([(0, Linear((4,), 4))], SOFTMAX, "first"), Layer([(1, Linear((4,), 4))], TANH)],
     "first has softmax units.*at the output"),
    (lambda: [Layer([(0, Linear((4,), 4))], TANH, "same"), Layer([(1, Linear((4,), 4))], TANH, "same")],
     "2 layers have the name same: use each name once"),
    (lambda: [Layer([(0, Linear((4,), 4))], TANH, "layer2"), Layer([(1, Linear((4,), 4))], TANH)],
     "2 layers have the name layer2"),
])
def test_what_is_no_graph_is_refused(make, message):
    with pytest.raises(ConfigError, match=message) as error:
        Network(make())
    assert "\n" not in str(error.value)


def test_one_skip_may_serve_twice():
    skip = Skip((4,))
    network = Network([Layer([(0, skip)], TANH), Layer([(1, skip), (0, skip)], TANH)])
    x = torch.randn(3, 4)
    torch.testing.assert_close(network(x), torch.tanh(torch.tanh(x) + x))


@pytest.mark.parametrize(("gain", "message"), [
    (0.0, "arch.gain=0.0 must be a positive number"), (-1, "arch.gain=-1 must"), (True, "arch.gain=True must"),
    (math.inf, "arch.gain=inf must"), (math.nan, "arch.gain=nan must"), ("large", "arch.gain=large must"),
    (None, "arch.gain=None must"), ([1.0, 0.0], r"arch.gain=\[1.0, 0.0\] must be a positive number"),
    ([1.0], r"arch.gain=\[1.0\] and the network's layers have different lengths \(1 and 2\): use one number"),
])
@pytest.mark.usefixtures("untyped")
def test_bad_gain(gain, message):
    with pytest.raises(ConfigError, match=message):
        Network(chain(4, 4, 3), gain)
