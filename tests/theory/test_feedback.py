"""Weights of the way down: what they are, and that messages go by them and signals do not."""

import copy

import pytest
import torch
from networks import NETWORKS, backprop, batch, distance, member, slope, stencil
from torch import Tensor
from torch.nn import functional as F

from ebmrun.theory.affine import Map, MaxPool2d, Weighted
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.energies import Lifted, Predictive
from ebmrun.theory.feedback import KolenPollack, Random, Sign, Untied
from ebmrun.theory.network import Network

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
