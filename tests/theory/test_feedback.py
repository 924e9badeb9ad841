"""Weights of the way down: what they are, and that messages go by them and signals do not."""

import copy

import pytest
import torch
from networks import NETWORKS, backprop, batch, distance, member, random_cnn, random_mlp, slope, stencil
from torch import Tensor
from torch.nn import functional as F

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import activation
from ebmrun.theory.affine import Chain, Linear, Map, MaxPool2d, Skip, Weighted, Wrapped
from ebmrun.theory.conjugate import conjugate_steps
from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.feedback import KolenPollack, Random, Sign, Tied, Untied, angles
from ebmrun.theory.feedback_alignment import FeedbackAlignment, backprop_of
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.network import Layer, Network
from ebmrun.theory.probe import probe
from ebmrun.theory.references import Backprop, Implicit

RULES = {"random": Random(), "sign": Sign(), "kolen_pollack": KolenPollack()}


def untied(network: Network, rule: Untied, seed: int = 3) -> Network:
    rule.give(network, seed)
    return network


def weighted(network: Network) -> list[Weighted]:
    return [module for module in network.modules() if isinstance(module, Weighted)]


def turned_back(network: Network) -> Network:
    """The same network without a way down of its own, its weights B wherever that has some."""
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for module in weighted(twin):
            module.weight.copy_(module.down["weight"])
            module.down = module.own
    return twin


def transposed(affine: Map, of: Map, x: Tensor, message: Tensor) -> Tensor:
    """J^T message by autograd, with the weights of ``affine`` and the pieces on which ``of`` is at x."""
    def image(x: Tensor) -> Tensor:
        if isinstance(affine, MaxPool2d) and isinstance(of, MaxPool2d):
            winners = F.max_pool2d(of.inner(at), of.size, return_indices=True)[1]
            return affine.inner(x).flatten(2).gather(2, winners.flatten(2)).view_as(winners)
        return affine(x)

    at = x.detach()
    x = at.clone().requires_grad_()
    return torch.autograd.grad(image(x), x, message)[0]


def feedback_alignment(network: Network, cost, x: Tensor, y: Tensor) -> list[Tensor]:
    """Backpropagation with B in place of W, in a plain loop (Lillicrap et al. 2016)."""
    twin, states, drives = turned_back(network), [x], []
    for edges, f in zip(network.edges, network.activations):
        drives.append(sum(affine(states[source]) for source, affine in edges).detach().requires_grad_())
        states.append(f(drives[-1]).detach())
    output = states[-1].requires_grad_()
    heard = [torch.zeros_like(state) for state in states]
    heard[-1] = torch.autograd.grad(cost.value(output, y).mean(), output)[0]
    found = {}
    for l in range(len(drives), 0, -1):
        delta = torch.autograd.grad(network.activations[l - 1](drives[l - 1]), drives[l - 1], heard[l])[0]
        for (source, affine), (_, back) in zip(network.edges[l - 1], twin.edges[l - 1]):
            if source:
                heard[source] = heard[source] + transposed(back, affine, states[source], delta)
            if list(affine.parameters()):
                parts = torch.autograd.grad(affine(states[source].detach()), list(affine.parameters()), delta)
                found |= dict(zip(affine.parameters(), parts))
    return [found[parameter] for parameter in network.parameters()]


