"""How a target pulls: a message against the cost's gradient, a clamp, several nodes side by side."""

import math

import torch

from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.pull import Pull
from ebmrun.theory.units import unit


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, generator=draw, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[:3]


def test_the_message_is_minus_lambda_times_the_gradient_of_the_cost():
    x, y = batch()
    for cost in (SquaredError(unit("identity")), CrossEntropy(unit("identity"))):
        leaf = x.clone().requires_grad_()
        slope = torch.autograd.grad(0.3 * cost.value(leaf, y).sum(), leaf)[0]
        torch.testing.assert_close(Pull(cost, y, 0.3).message(x), -slope)


def test_no_strength_no_message_even_where_the_cost_is_infinite():
    y = torch.eye(2)
    assert torch.equal(Pull(CrossEntropy(unit("softmax")), y, 0.0).message(torch.zeros(2, 2)), torch.zeros(2, 2))


def test_only_an_infinite_strength_clamps():
    _, y = batch()
    cost = SquaredError(unit("identity"))
    assert Pull.stacked(cost, y, [math.inf]).clamps
    assert not Pull(cost, y, 1e30).clamps and not Pull.stacked(cost, y, [0.1, -0.1]).clamps


def test_nodes_side_by_side_pull_as_each_alone():
    x, y = batch()
    cost, strengths = SquaredError(unit("identity")), [0.2, -0.2, 0.4]
    together = Pull.stacked(cost, y, strengths).message(x.repeat(3, 1))
    alone = torch.cat([Pull.stacked(cost, y, [strength]).message(x) for strength in strengths])
    torch.testing.assert_close(together, alone)


def test_a_pull_held_at_a_state_stays_there():
    x, y = batch()
    pull = Pull(SquaredError(unit("identity")), y, 0.5)
    held = pull.held_at(x)
    torch.testing.assert_close(held.message(x + 1), 0.5 * (y - x))
    torch.testing.assert_close(pull.message(x + 1), 0.5 * (y - x - 1))


def test_a_clamp_is_held_already():
    x, y = batch()
    clamp = Pull(SquaredError(unit("identity")), y, math.inf)
    assert clamp.held_at(x) is clamp
