"""Whether the parts of a configuration fit each other; each function raises ConfigError where they do not."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from ebmrun.config import Config
from ebmrun.errors import ConfigError
from ebmrun.theory.algorithm import Algorithm, Stepwise
from ebmrun.theory.cost import Cost
from ebmrun.theory.energies import Energy, ExactDisplacement, ExactError, contract
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.relaxing import Relaxation

PLAIN = ("auto", "none")  # ways to relax by plain steps, where there is no minimum


def require_use(config: Config, algorithm: Algorithm, name: str) -> None:
    """Every part that is set against an algorithm that would not see it."""
    noise, member, without = config.noise, isinstance(algorithm, EnergyLearning), f"has no use in algo={name}, which"
    for key, plain in (("random_sign", False), ("joint", False), ("holds", False), ("points", 1)):
        if getattr(config.nudge, key) != plain and not member:
            raise ConfigError(f"nudge.{key}={getattr(config.nudge, key)} {without} nudges nothing: leave it out, or "
                              "use algo=ep")
    if config.trainer.update == "each_step" and not isinstance(algorithm, Stepwise):
        raise ConfigError(f"trainer.update={config.trainer.update} {without} learns from no step of a relaxation: "
                          "leave it out, or use algo=pc_incremental")
    for key in ("states", "messages", "readings", "reading_bits"):
        if getattr(noise, key) and not member:
            raise ConfigError(f"noise.{key}={getattr(noise, key)} {without} relaxes and reads no states: leave it out "
                              "(weight_bits, asymmetry and mismatch go with any algo), or use algo=ep")


def require_one_way(config: Config) -> None:
    """Joint nodes, complex ones, weights that move with the states, and a machine's noise against each other."""
    nudge, each_step, noise = config.nudge, config.trainer.update == "each_step", config.noise
    if each_step and (nudge.points > 1 or nudge.joint):
        raise ConfigError(f"trainer.update={config.trainer.update} moves real nodes by themselves, and nudge.points="
                          f"{nudge.points} with nudge.joint={nudge.joint} moves others: set nudge.points=1 and "
                          "nudge.joint=false")
    if noise.estimated and (nudge.joint or each_step):
        what, other = ((f"trainer.update={config.trainer.update}", "trainer.update=at_equilibrium") if each_step else
                       (f"nudge.joint={nudge.joint}", "nudge.joint=false"))
        raise ConfigError(f"{what} is not built for noise of states, messages or readings: leave the noise out "
                          f"(weight_bits, asymmetry and mismatch go with any), or set {other}")


def require_relaxation(energy: Energy, config: Config, network: Network) -> None:
    """The way to relax against equilibria that are not the forward pass, and against those that are no minima."""
    how, noise = config.relax, config.noise
    if how.frozen:
        require_forward(energy, f"relax.frozen={how.frozen}")
    if noise.moves:
        require_way(how, f"noise.states={noise.states} and noise.messages={noise.messages}, which leave no smooth "
                    "energy", acceleration=PLAIN)
    if not network.tied:
        require_way(how, "messages that go down by weights of their own, for which there is no energy",
                    acceleration=(*PLAIN, "anderson"))


def require_nodes(energy: Energy, config: Config) -> None:
    """The same against joint nodes, complex ones, and weights that move with the states."""
    nudge, how, update = config.nudge, config.relax, f"trainer.update={config.trainer.update}"
    if config.trainer.update == "each_step":
        require_forward(energy, update)
        require_way(how, f"{update}, whose states are kept while weights move", frozen=(False,), coordinates=("state",),
                    acceleration=("none",))
    if nudge.joint:
        require_forward(energy, f"nudge.joint={nudge.joint}")
        require_way(how, f"nudge.joint={nudge.joint}, whose nodes rest at no minimum", frozen=(False,),
                    coordinates=("error",), acceleration=PLAIN)
    if nudge.points > 1:
        require_way(how, f"nudge.points={nudge.points}, whose states are complex", frozen=(False,),
                    acceleration=(*PLAIN, "adaptive"))


