"""Architectures against torch.nn and against plain loops, the size of signals in deep ones, and what is refused."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F

from ebmrun.errors import ConfigError
from ebmrun.theory.affine import Skip, Wrapped
from ebmrun.theory.architectures import cnn, mlp, resmlp, resnet
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.network import Network
from ebmrun.theory.network_contract import require_affine

ROOT = Path(__file__).resolve().parents[2]
MLP = {"hidden": [7, 6], "activation": "tanh", "output": "identity"}
CNN = {"channels": [3, 4], "kernel": 3, "stride": 1, "pool": 2, "hidden": [5], "activation": "sigmoid",
       "output": "softmax"}
RESMLP = {"width": 6, "depth": 6, "activation": "tanh", "stream": "identity", "output": "identity"}
RESNET = {"channels": [3, 5], "blocks": 2, "kernel": 3, "activation": "tanh", "stream": "identity",
          "output": "identity"}


def images() -> torch.Tensor:
    return torch.randn(6, 1, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def agree(network: Network, like: nn.Sequential) -> None:
    """The same function of images for the same parameters, in the same order."""
    initialise(network.double(), seed=3)
    like.double()
    for ours, theirs in zip(network.parameters(), like.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    torch.testing.assert_close(network(images()), like(images()))


def test_mlp_is_torch_nn():
    agree(mlp((1, 9, 8), 10, **MLP), nn.Sequential(
        nn.Flatten(), nn.Linear(72, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 10)))
    agree(mlp((1, 9, 8), 3, [], "relu", "sigmoid"), nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.Sigmoid()))


@pytest.mark.parametrize(("pooling", "module"), [("avg", nn.AvgPool2d), ("max", nn.MaxPool2d)])
def test_cnn_is_torch_nn(pooling, module):
    agree(cnn((1, 9, 8), 10, **CNN, pooling=pooling), nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), module(2), nn.Sigmoid(),
        nn.Conv2d(3, 4, 3, padding=1), module(2), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(16, 5), nn.Sigmoid(), nn.Linear(5, 10), nn.Softmax(1)))


def test_cnn_with_stride_and_without_pooling_or_hidden_layers():
    agree(cnn((1, 9, 8), 10, **CNN | {"stride": 2, "pool": 1, "hidden": [], "kernel": 5}), nn.Sequential(
        nn.Conv2d(1, 3, 5, stride=2, padding=2), nn.Sigmoid(), nn.Conv2d(3, 4, 5, stride=2, padding=2), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(24, 10), nn.Softmax(1)))


def test_each_convolution_may_have_a_window_of_its_own():
    window = {"kernel": [3, 2], "stride": [1, 2], "padding": [0, 1], "pool": [2, 1], "hidden": []}
    agree(cnn((1, 9, 8), 10, **CNN | window), nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.AvgPool2d(2), nn.Sigmoid(), nn.Conv2d(3, 4, 2, stride=2, padding=1), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(16, 10), nn.Softmax(1)))


def test_resmlp_is_a_plain_loop():
    network = initialise(resmlp((1, 9, 8), 10, **RESMLP).double(), seed=0)
    pairs = list(zip(*[iter(network.parameters())] * 2, strict=True))
    s = F.linear(images().flatten(1), *pairs[0])
    for inner, outer in (pairs[1:3], pairs[3:5]):
        s = s + F.linear(torch.tanh(F.linear(s, *inner)), *outer)
    torch.testing.assert_close(network(images()), F.linear(s, *pairs[5]))
    assert network.depth == 6 and network.heights == [5, 4, 3, 2, 1, 0]
    assert network.names == ["in", "block1.inner", "block1.sum", "block2.inner", "block2.sum", "out"]


def test_resnet_is_a_plain_loop():
    """Blocks of the first stage keep the image, the first of the second halves it: 9 x 8 becomes 5 x 4."""
    network = initialise(resnet((1, 9, 8), 10, **RESNET | {"stream": "relu"}).double(), seed=0)
    pairs = list(zip(*[iter(network.parameters())] * 2, strict=True))
    s = F.conv2d(images(), *pairs[0], padding=1).relu()
    for first in (1, 3):
        s = (s + F.conv2d(torch.tanh(F.conv2d(s, *pairs[first], padding=1)), *pairs[first + 1], padding=1)).relu()
    branch = F.conv2d(torch.tanh(F.conv2d(s, *pairs[5], stride=2, padding=1)), *pairs[6], padding=1)
    s = (branch + F.conv2d(s, *pairs[7], stride=2)).relu()
    assert s.shape == (6, 5, 5, 4)
    s = (s + F.conv2d(torch.tanh(F.conv2d(s, *pairs[8], padding=1)), *pairs[9], padding=1)).relu()
    torch.testing.assert_close(network(images()), F.linear(s.flatten(1), *pairs[10]))
    assert sum(isinstance(affine, Skip) for edges in network.edges for _, affine in edges) == 3


def test_a_resnet_ends_in_means_over_a_grid():
    """32 x 32 becomes 16 x 16 in the second stage, and squares of 4 x 4 make 4 x 4 means of each channel."""
    head = resnet((3, 32, 32), 10, **RESNET).edges[-1][0][1]
    x = torch.randn(2, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head.maps[0](x), x.unflatten(3, (4, 4)).unflatten(2, (4, 4)).mean((3, 5)))
    assert head.maps[1].weight.shape == (10, 5 * 4 * 4)


@pytest.mark.parametrize("depth", [8, 32, 128])
def test_signals_and_gradients_of_a_residual_network_keep_their_size_at_any_depth(depth):
    """With ReLU units and B blocks a branch has 1/(2B) of the mean square of its skip (biases add 1/512 at most), so
    that it grows by (1 + 1/2B)^B, about sqrt(e), over all blocks, as gradients do on their way down. A tenth is left to
    the random draw; with branches as large at any depth it would be 1.5^B."""
    width, blocks = 512, (depth - 2) // 2
    network = initialise(resmlp((width,), 10, width, depth, "relu", "identity", "identity"), seed=0)
    s = torch.randn(64, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    states = [s, s]
    for edges, f in zip(network.edges[1:-1], network.activations[1:-1]):
        states.append(f(sum(affine(states[source]) for source, affine in edges)))
    growth = (1 + 1 / (2 * blocks)) ** blocks
    assert states[-1].square().mean().item() == pytest.approx(growth, rel=0.1)
    message = torch.randn(s.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((states[-1] * message).sum(), s)
    assert gradient.square().mean().item() == pytest.approx(growth, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)], ids=["digits", "mnist", "cifar10"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "resmlp", "resnet"])
def test_the_configurations_suit_the_data_sets(name, shape):
    config = yaml.safe_load((ROOT / f"conf/arch/{name}.yaml").read_text())
    network = initialise(instantiate(config, shape=shape, classes=10, _convert_="all"), seed=0)
    require_affine(network)
    assert network(torch.zeros(2, *shape)).shape == (2, 10)


def test_the_network_in_the_docs_is_built_as_it_stands(tmp_path, monkeypatch):
    """An image of 9 x 8 becomes 4 x 3 by a stride of 2; a grouped convolution of torch, and a skip around it."""
    text = (ROOT / "docs" / "extend.md").read_text()
    files = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL))
    code, config = files["my_network.py"], yaml.safe_load(files["conf/arch/mine.yaml"])
    assert len(code.splitlines()) <= 20 and "Wrapped" in code and "Skip" in code
    (tmp_path / "my_network.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_network", raising=False)
    network = initialise(instantiate(config, shape=(1, 9, 8), classes=10, _convert_="all").double(), seed=0)
    require_affine(network)
    image, grouped, output = (p for p in zip(*[iter(network.parameters())] * 2, strict=True))
    s = F.relu(F.conv2d(images(), *image, stride=2))
    s = F.relu(s + F.conv2d(s, *grouped, padding=1, groups=len(image[0])))
    torch.testing.assert_close(network(images()), F.linear(s.flatten(1), *output))
    assert any(isinstance(affine, Wrapped) for edges in network.edges for _, affine in edges)


@pytest.mark.parametrize(("build", "given", "change", "message"), [
    (mlp, MLP, {"hidden": [0]}, r"arch.hidden=\[0\] holds 0.*1 or more"),
    (mlp, MLP, {"hidden": [8, -3]}, r"arch.hidden=\[8, -3\] holds -3"),
    (mlp, MLP, {"hidden": [2.5]}, r"arch.hidden=\[2.5\] holds 2.5.*integer"),
    (mlp, MLP, {"hidden": [True]}, "arch.hidden.*integer"),
    (mlp, MLP, {"hidden": 8}, r"arch.hidden=8 must be a list.*\[8\]"),
    (mlp, MLP, {"hidden": None}, r"arch.hidden=None must be a list"),
    (mlp, MLP, {"hidden": "8"}, r"arch.hidden=8 must be a list"),
    (mlp, MLP, {"activation": "swish"}, "activation 'swish' is unknown: choose one of"),
    (mlp, MLP, {"output": "linear"}, "activation 'linear' is unknown: choose one of"),
    (mlp, MLP, {"activation": "softmax"}, "layer1 has softmax units"),
    (mlp, MLP, {"gain": [1.0]}, r"arch.gain=\[1.0\] .*different lengths \(1 and 3\)"),
    (cnn, CNN, {"channels": []}, "arch.channels=.* has no convolution.*arch=mlp"),
    (cnn, CNN, {"channels": [4, 0]}, "arch.channels=.* holds 0"),
    (cnn, CNN, {"channels": 4}, r"arch.channels=4 must be a list"),
    (cnn, CNN, {"kernel": 0}, "arch.kernel=0 must be an integer of 1 or more"),
    (cnn, CNN, {"kernel": 2.0}, "arch.kernel=2.0 must be an integer of 1 or more"),
    (cnn, CNN, {"kernel": [3]}, r"arch.kernel=\[3\] and arch.channels have different lengths \(1 and 2\)"),
    (cnn, CNN, {"kernel": [3, 0]}, r"arch.kernel=\[3, 0\] holds 0"),
    (cnn, CNN, {"stride": -1}, "arch.stride=-1 must be an integer of 1 or more"),
    (cnn, CNN, {"padding": -1}, "arch.padding=-1 must be an integer of 0 or more"),
    (cnn, CNN, {"pool": 0}, "arch.pool=0 must be an integer of 1 or more"),
    (cnn, CNN, {"pool": 9}, r"pool of 9 is larger than its input \(3, 9, 8\).*use a smaller arch.pool"),
    (cnn, CNN, {"pool": 9, "pooling": "max"}, r"pool of 9 is larger than its input \(3, 9, 8\)"),
    (cnn, CNN, {"channels": [2] * 5}, r"pool of 2 is larger than its input \(2, 1, 1\)"),
    (cnn, CNN, {"pooling": "median"}, "arch.pooling=median is unknown: use avg or max"),
    (cnn, CNN, {"hidden": [0]}, "arch.hidden=.* holds 0"),
    (cnn, CNN, {"activation": "softmax"}, "layer1 has softmax units"),
    (resmlp, RESMLP, {"depth": 7}, "arch.depth=7 must be an even number of 2 or more"),
    (resmlp, RESMLP, {"depth": 0}, "arch.depth=0 must be an integer of 1 or more"),
    (resmlp, RESMLP, {"width": 0}, "arch.width=0 must be an integer of 1 or more"),
    (resmlp, RESMLP, {"stream": "softmax"}, "in has softmax units"),
    (resnet, RESNET, {"kernel": 4}, "arch.kernel=4 must be odd, so that a skip fits around it: use 5"),
    (resnet, RESNET, {"blocks": 0}, "arch.blocks=0 must be an integer of 1 or more"),
    (resnet, RESNET, {"channels": []}, "arch.channels=.* has no convolution"),
])
@pytest.mark.usefixtures("untyped")
def test_bad_arguments(build, given, change, message):
    with pytest.raises(ConfigError, match=message) as error:
        build((1, 9, 8), 10, **given | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("build", "given"), [(cnn, CNN), (resnet, RESNET)])
def test_convolutions_need_images(build, given):
    with pytest.raises(ConfigError, match=rf"inputs of shape \(64,\) are no images: arch={build.__name__} needs"):
        build((64,), 10, **given)
