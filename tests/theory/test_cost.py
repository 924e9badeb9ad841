"""Costs against torch's own losses, and their gradients against autograd."""

import pytest
import torch
from torch.nn import functional as F

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import ACTIVATIONS, activation
from ebmrun.theory.cost import CrossEntropy, SquaredError


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels, one-hot targets."""
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20, 5, generator=draw, dtype=torch.float64)
    labels = torch.randint(5, (20,), generator=draw)
    return logits, labels, F.one_hot(labels, 5).double()


def test_squared_error_is_half_the_squared_distance():
    x, _, y = batch()
    expected = torch.stack([torch.dot(d, d) / 2 for d in x - y])
    torch.testing.assert_close(SquaredError(activation("identity")).value(x, y), expected)


def test_cross_entropy_of_logits_and_of_probabilities():
    logits, labels, y = batch()
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(CrossEntropy(activation("identity")).value(logits, y), expected)
    torch.testing.assert_close(CrossEntropy(activation("softmax")).value(torch.softmax(logits, 1), y), expected)


def test_cross_entropy_of_soft_targets():
    logits, _, _ = batch()
    y = torch.softmax(logits.flip(0), 1)
    torch.testing.assert_close(CrossEntropy(activation("identity")).value(logits, y),
                               F.cross_entropy(logits, y, reduction="none"))


@pytest.mark.parametrize("cost", [SquaredError(activation("identity")), CrossEntropy(activation("identity")),
                                  CrossEntropy(activation("softmax"))],
                         ids=["squared error", "of logits", "of probabilities"])
@pytest.mark.parametrize("soft", [False, True])
def test_gradient_is_that_of_autograd(cost, soft):
    logits, _, y = batch()
    y = 2 * torch.softmax(logits.flip(0), 1) if soft else y  # targets that do not sum to 1, too
    x = cost.output(logits).requires_grad_()
    expected = torch.autograd.grad(cost.value(x, y).sum(), x)[0]
    torch.testing.assert_close(cost.gradient(x.detach(), y), expected, rtol=1e-12, atol=1e-14)


def test_a_class_of_probability_zero_that_is_no_target_costs_nothing():
    cost = CrossEntropy(activation("softmax"))
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert cost.value(x, y).item() == 0 and cost.gradient(x, y).tolist() == [[-1.0, 0.0]]


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in ("identity", "softmax")])
def test_cross_entropy_refuses_outputs_that_are_no_probabilities_and_no_logits(name):
    with pytest.raises(ConfigError, match="cross_entropy cannot read.*set arch.output to identity or softmax"):
        CrossEntropy(activation(name))
