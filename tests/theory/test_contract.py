"""The contract catches what theory says is wrong, and names it."""

import pytest
import torch

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import ACTIVATIONS, activation
from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.energies import ByValue, Energy, Hopfield, Lifted, Predictive
from ebmrun.theory.energies.contract import disagreements, is_unitwise, require_clampable, require_consistent

ENERGIES = [Predictive(), Hopfield(), Lifted()]
CLAIMS = {  # what each says beyond its value
    Predictive: ["error", "error_feedback", "feedforward"],
    Hopfield: ["displacement", "displacement_feedback"],
    Lifted: ["error", "error_feedback", "feedforward"],
}
EXACT = [(energy, name) for energy in ENERGIES for name in CLAIMS[type(energy)] if name != "feedforward"]
each_energy = pytest.mark.parametrize("energy", ENERGIES, ids=lambda energy: type(energy).__name__)
each_activation = pytest.mark.parametrize("name", ACTIVATIONS)


@each_energy
@each_activation
def test_shipped_energies_keep_it(energy, name):
    require_consistent(energy, {name: activation(name)})
    assert set(disagreements(energy, activation(name))) == {"respond", "feedback", *CLAIMS[type(energy)]}


def wrong(base: type[Energy], function: str, change) -> Energy:
    """A shipped energy with one of its functions changed."""
    honest = getattr(base, function)
    return type("Mine", (base,), {function: lambda self, *arguments: change(honest(self, *arguments))})()


@pytest.mark.parametrize(("energy", "function"), [*((energy, "feedback") for energy in ENERGIES), *EXACT])
@pytest.mark.parametrize("change", [lambda v: -v, lambda v: 2 * v, lambda v: v / 2, lambda v: 1.0001 * v],
                         ids=["sign", "twice", "half", "slightly"])
def test_a_wrong_sign_or_factor_is_found(energy, function, change):
    mine = wrong(type(energy), function, change)
    assert disagreements(mine, activation("tanh"))[function] > 1e-6
    with pytest.raises(ConfigError, match=r"Mine\.\w+ contradicts its value\(\) by .* for tanh units: mend it"):
        require_consistent(mine, {"tanh": activation("tanh")})


@pytest.mark.parametrize(("energy", "function"), EXACT)
def test_it_names_the_function_that_is_wrong(energy, function):
    """These are compared with respond and feedback, which are right."""
    mine = wrong(type(energy), function, lambda v: 2 * v)
    with pytest.raises(ConfigError, match=rf"Mine\.{function} contradicts"):
        require_consistent(mine, {"tanh": activation("tanh")})


class Plain(Energy):
    """Predictive coding by three functions, each of which a test may get wrong."""

    feedforward = True

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
    with pytest.raises(ConfigError, match=rf"Mine\.{function} contradicts its value\(\) by .* let ByValue derive it"):
        require_consistent(mine, {"sigmoid": activation("sigmoid")})


@pytest.mark.parametrize(("function", "mistake"), [
    ("respond", lambda self, a, t, f: t.add_(f(a))),
    ("feedback", lambda self, x, a, f: f.pullback(f(a), x.sub_(f(a)))),
    ("error_feedback", lambda self, e, a, rest, f: e.mul_(f.pullback(rest, torch.ones_like(e)))),
])
def test_functions_that_write_into_their_arguments_are_refused(function, mistake):
    """Their results are right, and what the caller still holds is not."""
    mistake.__name__ = function  # as a `def` would have it
    mine = type("Mine", (Predictive,), {function: mistake})()
    with pytest.raises(ConfigError, match=rf"Mine\.{function} writes into its arguments"):
        require_consistent(mine, {"sigmoid": activation("sigmoid")})


@pytest.mark.parametrize("value", [lambda self, x, a, f: (x - f(a)).square(),
                                   lambda self, x, a, f: -(x - f(a)).square() / 2,
                                   lambda self, x, a, f: (x - a).square() / 2],
                         ids=["without half", "sign", "without f"])
def test_mistakes_in_the_value_show_in_the_others(value):
    mine = type("Mine", (Plain,), {"value": value})()
    with pytest.raises(ConfigError, match=r"contradicts its value\(\)"):
        require_consistent(mine, {"sigmoid": activation("sigmoid")})


def test_every_activation_in_use_is_checked():
    """x - f(a) is the feedback for identity units, and only for those."""
    mine = type("Mine", (Plain,), {"feedback": lambda self, x, a, f: x - f(a)})()
    require_consistent(mine, {"identity": activation("identity")})
    with pytest.raises(ConfigError, match="for tanh units"):
        require_consistent(mine, {"identity": activation("identity"), "tanh": activation("tanh")})


