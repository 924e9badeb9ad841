"""The contract catches what theory says is wrong, and names it."""

import pytest
import torch

from ebmrun.errors import ConfigError
from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.energies import Energy, Hopfield, Lifted, Predictive
from ebmrun.theory.energies.contract import disagreements, is_feedforward, require_clampable, require_consistent
from ebmrun.theory.units import UNITS, unit

ENERGIES = [Predictive(), Hopfield(), Lifted()]
FUNCTIONS = ["respond", "feedback", "error", "error_feedback", "displacement", "displacement_feedback"]
each_energy = pytest.mark.parametrize("energy", ENERGIES, ids=lambda energy: type(energy).__name__)
each_unit = pytest.mark.parametrize("name", UNITS)


@each_energy
@each_unit
def test_shipped_energies_keep_it(energy, name):
    require_consistent(energy, {name: unit(name)})
    assert set(disagreements(energy, unit(name))) == set(FUNCTIONS)


def wrong(base: type[Energy], function: str, change) -> Energy:
    """A shipped energy with one of its functions changed."""
    honest = getattr(base, function)
    return type("Mine", (base,), {function: lambda self, *arguments: change(honest(self, *arguments))})()


@each_energy
@pytest.mark.parametrize("function", ["feedback", *FUNCTIONS[2:]])
@pytest.mark.parametrize("change", [lambda v: -v, lambda v: 2 * v, lambda v: v / 2, lambda v: 1.0001 * v],
                         ids=["sign", "twice", "half", "slightly"])
def test_a_wrong_sign_or_factor_is_found(energy, function, change):
    mine = wrong(type(energy), function, change)
    assert disagreements(mine, unit("tanh"))[function] > 1e-6
    with pytest.raises(ConfigError, match=r"Mine\.\w+ contradicts its value\(\) by .* for tanh units: mend it"):
        require_consistent(mine, {"tanh": unit("tanh")})


@each_energy
@pytest.mark.parametrize("function", FUNCTIONS[2:])
def test_it_names_the_function_that_is_wrong(energy, function):
    """These four are compared with respond and feedback, which are right."""
    mine = wrong(type(energy), function, lambda v: 2 * v)
    with pytest.raises(ConfigError, match=rf"Mine\.{function} contradicts"):
        require_consistent(mine, {"tanh": unit("tanh")})


class Plain(Energy):
    """Predictive coding by three functions, each of which a test may get wrong."""

    def value(self, x, a, f):
        return (x - f(a)).square() / 2

    def respond(self, a, t, f):
        return f(a) + t

    def feedback(self, x, a, f):
        return f.pullback(f(a), x - f(a))


@pytest.mark.parametrize(("function", "mistake"), [
    ("respond", lambda self, a, t, f: f(a) - t),
    ("respond", lambda self, a, t, f: f(a) + t / 2),
    ("respond", lambda self, a, t, f: f(a + t)),
    ("respond", lambda self, a, t, f: a + t),
    ("feedback", lambda self, x, a, f: f.pullback(f(a), f(a) - x)),
    ("feedback", lambda self, x, a, f: x - f(a)),
    ("feedback", lambda self, x, a, f: 2 * f.pullback(f(a), x - f(a))),
    ("feedback", lambda self, x, a, f: x * torch.nan),
], ids=["message's sign", "half the message", "inside f", "without f", "sign", "without f'", "twice", "NaN"])
def test_mistakes_in_a_users_energy(function, mistake):
    mine = type("Mine", (Plain,), {function: mistake})()
    with pytest.raises(ConfigError, match=rf"Mine\.{function} contradicts its value\(\) by .*leave it out"):
        require_consistent(mine, {"sigmoid": unit("sigmoid")})


