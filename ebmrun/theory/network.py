"""A network: layers l = 1..L, each with edges (source k, map A_lk) from layers below it, and an activation f_l.

    a_l = sum_k A_lk(x_k),      forward pass: x_l = f_l(a_l)

Source 0 is the network's input x_0. A chain has one edge a layer, from the layer below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import ACTIVATIONS, Activation, Softmax
from ebmrun.theory.affine import Conv2d, Linear, Map
from ebmrun.theory.affine.contract import disagreement


class Layer(nn.Module):
    """The edges that make a drive, each with the number of its source, and the activation that makes a state of it.

    ``name`` stands in metrics (``alignment/cosine/NAME``) and messages; by default the layer's number, as in layer3."""

    def __init__(self, edges: Sequence[tuple[int, Map]], activation: Activation, name: str | None = None) -> None:
        super().__init__()
        self.edges = list(edges)
        self.maps = nn.ModuleList(affine for _, affine in edges)
        self.activation, self.name = activation, name


class Network(nn.Module):
    """Layers in an order in which every source comes before its use, and the gain of their initial weights: a number,
    or a list of one a layer.

    Raises ConfigError for edges that do not fit together, a layer that nothing hears, names that are not unique,
    softmax below the output, and a gain that is not positive."""

    def __init__(self, layers: Sequence[Layer], gain: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        self.layers = cast(Sequence[Layer], nn.ModuleList(layers))
        self.edges = [layer.edges for layer in layers]  # as lists, without what modules cost at each access
        self.activations = [layer.activation for layer in layers]
        self.names = [layer.name or f"layer{l}" for l, layer in enumerate(layers, 1)]
        self.depth = len(layers)
        self.gains = _gains(gain, self.depth)
        _require_graph(self.names, layers)
        self.heights = _heights(self.edges)
        self.drops = [[self.heights[source - 1] - height if source else 0 for source, _ in edges]
                      for edges, height in zip(self.edges, self.heights)]  # the height that a message loses on an edge
        self.hears_layers = [any(source for source, _ in edges) for edges in self.edges]
        self.adds_input = any(hears and source == 0 for hears, edges in zip(self.hears_layers, self.edges)
                              for source, _ in edges)
        self.learned = [[(edge, affine) for edge, (_, affine) in enumerate(edges) if list(affine.parameters())]
                        for edges in self.edges]

    def forward(self, x: Float[Tensor, "batch *inputs"]) -> Float[Tensor, "batch outputs"]:
        states = [x]
        for edges, f in zip(self.edges, self.activations):
            (source, affine), *rest = edges
            a = affine(states[source])
            for source, affine in rest:
                a = a + affine(states[source])
            states.append(f(a))
        return states[-1]

    @cached_property
    def weights(self) -> list[nn.Parameter]:
        """``parameters()`` as a list, which costs a walk through the modules only once."""
        return list(self.parameters())

    @property
    def named_activations(self) -> dict[str, Activation]:
        """The activations, each once, by their name in ``arch.activation`` or else that of their class."""
        names = {id(f): name for name, f in ACTIVATIONS.items()}
        return {names.get(id(f), type(f).__name__): f for f in self.activations}

    @property
    def output(self) -> Activation:
        return self.activations[-1]

    def by_layer(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Tensors in the order of ``parameters()``, grouped by the layer that they belong to."""
        rest = iter(tensors)
        return [[next(rest) for _ in layer.parameters()] for layer in self.layers]


def _gains(gain: float | Sequence[float], depth: int) -> list[float]:
    gains = list(gain) if isinstance(gain, Sequence) and not isinstance(gain, str) else [gain] * depth
    if len(gains) != depth:
        raise ConfigError(f"arch.gain={gain} and the network's layers have different lengths ({len(gains)} and "
                          f"{depth}): use one number, or one a layer")
    for each in gains:
        if isinstance(each, bool) or not isinstance(each, (int, float)) or not 0 < each < math.inf:
            raise ConfigError(f"arch.gain={gain} must be a positive number: 1 is usual, 1.7 keeps signals in deep nets")
    return gains


def _require_graph(names: Sequence[str], layers: Sequence[Layer]) -> None:
    """Raises ConfigError for what makes no graph of layers."""
    if not layers:
        raise ConfigError("a network has no layer: give it one or more")
    if double := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{len(double)} layers have the name {double[0]}: use each name once")
    shapes: list[tuple[int, ...]] = []  # of the network's input and of each layer's states
    for l, (name, layer) in enumerate(zip(names, layers), 1):
        if not layer.edges:
            raise ConfigError(f"{name} has no edge: give it one from a layer below, or from the input (source 0)")
        output_shape = layer.edges[0][1].output_shape
        for source, affine in layer.edges:
            if not 0 <= source < l:
                raise ConfigError(f"{name} is layer {l} and has an edge from {source}: use 0 (the input) to {l - 1}")
            shapes = shapes or [affine.shape]
            if affine.shape != shapes[source]:
                below = f"{names[source - 1]} makes" if source else "the input has"
                raise ConfigError(f"{name} takes shape {affine.shape}, but {below} {shapes[source]}: use one shape")
            if affine.output_shape != output_shape:
                raise ConfigError(f"{name} adds shapes {output_shape} and {affine.output_shape}: use one shape")
        shapes.append(output_shape)
        if isinstance(layer.activation, Softmax) and l < len(layers):
            raise ConfigError(f"{name} has softmax units: they belong at the output, choose another activation")
    sources = {source for layer in layers for source, _ in layer.edges}
    for l, name in enumerate(names[:-1], 1):
        if l not in sources:
            raise ConfigError(f"{name} is not the source of any layer above it: add an edge from it, or remove it")


def _heights(edges: Sequence[Sequence[tuple[int, Map]]]) -> list[int]:
    """h_l: the number of edges on the longest way from layer l to the output."""
    heights = [0] * (len(edges) + 1)
    for l in range(len(edges), 0, -1):
        for source, _ in edges[l - 1]:
            heights[source] = max(heights[source], heights[l] + 1)
    return heights[1:]


def initialise(network: Network, seed: int) -> Network:
    """Weights uniform in +-gain/sqrt(fan-in) (Glorot & Bengio 2010, equation 1), biases in +-1/sqrt(fan-in), drawn on
    the CPU so that every device and every precision starts from the same numbers for the same seed. A gain of sqrt(3)
    gives weights the variance 1/fan-in, with which linear units keep the size of a signal through any depth (LeCun et
    al. 1998). Maps that wrap a module keep the weights that it was made with."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer, gain in zip(network.layers, network.gains):
            for module in layer.modules():
                if isinstance(module, (Linear, Conv2d)):
                    bound = 1 / math.sqrt(module.weight[0].numel())
                    for parameter, scale in ((module.weight, gain * module.gain), (module.bias, module.gain)):
                        draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                        parameter.copy_((2 * draw - 1) * bound * scale)
    return network


def require_affine(network: Network) -> None:
    """Raises ConfigError naming the layer for a map that is unfit for an energy (``affine.contract``)."""
    for name, edges in zip(network.names, network.edges):
        for _, affine in edges:
            if reason := disagreement(affine):
                raise ConfigError(f"{name} {reason}")


def require_owned(network: Network) -> None:
    """Raises ConfigError for a parameter that several maps share, or that belongs to none: the learning rule gives each
    map the gradient of its parameters."""
    owners: dict[int, str] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        parts = list(module.modules())[1:]
        if not isinstance(module, Map) or any(isinstance(part, Map) for part in parts):
            continue  # a chain's parameters are those of its maps
        for key, parameter in module.named_parameters():
            here = f"{name}.{key}"
            other = owners.setdefault(id(parameter), here)
            if other != here:
                raise ConfigError(f"{here} of the network is the same parameter as {other}: give each map its own, as "
                                  "with copy.deepcopy")
    for key, parameter in network.named_parameters():
        if id(parameter) not in owners:
            raise ConfigError(f"{key} of the network is a parameter of no layer's map, which no learning rule moves: "
                              "make it a part of a map, or a buffer")
