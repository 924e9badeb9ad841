"""The activations, by their name in ``arch.activation``."""

from __future__ import annotations

from ebmrun.errors import ConfigError
from ebmrun.theory.activations.abstract import Activation
from ebmrun.theory.activations.piecewise_linear import Clip, Identity, LeakyRelu, Relu
from ebmrun.theory.activations.smooth import Elu, Sigmoid, Softmax, Softplus, Tanh

__all__ = ["ACTIVATIONS", "Activation", "Clip", "Elu", "Identity", "LeakyRelu", "Relu", "Sigmoid", "Softmax",
           "Softplus", "Tanh", "activation"]

ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "relu": Relu(),
    "leaky_relu": LeakyRelu(0.01),
    "relu6": Clip(0.0, 6.0),
    "elu": Elu(),
    "softplus": Softplus(),
    "tanh": Tanh(),
    "hard_tanh": Clip(-1.0, 1.0),
    "sigmoid": Sigmoid(),
    "hard_sigmoid": Clip(0.0, 1.0),
    "softmax": Softmax(),
}


def activation(name: str) -> Activation:
    """The activation of that name. Raises ConfigError when there is none."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ConfigError(f"activation '{name}' is unknown: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