@pytest.mark.parametrize("name", NETWORKS)
def test_with_transposes_the_plain_loop_is_backprop(name: str):
    network = NETWORKS[name]()
    x, y = batch(network)
    cost = SquaredError(network.output)
    assert distance(feedback_alignment(network, cost, x, y), backprop(network, cost, x, y)) < 1e-14


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("energy", [Predictive(), Lifted()], ids=["predictive", "lifted"])
def test_a_vanishing_nudge_tends_to_feedback_alignment(energy, name: str, rule: str):
    network = untied(NETWORKS[name](), RULES[rule])
    x, y = batch(network)
    limit = feedback_alignment(network, SquaredError(network.output), x, y)
    for nudge, order in (("single", 1), ("centered", 2)):
        strengths = [1e-2, 1e-3] if order == 2 else [1e-3, 1e-4]
        errors = [distance(member(energy, stencil(nudge, h), network).estimate(network, x, y).gradients, limit)
                  for h in strengths]
        assert slope(errors, strengths) == pytest.approx(order, abs=0.05)
        assert errors[-1] < 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_feedback_alignment_is_that_of_the_plain_loop(name: str):
    network = untied(NETWORKS[name](), Random())
    x, y = batch(network)
    cost = SquaredError(network.output)
    found = backprop_of(network, cost).estimate(network, x, y)
    assert distance(found.gradients, feedback_alignment(network, cost, x, y)) < 1e-14
    assert distance(found.gradients, backprop(network, cost, x, y)) > 0.1
    torch.testing.assert_close(found.output, network(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_tied_it_is_backprop(name: str):
    network = NETWORKS[name]()
    x, y = batch(network)
    cost = SquaredError(network.output)
    found = FeedbackAlignment(cost).estimate(network, x, y).gradients
    assert distance(found, backprop(network, cost, x, y)) < 1e-14
    assert type(backprop_of(network, cost)) is Backprop


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("cost", [SquaredError, CrossEntropy])
def test_the_first_step_is_feedback_alignment_exactly(cost, name: str):
    network = untied(NETWORKS[name](output="softmax" if cost is CrossEntropy else "identity"), Sign())
    x, y = batch(network)
    found = member(Predictive(), stencil("single", 1.0), network, cost, frozen=True).estimate(network, x, y)
    assert distance(found.gradients, feedback_alignment(network, cost(network.output), x, y)) < 1e-14


@pytest.mark.parametrize("energy", [Predictive, Lifted, Hopfield])
def test_a_vanishing_feedback_gain_tends_to_feedback_alignment(energy):
    """For one, contrastive Hebbian learning with random feedback (Detorakis, Bartley & Neftci 2019)."""
    network = untied(random_mlp(), Random())
    x, y = batch(network)
    limit, gains = feedback_alignment(network, SquaredError(network.output), x, y), [1e-2, 1e-3]
    errors = [distance(member(energy(gain), stencil("clamped"), network).estimate(network, x, y).gradients, limit)
              for gain in gains]
    assert slope(errors, gains) == pytest.approx(1, abs=0.05) and errors[-1] < 1e-2


@pytest.mark.parametrize("name", ["mlp", "skip", "fan_out"])
def test_states_settle_where_messages_go_down_by_the_other_weights(name: str):
    """x_l = f(a_l + sum_m B_m^T x_m) at the free equilibrium of the Hopfield energy."""
    network = untied(NETWORKS[name](activation="sigmoid"), Random())
    x, y = batch(network)
    learning = member(Hopfield(), stencil("centered", 0.1), network, acceleration="auto")
    free, phase = learning.free_equilibrium(network, x)
    assert phase is not None and phase.converged and phase.how.acceleration == "auto"
    back, states = turned_back(network), [x, *free.states]
    for l, f in enumerate(network.activations, 1):
        a = sum(affine(states[source]) for source, affine in network.edges[l - 1])
        heard = [transposed(affine, affine, states[l], states[m]) for m, edges in enumerate(back.edges, 1)
                 for source, affine in edges if source == l]
        torch.testing.assert_close(states[l], f(a + sum(heard)), atol=1e-10, rtol=0)
    assert learning.estimate(network, x, y).converged


def test_the_implicit_reference_is_the_derivative_of_the_cost_at_the_equilibrium_that_there_is():
    network = untied(random_mlp(activation="sigmoid"), Random())
    x, y = batch(network)
    learning = member(Hopfield(), stencil("centered", 0.1), network)
    found, h = Implicit(learning).estimate(network, x, y), 1e-5
    weight, costs = network.weights[2], []
    for side in (h, -h):
        with torch.no_grad():
            weight[1, 2] += side
            costs.append(float(learning.cost.value(learning.predict(network, x).output, y).mean()))
            weight[1, 2] -= side
    assert found.gradients[2][1, 2] == pytest.approx((costs[0] - costs[1]) / (2 * h), rel=1e-5)
    assert found.converged


def test_where_there_is_no_energy_the_probe_says_only_what_needs_none():
    network = untied(random_mlp(), Random())
    learning = member(Predictive(), stencil("single", 1e-3), network, acceleration="auto")
    assert probe(learning, network, *batch(network)).keys() == {"probe/cosine_to_one_sweep"}


def test_no_conjugate_gradients_without_an_energy(monkeypatch):
    """A clamp at full feedback, which they take at once where there is an energy; here sweeps settle it."""
    network = random_mlp()
    learning = member(Predictive(), stencil("clamped"), network, acceleration="auto")
    x, y = batch(network)
    asked = []
    monkeypatch.setattr("ebmrun.theory.solver.conjugate_steps",
                        lambda *given: asked.append(given) or conjugate_steps(*given))
    assert learning.estimate(network, x, y).converged and asked
    asked.clear()
    assert learning.estimate(untied(network, Sign()), x, y).converged and not asked


def test_tied_nothing_is_there_but_the_weights():
    network = random_cnn()
    before = copy.deepcopy(network.state_dict())
    Tied().give(network, 0)
    assert network.tied and network.state_dict().keys() == before.keys() and not list(network.buffers())
    assert all(module.down is module.own for module in weighted(network))
    assert angles(network) == {}


@pytest.mark.parametrize("rule", RULES)
def test_signals_and_first_weights_are_those_of_the_tied_network(rule: str):
    network, tied = untied(random_cnn(), RULES[rule]), random_cnn()
    x, _ = batch(tied)
    assert torch.equal(network(x), tied(x))
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), tied.parameters()))


