"""The weights by which messages go down: those of the way up, or others.

    t_k = gamma^(h_k - h_l) B_lk^T m_l

With B = W there is an energy whose minimum the relaxation seeks. With any other B there is none, but the same dynamics
and the same learning rule, which need no neuron to know the weights of another's synapses. Where the free equilibrium
is the forward pass, they tend to feedback alignment (Lillicrap et al. 2016) as the nudge vanishes, and everywhere else
as the feedback gain does: backpropagation with B in place of W.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch

from ebmrun.errors import ConfigError
from ebmrun.theory.affine import Map, Weighted
from ebmrun.theory.affine.weighted import Weight
from ebmrun.theory.alignment import alignment
from ebmrun.theory.initial_weights import uniform
from ebmrun.theory.network import Network


class Feedback(ABC):
    """Where the weights B come from."""

    @abstractmethod
    def give(self, network: Network, seed: int) -> None:
        """Puts them into the maps of a network whose weights have been drawn. Raises ConfigError where it cannot."""


class Tied(Feedback):
    """B = W."""

    def give(self, network: Network, seed: int) -> None:
        """Nothing: maps are made so."""


class Untied(Feedback):
    """B follows from the present W and from numbers N of its shape, which are drawn once, on the CPU, as a function of
    the seed. ``follows`` says that N takes every step that W takes: the same gradient, by the same optimizer."""

    follows = False

    @abstractmethod
    def weight(self, forward: Weight, own: Weight) -> Weight:
        """B, from W and N."""

    def draw(self, draws: np.random.Generator, affine: Weighted, gain: float) -> Weight:
        """N, for the gain of the layer: by default from the law of the initial weights."""
        return uniform(torch.from_numpy(draws.random(affine.weight.shape)), affine, gain)

    def give(self, network: Network, seed: int) -> None:
        draws = np.random.default_rng([seed, 0, 3])
        for l, (name, gain) in enumerate(zip(network.names, network.gains)):
            network.untied[l] = [module for source, affine in network.edges[l]
                                 for module in passed_down(name, affine, source == 0)]
            for module in network.untied[l]:
                module.untie(self.draw(draws, module, gain).to(module.weight), self.weight, self.follows)


class Random(Untied):
    """B = N (Lillicrap et al. 2016)."""

    def weight(self, forward: Weight, own: Weight) -> Weight:
        return own


class Sign(Untied):
    """B = sign(W) |N| (Liao, Leibo & Poggio 2016; Xiao et al. 2018)."""

    def weight(self, forward: Weight, own: Weight) -> Weight:
        return torch.copysign(own, forward)


class KolenPollack(Random):
    """B = N, which takes the steps of W, so that both become one as weights decay (Kolen & Pollack 1994; Akrout et al.
    2019): with a decay d and the learning rate eta, each step leaves 1 - eta d of W - B."""

    follows = True


class Mismatched(Untied):
    """B = W (1 + N), N of mean 0 and a relative standard ``deviation``: two devices that should be one."""

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation

    def weight(self, forward: Weight, own: Weight) -> Weight:
        return forward * (1 + own)

    def draw(self, draws: np.random.Generator, affine: Weighted, gain: float) -> Weight:
        return torch.from_numpy(self.deviation * draws.standard_normal(affine.weight.shape))


def passed_down(name: str, affine: Map, from_input: bool) -> list[Weighted]:
    """The maps with weights that messages pass in an edge, on their way to the layer below or to a map before it in a
    chain, which from the input are all but the first. Raises ConfigError for one that can have no others beside its
    own."""
    maps = [each for each in affine.modules() if isinstance(each, Map) and owns_parameters(each)]
    maps = maps[1:] if from_input else maps
    for each in maps:
        if not isinstance(each, Weighted):
            raise ConfigError(f"{name} has a {type(each).__name__}, whose parameters serve both ways: build it from "
                              "Linear, Conv2d or a Weighted of your own, or use feedback=tied")
    return [each for each in maps if isinstance(each, Weighted)]


def owns_parameters(affine: Map) -> bool:
    """Whether a map has parameters beyond those of maps in it."""
    within = {id(p) for each in affine.modules() if isinstance(each, Map) and each is not affine
              for p in each.parameters()}
    return any(id(p) not in within for p in affine.parameters())


def angles(network: Network) -> dict[str, float]:
    """Between B and W in degrees, over all maps and by layer: feedback/angle, feedback/angle/NAME. None of a network
    whose messages go down by the transposes."""
    pairs = {name: maps for name, maps in zip(network.names, network.untied) if maps}
    if not pairs:
        return {}
    found = alignment([[each.down["weight"] for each in maps] for maps in pairs.values()],
                      [[each.weight for each in maps] for maps in pairs.values()], "feedback", list(pairs))
    return {key: value for key, value in found.items() if "/angle" in key}