@pytest.mark.parametrize(("function", "mistake"), [
    ("respond", lambda self, a, t, f: t.add_(f(a))),
    ("feedback", lambda self, x, a, f: f.pullback(f(a), x.sub_(f(a)))),
    ("error_feedback", lambda self, e, a, rest, f: e.mul_(f.pullback(rest, torch.ones_like(e)))),
])
def test_functions_that_write_into_their_arguments_are_refused(function, mistake):
    """Their results are right, and what the caller still holds is not."""
    mine = type("Mine", (Plain,), {function: mistake})()
    with pytest.raises(ConfigError, match=rf"Mine\.{function} writes into its arguments"):
        require_consistent(mine, {"sigmoid": unit("sigmoid")})


@pytest.mark.parametrize("value", [lambda self, x, a, f: (x - f(a)).square(),
                                   lambda self, x, a, f: -(x - f(a)).square() / 2,
                                   lambda self, x, a, f: (x - a).square() / 2],
                         ids=["without half", "sign", "without f"])
def test_mistakes_in_the_value_show_in_the_others(value):
    mine = type("Mine", (Plain,), {"value": value})()
    with pytest.raises(ConfigError, match=r"contradicts its value\(\)"):
        require_consistent(mine, {"sigmoid": unit("sigmoid")})


def test_every_unit_in_use_is_checked():
    """x - f(a) is the feedback for identity units, and only for those."""
    mine = type("Mine", (Plain,), {"feedback": lambda self, x, a, f: x - f(a)})()
    require_consistent(mine, {"identity": unit("identity")})
    with pytest.raises(ConfigError, match="for tanh units"):
        require_consistent(mine, {"identity": unit("identity"), "tanh": unit("tanh")})


def test_value_alone_keeps_it():
    class ByValue(Energy):
        def value(self, x, a, f):
            error = x - f(a)
            return error.square() / 2 + error**4 / 4

    for name in ("identity", "tanh", "sigmoid", "relu", "hard_sigmoid"):
        require_consistent(ByValue(), {name: unit(name)})
        assert is_feedforward(ByValue(), unit(name))


@each_unit
def test_which_energies_rest_at_the_forward_pass(name):
    """Predictive and lifted: E is 0, its least, at x = f(a), so that dE/da is 0 there. Hopfield sends x = f(a)."""
    f = unit(name)
    assert is_feedforward(Predictive(), f) and is_feedforward(Lifted(), f) and not is_feedforward(Hopfield(), f)


class Wide(Energy):
    """E = (x - 2 f(a))^2 / 2: it sends nothing at rest, but rests elsewhere than the forward pass."""

    def value(self, x, a, f):
        return (x - 2 * f(a)).square() / 2


def test_resting_elsewhere_is_not_feedforward():
    assert not is_feedforward(Wide(), unit("tanh"))


# Clamping adds feedback(y, a) - feedback(f(a), a) at the output: f'(a)(y - f(a)) for predictive, y - f(a) for the
# others. Squared error asks for f'(a)(y - f(a)): the two are the same for identity units only. Cross entropy of
# softmax units asks for f'(a)(y / f(a)) = y - f(a), as y sums to 1; of logits, for y - softmax(a).
CLAMPABLE = {("Predictive", "SquaredError", name) for name in UNITS} | {
    ("Hopfield", "SquaredError", "identity"), ("Lifted", "SquaredError", "identity"),
    ("Hopfield", "CrossEntropy", "softmax"), ("Lifted", "CrossEntropy", "softmax")}


@each_energy
@pytest.mark.parametrize("cost", [*(SquaredError(f) for f in UNITS.values()), CrossEntropy(unit("identity")),
                                  CrossEntropy(unit("softmax"))],
                         ids=lambda cost: f"{type(cost).__name__} of {type(cost.output).__name__}")
def test_clamping_asks_for_the_cost_that_matches(energy, cost):
    output = next(name for name, f in UNITS.items() if f is cost.output)
    if (type(energy).__name__, type(cost).__name__, output) in CLAMPABLE:
        require_clampable(energy, cost, output)
    else:
        message = rf"clamping arch.output={output} under {type(energy).__name__} does not follow cost.*match them"
        with pytest.raises(ConfigError, match=message):
            require_clampable(energy, cost, output)
