"""What a network must be for an energy to be right on it, measured before it is used."""

from __future__ import annotations

from ebmrun.errors import ConfigError
from ebmrun.theory.affine import Map
from ebmrun.theory.affine.contract import disagreement
from ebmrun.theory.network import Network


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
        if not parameter.requires_grad:
            raise ConfigError(f"{key} of the network has requires_grad=False, but the learning rule moves every "
                              "parameter: make it a buffer")
        if id(parameter) not in owners:
            raise ConfigError(f"{key} of the network is a parameter of no layer's map, which no learning rule moves: "
                              "make it a part of a map, or a buffer")