class Quartic(ByValue):
    """E = e^2 / 2 + e^4 / 4 with e = x - f(a), which is 0, its least, at the forward pass."""

    feedforward = True

    def value(self, x, a, f):
        error = x - f(a)
        return error.square() / 2 + error**4 / 4


def test_value_alone_keeps_it():
    for name in ("identity", "tanh", "sigmoid", "relu", "hard_sigmoid"):
        require_consistent(Quartic(), {name: activation(name)})


@each_activation
def test_which_energies_rest_at_the_forward_pass(name):
    """Predictive and lifted: E is 0, its least, at x = f(a), so that dE/da is 0 there. Hopfield sends x = f(a), so
    that f(a) is what its declaration would be wrong by, relative to 1."""
    f = activation(name)
    for energy in (Predictive(), Lifted()):
        assert disagreements(energy, f)["feedforward"] < 1e-12
    declared = type("Mine", (Hopfield,), {"feedforward": True})()
    assert disagreements(declared, f)["feedforward"] > 0.1
    with pytest.raises(ConfigError, match=r"Mine\.feedforward contradicts.*: declare feedforward = False"):
        require_consistent(declared, {name: f})


class Wide(ByValue):
    """E = (x - 2 f(a))^2 / 2: it sends nothing at rest, but rests elsewhere than the forward pass."""

    def value(self, x, a, f):
        return (x - 2 * f(a)).square() / 2


class Sending(ByValue):
    """E = (x - f(a))^2 / 2 - a / 10: it rests at the forward pass and sends a tenth there."""

    def value(self, x, a, f):
        return (x - f(a)).square() / 2 - a / 10


@pytest.mark.parametrize("kind", [Wide, Sending])
def test_half_of_a_forward_pass_at_rest_is_none(kind):
    require_consistent(kind(), {"tanh": activation("tanh")})
    with pytest.raises(ConfigError, match=r"Mine\.feedforward contradicts.*: declare feedforward = False"):
        require_consistent(type("Mine", (kind,), {"feedforward": True})(), {"tanh": activation("tanh")})


def test_units_that_are_coupled_have_no_minimum_one_by_one():
    """E = ||x - f(a)||^2 / 2 + (sum x)^2 / 2 of an example."""
    def value(self, x, a, f):
        return (x - f(a)).square().sum(1) / 2 + x.sum(1).square() / 2

    mine = type("Mine", (ByValue,), {"value": value})()
    assert is_unitwise(Quartic(), activation("tanh")) and not is_unitwise(mine, activation("tanh"))
    with pytest.raises(ConfigError, match=r"Mine\.value couples the units of a layer.*supply respond"):
        require_consistent(mine, {"tanh": activation("tanh")})


def test_what_a_users_function_raises_is_said_in_one_line():
    def value(self, x, a, f):
        raise KeyError("no such thing")

    with pytest.raises(ConfigError, match=r"Mine fails on random states of tanh units \(KeyError: 'no such thing'\)"):
        require_consistent(type("Mine", (Plain,), {"value": value})(), {"tanh": activation("tanh")})


# Clamping adds feedback(y, a) - feedback(f(a), a) at the output: f'(a)(y - f(a)) for predictive, y - f(a) for the
# others. Squared error asks for f'(a)(y - f(a)): the two are the same for identity units only. Cross entropy of
# softmax units asks for f'(a)(y / f(a)) = y - f(a), as y sums to 1; of logits, for y - softmax(a).
CLAMPABLE = {("Predictive", "SquaredError", name) for name in ACTIVATIONS} | {
    ("Hopfield", "SquaredError", "identity"), ("Lifted", "SquaredError", "identity"),
    ("Hopfield", "CrossEntropy", "softmax"), ("Lifted", "CrossEntropy", "softmax")}


@each_energy
@pytest.mark.parametrize("cost", [*(SquaredError(f) for f in ACTIVATIONS.values()),
                                  *(CrossEntropy(activation(name)) for name in ("identity", "softmax"))],
                         ids=lambda cost: f"{type(cost).__name__} of {type(cost.output).__name__}")
def test_clamping_asks_for_the_cost_that_matches(energy, cost):
    output = next(name for name, f in ACTIVATIONS.items() if f is cost.output)
    if (type(energy).__name__, type(cost).__name__, output) in CLAMPABLE:
        require_clampable(energy, cost, output)
    else:
        message = rf"clamping arch.output={output} under {type(energy).__name__} does not follow cost.*match them"
        with pytest.raises(ConfigError, match=message):
            require_clampable(energy, cost, output)