def test_random_weights_have_the_law_of_the_initial_ones_and_belong_to_the_seed():
    def drawn(seed: int) -> Tensor:
        network = initialise(Network([Layer([(0, Linear((3,), 400))], activation("tanh")),
                                      Layer([(1, Linear((400,), 300, gain=0.5))], activation("tanh"))], [1.0, 1.2]), 0)
        return untied(network, Random(), seed).edges[1][0][1].feedback

    numbers, bound = drawn(0), 0.5 * 1.2 / 400**0.5
    assert numbers.shape == (300, 400) and torch.equal(numbers, drawn(0)) and not torch.equal(numbers, drawn(1))
    shares = numbers.flatten().double().sort().values / bound
    uniform = torch.linspace(-1, 1, len(shares), dtype=torch.float64)
    assert float((shares - uniform).abs().max()) < 0.02  # five times the 1 / sqrt(n) of Kolmogorov and Smirnov
    weight = initialise(Network([Layer([(0, Linear((400,), 300))], activation("tanh"))]), 0).weights[0]
    cosine = float((weight * numbers).sum() / weight.norm() / numbers.norm())
    assert abs(cosine) < 5 / 120000**0.5


def test_signs_follow_the_weights_and_magnitudes_do_not():
    network = untied(random_mlp(), Sign())
    affine = network.edges[1][0][1]
    magnitudes = affine.feedback.abs().clone()
    for _ in range(2):
        assert torch.equal(affine.down["weight"], affine.weight.sign() * magnitudes)
        with torch.no_grad():
            affine.weight.copy_(-affine.weight.flip(0))


def test_the_input_is_sent_nothing_and_a_skip_has_no_weights():
    network = untied(NETWORKS["skip"](), Random())
    assert [len(maps) for maps in network.untied] == [0, 1, 1, 1, 1]


def test_in_a_chain_from_the_input_messages_pass_all_but_its_first_weights():
    def chain(inputs: int) -> Chain:
        return Chain(Linear((inputs,), 4), Skip((4,)), Linear((4,), 3))

    network = Network([Layer([(0, chain(5))], activation("tanh")), Layer([(1, chain(3))], activation("identity"))])
    network = untied(initialise(network.double(), 0), Random())
    assert network.untied == [[network.edges[0][0][1].maps[2]], [network.edges[1][0][1].maps[i] for i in (0, 2)]]
    x, _ = batch(network)
    first = turned_back(network).edges[0][0][1]  # which teaches its own first map by what the second sends down
    message = torch.ones(len(x), 3, dtype=x.dtype)
    taught = network.edges[0][0][1].gradient(message, x)[0]
    torch.testing.assert_close(taught, transposed(first.maps[2], first.maps[2], torch.zeros(len(x), 4).double(),
                                                  message).T @ x)


def test_weights_that_serve_both_ways_are_refused_but_at_the_input():
    linear, wrapped = Linear((5,), 4), Wrapped((5,), torch.nn.Linear(5, 4))
    untied(Network([Layer([(0, wrapped)], activation("tanh")), Layer([(1, Linear((4,), 4))], activation("tanh"))]),
           Random())
    with pytest.raises(ConfigError, match=r"layer2 has a Wrapped.*build it from Linear, Conv2d.*feedback=tied"):
        untied(Network([Layer([(0, linear)], activation("tanh")),
                        Layer([(1, Wrapped((4,), torch.nn.Linear(4, 4)))], activation("tanh"))]), Random())


def test_angles_are_those_between_both_weights():
    network = untied(NETWORKS["skip"](), Random())
    for turn, maps in enumerate(network.untied):
        for affine in maps:  # B = cos W + sin V at right angles to W and of its size
            aside = torch.randn(affine.weight.shape, generator=torch.Generator().manual_seed(turn)).double()
            weight = affine.weight.detach()
            aside -= (aside * weight).sum() / weight.square().sum() * weight
            angle = torch.tensor(30.0 * turn).deg2rad()
            affine.feedback = angle.cos() * weight + angle.sin() * aside * weight.norm() / aside.norm()
    found = angles(network)
    assert found.keys() == {"feedback/angle", *(f"feedback/angle/layer{l}" for l in (2, 3, 4, 5))}
    assert [found[f"feedback/angle/layer{l}"] for l in (2, 3, 4, 5)] == pytest.approx([30, 60, 90, 120])


def test_a_copy_and_another_precision_keep_their_own_way_down():
    network = untied(random_mlp(), KolenPollack())
    twin = copy.deepcopy(network).float()
    for one, other in zip(weighted(network)[1:], weighted(twin)[1:]):
        assert other.down["weight"] is other.feedback and other.feedback.dtype == torch.float32
        assert one.down["weight"] is one.feedback and one.feedback.dtype == torch.float64
    assert [pair[1] for pair in twin.followers(1)] == [weighted(twin)[1].feedback]
    assert not any(untied(random_mlp(), Random()).followers(l) for l in range(4))
