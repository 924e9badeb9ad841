"""Gradients by rounded products, against what the rounding of each of them can do at most; and what is not rounded."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from networks import (
    backprop,
    batch,
    distance,
    member,
    random_cnn,
    random_fan_in,
    random_fan_out,
    random_mlp,
    random_skip,
    stencil,
)
from torch import Tensor

from ebmrun.theory.algorithm import Estimate, Prediction
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.network import Network
from ebmrun.theory.products import ROUNDINGS, Rounded, of_precision
from ebmrun.theory.references import Backprop

UNIT = 2.0**-8  # by how much bfloat16 rounds at most
LINEAR = {"mlp": random_mlp, "cnn": random_cnn, "skip": random_skip, "fan_in": random_fan_in, "fan_out": random_fan_out}
HELD = {"order": "sweep", "frozen": True, "coordinates": "error", "step_size": 1.0}
ALGORITHMS = {
    "bp": lambda net: Backprop(SquaredError(net.output)),
    "pc_fixed_prediction": lambda net: member(Predictive(), stencil("single"), net, **HELD),
    "pc": lambda net: member(Predictive(), stencil("single", 1e-6), net, tol=1e-3),
    "lifted": lambda net: member(Lifted(), stencil("single", 1e-6), net, tol=1e-3),
}


def single(network: Network) -> tuple[Network, Tensor, Tensor]:
    """The network in float32, and a batch for it."""
    x, y = batch(network)
    return network.float(), x.float(), y.float()


def most(network: Network, x: Tensor, y: Tensor) -> tuple[list[Tensor], float]:
    """For a network without nonlinearity: what the gradient is when nothing in it cancels, and how much of that rounded
    products can change.

    Each entry of the gradient is a polynomial in weights, biases, inputs and targets. A term of it is a chain of at
    most L products up, L - l down and one across, which takes in one from the input to layer l - 1: at most 2 L. Each
    rounds its two factors and itself, so that a term changes by a factor within (1 +- u)^(6 L); all terms together by
    no more than that share of the sum of their absolute values. The round-off of float32 is a thousandth of it.
    """
    largest = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in largest.parameters():
            parameter.abs_()
    output = largest(x.abs())
    value = (output * (output + y).detach()).sum() / len(x)
    share = 1.001 * ((1 + UNIT) ** (6 * network.depth) - 1)
    return list(torch.autograd.grad(value, list(largest.parameters()))), share


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", LINEAR)
def test_the_error_is_no_more_than_rounding_can_make(name: str, algorithm: str) -> None:
    network = LINEAR[name](activation="identity")
    x, y = batch(network)
    truth, (bound, share) = backprop(network, SquaredError(network.output), x, y), most(network, x, y)
    learning = ALGORITHMS[algorithm](network)
    nudge_bias = learning.estimate(network, x, y).gradients
    low = network.float()
    found = of_precision(learning, low, "bf16").estimate(low, x.float(), y.float())
    assert found.converged is not False
    for g, r, biased, size in zip(found.gradients, truth, nudge_bias, bound):
        assert g.dtype == torch.float32
        assert bool(((g.double() - r).abs() <= share * size + 2 * (biased - r).abs().max()).all())
    error = distance([g.double() for g in found.gradients], truth)
    whole = learning.estimate(low, x.float(), y.float()).gradients
    assert error > 10 * distance([g.double() for g in whole], truth)  # float32 is far from it
    assert error > UNIT / 10


@pytest.mark.parametrize("energy, nudge", [
    (Predictive(), "single"), (Lifted(), "centered"), (Hopfield(0.3), "centered"),
])
def test_what_weak_nudges_tell_is_rounded_once_and_not_divided_by_them(energy, nudge) -> None:
    """Displacements are numbers of their own, rounded relative to their size: at 1e-5 as at 1e-3 the gradient is off by
    a few units of bfloat16, where states rounded to 8 bits would leave nothing of it."""
    network, x, y = single(random_mlp())
    errors = []
    for strength in (1e-3, 1e-5):
        learning = member(energy, stencil(nudge, strength), network, tol=1e-2)
        whole = learning.estimate(network, x, y).gradients
        found = of_precision(learning, network, "bf16").estimate(network, x, y)
        assert found.converged
        errors.append(distance(found.gradients, whole))
    assert all(UNIT / 10 < error < 10 * UNIT for error in errors)
    assert errors[1] < 2 * errors[0]


def test_a_strong_nudge_that_rounding_keeps_from_settling_does_not_claim_to_have_converged() -> None:
    """Where drives move by much more than a unit of bfloat16, answers jump by about one from sweep to sweep."""
    network = random_mlp()
    x, y = batch(network, 64)
    network, x, y = network.float(), x.float(), y.float()
    learning = member(Predictive(), stencil("single", 1.0), network, tol=1e-5, max_steps=50)
    assert learning.estimate(network, x, y).converged
    found = of_precision(learning, network, "bf16").estimate(network, x, y)
    assert found.converged is False and UNIT / 10 < found.residual < 10 * UNIT


def test_states_that_lag_behind_rounded_drives_do_not_claim_to_have_converged() -> None:
    """Where the displacement is the difference of a state and its drive, and the state takes only a part of each step,
    drives that jump by units of bfloat16 are more than a weak nudge."""
    network, x, y = single(random_mlp())
    learning = member(Predictive(), stencil("single", 1e-4), network, coordinates="state", order="synchronous",
                      step_size=0.3, tol=2e-2, max_steps=60)
    assert learning.estimate(network, x, y).converged
    assert of_precision(learning, network, "bf16").estimate(network, x, y).converged is False


def test_a_rounded_network_has_the_parameters_of_the_other_and_leaves_it_as_it_was() -> None:
    network = random_cnn().float()
    edges, before = network.edges, {key: value.clone() for key, value in network.state_dict().items()}
    with ROUNDINGS["bf16"](network) as twin:
        assert all(p is q for p, q in zip(twin.parameters(), network.parameters()))
        assert list(twin.state_dict()) == list(before)
    assert network.edges is edges
    for key, value in network.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[key])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_other_precisions_have_the_algorithm_itself(precision: str) -> None:
    network = random_mlp()
    learning = member(Predictive(), stencil("single"), network)
    assert of_precision(learning, network, precision) is learning


class Watching:
    """An algorithm that notes what products of float32 may do on CUDA."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, bool]] = []

    def _look(self) -> None:
        self.seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))

    def estimate(self, network: Network, x: Tensor, y: Tensor, **drawn: Tensor) -> Estimate:
        self._look()
        return Estimate(list(drawn.values()), y)

    def predict(self, network: Network, x: Tensor) -> Prediction:
        self._look()
        raise RuntimeError("stopped")


@pytest.fixture(params=[(False, False), (False, True)])
def allowed(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool]]:
    """What products on CUDA may do before."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = request.param
    yield request.param
    matmul.allow_tf32, cudnn.allow_tf32 = before


def test_tf32_is_allowed_in_an_estimate_and_nowhere_else(allowed: tuple[bool, bool]) -> None:
    network, watching = random_mlp(), Watching()
    rounded = of_precision(watching, network, "tf32")
    assert isinstance(rounded, Rounded)
    x, y = batch(network)
    signs = torch.ones(6, 1)
    assert rounded.estimate(network, x, y, signs=signs).gradients == [signs]
    with pytest.raises(RuntimeError, match="stopped"):
        rounded.predict(network, x)
    assert watching.seen == [(True, True), (True, True)]
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == allowed
