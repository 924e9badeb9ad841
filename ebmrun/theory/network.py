"""A network: layers l = 1..L, each with edges (source k, map A_lk) from layers below it, and an activation f_l.

    a_l = sum_k A_lk(x_k),      forward pass: x_l = f_l(a_l)

Source 0 is the network's input x_0. A chain has one edge a layer, from the layer below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property

from jaxtyping import Float
from torch import Tensor, nn

from ebmrun.theory.activations import ACTIVATIONS, Activation
from ebmrun.theory.affine import Map, MaxPool2d, Weighted
from ebmrun.theory.graph import Layer, gains_of, heights_of, require_graph

__all__ = ["Layer", "Network"]


class Network(nn.Module):
    """Layers in an order in which every source comes before its use, and the gain of their initial weights: a number,
    or a list of one a layer. Raises ConfigError where ``require_graph`` and ``gains_of`` do.

    ``heights`` h_l are the numbers of edges on the longest way to the output, ``inner`` the edges of each layer that
    come from another one, with its place in lists, ``learned`` those whose maps have parameters, ``untied`` the maps
    whose way down has weights of its own. They are kept in plain lists, which cost less at each access than modules
    do."""

    def __init__(self, layers: Sequence[Layer], gain: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        self.layers, self.depth, self.gains = nn.ModuleList(layers), len(layers), gains_of(gain, len(layers))
        self.edges = [layer.edges for layer in layers]
        self.activations = [layer.activation for layer in layers]
        self.names = [layer.name or f"layer{l}" for l, layer in enumerate(layers, 1)]
        require_graph(self.names, layers)
        self.heights = heights_of(self.edges)
        self.hears_layers = [any(source for source, _ in edges) for edges in self.edges]
        self.adds_input = any(hears and source == 0 for hears, edges in zip(self.hears_layers, self.edges)
                              for source, _ in edges)
        self.pools = [any(source > 0 and isinstance(affine, MaxPool2d) for source, affine in edges)
                      for edges in self.edges]
        self.kinked = any(f.kinks for f in self.activations)
        self.inner = [[(edge, source - 1) for edge, (source, _) in enumerate(edges) if source] for edges in self.edges]
        self.learned = [[(edge, affine) for edge, (_, affine) in enumerate(edges) if list(affine.parameters())]
                        for edges in self.edges]
        self.untied: list[list[Weighted]] = [[] for _ in layers]
        self._feedback_gains: dict[float, list[list[float]]] = {}

    def feedback_gains(self, gamma: float) -> list[list[float]]:
        """gamma^(h_k - h_l) for each edge from layer k to layer l; 1 for the input."""
        if gamma not in self._feedback_gains:
            drops = [[self.heights[source - 1] - height if source else 0 for source, _ in edges]
                     for edges, height in zip(self.edges, self.heights)]
            self._feedback_gains[gamma] = [[gamma**drop for drop in each] for each in drops]
        return self._feedback_gains[gamma]

    def forward(self, x: Float[Tensor, "batch *inputs"]) -> Float[Tensor, "batch outputs"]:
        states = [x]
        for edges, f in zip(self.edges, self.activations):
            (source, affine), *rest = edges
            a = affine(states[source])
            for source, affine in rest:
                a = a + affine(states[source])
            states.append(f(a))
        return states[-1]

    def through(self, change: Callable[[Map], Map]) -> Network:
        """The same layers with the same parameters, each map changed into another."""
        twin = copy(self)
        twin.edges = [[(source, change(affine)) for source, affine in edges] for edges in self.edges]
        twin.learned = [[(edge, edges[edge][1]) for edge, _ in learned]
                        for edges, learned in zip(twin.edges, self.learned)]
        return twin

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
    def tied(self) -> bool:
        """Whether all messages go down by the transposes of the maps, so that there is an energy."""
        return not any(self.untied)

    def followers(self, l: int) -> list[tuple[nn.Parameter, Tensor]]:
        """Weights of layer l, and the numbers of its way down that take the same steps."""
        return [(affine.weight, affine.feedback) for affine in self.untied[l] if affine.follows]

    @property
    def output(self) -> Activation:
        return self.activations[-1]

    def by_layer(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Tensors in the order of ``parameters()``, grouped by the layer that they belong to."""
        rest = iter(tensors)
        return [[next(rest) for _ in layer.parameters()] for layer in self.layers]
