"""The contract of a cost finds what calculus says is wrong, and names it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import ACTIVATIONS, activation
from ebmrun.theory.cost import Cost, CrossEntropy, SquaredError
from ebmrun.theory.cost_contract import require_consistent

each_precision = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@each_precision
@pytest.mark.parametrize("cost", [*(SquaredError(f) for f in ACTIVATIONS.values()),
                                  *(CrossEntropy(activation(name)) for name in ("identity", "softmax"))],
                         ids=lambda cost: f"{type(cost).__name__} of {type(cost.output).__name__}")
def test_shipped_costs_keep_it(cost: Cost, dtype: torch.dtype) -> None:
    for classes in (1, 10):
        require_consistent(cost, cost.output, torch.zeros(classes, dtype=dtype))


class Quartic(Cost):
    """sum (x - y)^4 / 4, whose derivative is (x - y)^3."""

    def value(self, x, y):
        return ((x - y) ** 4 / 4).sum(1)

    def gradient(self, x, y):
        return (x - y) ** 3


class Absolute(Cost):
    """sum |x - y|, which has a kink where they are equal."""

    def value(self, x, y):
        return (x - y).abs().sum(1)

    def gradient(self, x, y):
        return (x - y).sign()


@each_precision
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("cost", [Quartic, Absolute])
def test_a_cost_of_ones_own_keeps_it(cost: type[Cost], name: str, dtype: torch.dtype) -> None:
    require_consistent(cost(activation(name)), activation(name), torch.zeros(10, dtype=dtype))


def noisy(self, x, y):
    raise RuntimeError("no such\nthing")


@each_precision
@pytest.mark.parametrize("functions, message", [
    ({"gradient": lambda self, x, y: -((x - y) ** 3)}, r"Mine\.gradient contradicts the derivative of its value\(\)"),
    ({"gradient": lambda self, x, y: 4 * (x - y) ** 3}, r"Mine\.gradient contradicts the derivative of its value\(\)"),
    ({"gradient": lambda self, x, y: (x - y) ** 3 / len(x)}, r"Mine\.gradient contradicts the derivative"),
    ({"gradient": lambda self, x, y: 1.01 * (x - y) ** 3}, r"Mine\.gradient contradicts the derivative .* by 0\.0"),
    ({"gradient": lambda self, x, y: (x - y) * torch.nan}, r"Mine\.gradient contradicts the derivative .* by inf"),
    ({"value": lambda self, x, y: -((x - y) ** 4 / 4).sum(1)}, r"Mine\.gradient contradicts the derivative"),
    ({"value": lambda self, x, y: ((x - y) ** 4 / 4).sum()}, r"Mine\.value returns \(\) for outputs of shape \(16, 3"),
    ({"value": lambda self, x, y: (x - y) ** 4 / 4}, r"Mine\.value returns \(16, 3\) .*: return one number an example"),
    ({"value": lambda self, x, y: 1.0}, r"Mine\.value returns float for outputs"),
    ({"gradient": lambda self, x, y: (x - y).sum(1)}, r"Mine\.gradient returns \(16,\) .*: return one number a unit"),
    ({"value": lambda self, x, y: ((x - y) ** 4 / 4).sum(1) / len(x),
      "gradient": lambda self, x, y: (x - y) ** 3 / len(x)}, r"Mine\.value depends on the other examples of the batch"),
    ({"gradient": lambda self, x, y: x.sub_(y) ** 3}, r"Mine\.gradient writes into its arguments"),
    ({"gradient": noisy}, r"Mine fails on random outputs \(RuntimeError: no such thing\)"),
    ({"value": lambda self, x, y: ((x.detach() - y) ** 4 / 4).sum(1)}, r"Mine fails on random outputs \(RuntimeError"),
    ({"curvature": 1.0}, r"Mine\.curvature contradicts its gradient\(\)"),
], ids=["sign", "factor", "mean over the batch", "slightly", "NaN", "sign of the value", "sum", "unit by unit",
        "number", "example by example", "batch", "in place", "fails", "no graph", "curvature"])
def test_what_no_descent_would_survive_is_refused(functions: dict, message: str, dtype: torch.dtype) -> None:
    mine = type("Mine", (Quartic,), functions)(activation("tanh"))
    with pytest.raises(ConfigError, match=message) as error:
        require_consistent(mine, activation("tanh"), torch.zeros(3, dtype=dtype))
    assert "\n" not in str(error.value)


def test_the_range_of_the_output_is_what_counts() -> None:
    """log x has a derivative on the states of sigmoid units, and is no number below 0, where identity units go."""
    logarithm = {"value": lambda self, x, y: F.binary_cross_entropy(x, y, reduction="none").sum(1),
                 "gradient": lambda self, x, y: (x - y) / (x * (1 - x))}
    mine = type("Mine", (Quartic,), logarithm)(activation("sigmoid"))
    require_consistent(mine, activation("sigmoid"), torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ConfigError, match="Mine fails on random outputs"):
        require_consistent(mine, activation("identity"), torch.zeros(3, dtype=torch.float64))


def test_a_curvature_is_that_of_the_gradient() -> None:
    """3 ||x - y||^2 / 2 has the curvature 3."""
    functions = {"value": lambda self, x, y: 1.5 * (x - y).square().sum(1), "gradient": lambda self, x, y: 3 * (x - y)}
    for curvature in (3.0, 0.0):  # 0 says that nothing is known
        mine = type("Mine", (Quartic,), functions | {"curvature": curvature})(activation("tanh"))
        require_consistent(mine, activation("tanh"), torch.zeros(3, dtype=torch.float64))