def require_forward(energy: Energy, what: str) -> None:
    """What starts at the forward pass needs an energy that rests there."""
    if not energy.feedforward:
        raise ConfigError(f"{what} holds the forward pass, or starts there, which is no equilibrium of "
                          f"{type(energy).__name__}: use energy=predictive or energy=lifted, or leave it out")


def require_way(how: Relaxation, what: str, **goes: Sequence[str | bool]) -> None:
    """The options of ``relax`` that go with something, key by key."""
    for key, values in goes.items():
        if getattr(how, key) not in values:
            raise ConfigError(f"relax.{key}={getattr(how, key)} does not go with {what}: use relax.{key}="
                              f"{' or '.join(map(str, values))}")


def require_nudge(energy: Energy, config: Config, network: Network, cost: Cost, output: str) -> None:
    """The nudge against energy, cost and precision; ``output`` names the activation that is clamped."""
    if config.nudge.clamps:
        contract.require_clampable(energy, cost, output)
    if config.nudge.needs_no_free_gradient and not energy.feedforward:
        raise ConfigError(f"nudge.weights={config.nudge.weights} need an energy without a gradient at its free "
                          f"equilibrium, and {type(energy).__name__} does not declare feedforward = True: use "
                          "nudge=one_sided or centered")
    bend = -config.nudge.lowest * cost.curvature
    if not config.nudge.clamps and bend >= 1:
        raise ConfigError(f"nudge.strength={config.nudge.strength} nudges by {config.nudge.lowest:g}, where energy and "
                          f"cost have no minimum: use a nudge.strength below {config.nudge.strength / bend:g}")
    require_digits(energy, max(network.heights) + 1, config)


def require_digits(energy: Energy, depth: int, config: Config) -> None:
    """Whether the displacement of layer l, about lambda gamma^(L-l) of its state, keeps digits. Stored in the state, or
    found by subtraction, it must exceed the round-off of the state; stored by itself, the smallest number. A held
    output is told from its free state by their digits in any case.

    Raises ConfigError where no digit is left of it, and warns below two.
    """
    info, gain = torch.finfo(config.dtype), energy.feedback_gain
    if gain ** (depth - 1) < info.tiny:
        raise ConfigError(f"energy.feedback_gain={gain} over {depth} layers falls below the smallest number of "
                          f"{config.precision}: use {1.1 * info.tiny ** (1 / (depth - 1)):.2g} or more")
    held = config.relax.coordinates == "state" or not isinstance(energy, (ExactError, ExactDisplacement))
    floor = info.eps if held else info.tiny
    least = info.eps if config.nudge.holds else floor
    mends = "precision=float64" + ("" if config.relax.coordinates == "error" else ", or relax.coordinates=error")
    strength = min(abs(each) for each in config.nudge.strengths)
    if strength < 10 * least:
        raise ConfigError(f"nudge.strength={config.nudge.strength} displaces states by less than the digits that "
                          f"{config.precision} leaves: use {100 * least:.1g} or more, {mends}")
    bits, apart = config.noise.reading_bits, 0.0
    if bits is not None:
        apart = 2 * config.noise.reading_range / (2**bits - 2)
    if strength < apart / 2:
        warnings.warn(f"nudge.strength={config.nudge.strength} displaces states by less than noise.reading_bits={bits} "
                      f"tell apart, {apart:.1g}, so that little of the gradient is read: use {apart:.1g} or more, or "
                      "more bits", stacklevel=2)
    drowned = [l for l in range(1, depth) if min(strength, 1) * gain ** (depth - l) < 100 * floor]
    if drowned and gain < 1:
        better = 1.1 * (100 * floor / min(strength, 1)) ** (1 / (depth - 1))
        warnings.warn(f"energy.feedback_gain={gain} leaves layer {drowned[-1]} of {depth} no digits in "
                      f"{config.precision}: use {better:.2g} or more, {mends}", stacklevel=2)
