"""A layer with its edges, and what makes a graph of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from ebmrun.errors import ConfigError
from ebmrun.theory.activations import Activation, Softmax
from ebmrun.theory.affine import Map

Edges = list[tuple[int, Map]]


class Layer(nn.Module):
    """The edges that make a drive, each with the number of its source, and the activation that makes a state of it.

    ``name`` stands in metrics (``alignment/cosine/NAME``) and messages; by default the layer's number, as in layer3."""

    def __init__(self, edges: Sequence[tuple[int, Map]], activation: Activation, name: str | None = None) -> None:
        super().__init__()
        self.edges: Edges = list(edges)
        self.maps = nn.ModuleList(affine for _, affine in edges)
        self.activation, self.name = activation, name


def require_graph(names: Sequence[str], layers: Sequence[Layer]) -> None:
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


def heights_of(edges: Sequence[Edges]) -> list[int]:
    """h_l: the number of edges on the longest way from layer l to the output."""
    heights = [0] * (len(edges) + 1)
    for l in range(len(edges), 0, -1):
        for source, _ in edges[l - 1]:
            heights[source] = max(heights[source], heights[l] + 1)
    return heights[1:]


def gains_of(gain: float | Sequence[float], depth: int) -> list[float]:
    """The gain of each layer. Raises ConfigError for one that is not positive, and for a list of another length."""
    gains = list(gain) if isinstance(gain, Sequence) and not isinstance(gain, str) else [gain] * depth
    if len(gains) != depth:
        raise ConfigError(f"arch.gain={gain} and the network's layers have different lengths ({len(gains)} and "
                          f"{depth}): use one number, or one a layer")
    for each in gains:
        if isinstance(each, bool) or not isinstance(each, (int, float)) or not 0 < each < math.inf:
            raise ConfigError(f"arch.gain={gain} must be a positive number: 1 is usual, 1.7 keeps signals in deep nets")
    return gains
