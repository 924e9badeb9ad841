"""ebmrun trains energy-based networks and measures how close their gradients are to backpropagation.

From Python, in the command's words: ``compose`` a configuration, ``build`` its parts, ``train``, ``load`` a run. To
derive from: ``Energy`` (or ``ByValue``), ``Cost``, ``Activation``, ``Map``, ``Untied``; to build of: ``Network``,
``Layer`` and the maps. Each is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same as below, for type checkers and editors
    from ebmrun.api import Run as Run
    from ebmrun.api import Trial as Trial
    from ebmrun.api import build as build
    from ebmrun.api import compose as compose
    from ebmrun.api import load as load
    from ebmrun.api import train as train
    from ebmrun.errors import ConfigError as ConfigError
    from ebmrun.errors import RunError as RunError
    from ebmrun.theory.activations import ACTIVATIONS as ACTIVATIONS
    from ebmrun.theory.activations import Activation as Activation
    from ebmrun.theory.affine import AvgPool2d as AvgPool2d
    from ebmrun.theory.affine import Chain as Chain
    from ebmrun.theory.affine import Conv2d as Conv2d
    from ebmrun.theory.affine import Linear as Linear
    from ebmrun.theory.affine import Map as Map
    from ebmrun.theory.affine import MaxPool2d as MaxPool2d
    from ebmrun.theory.affine import Skip as Skip
    from ebmrun.theory.affine import Weighted as Weighted
    from ebmrun.theory.affine import Wrapped as Wrapped
    from ebmrun.theory.algorithm import Algorithm as Algorithm
    from ebmrun.theory.algorithm import Estimate as Estimate
    from ebmrun.theory.algorithm import Prediction as Prediction
    from ebmrun.theory.cost import Cost as Cost
    from ebmrun.theory.energies import ByValue as ByValue
    from ebmrun.theory.energies import Energy as Energy
    from ebmrun.theory.energies import ExactDisplacement as ExactDisplacement
    from ebmrun.theory.energies import ExactError as ExactError
    from ebmrun.theory.feedback import Untied as Untied
    from ebmrun.theory.network import Layer as Layer
    from ebmrun.theory.network import Network as Network

__version__ = "0.2.0"

PLACES = {
    "api": "Run Trial build compose load train",
    "errors": "ConfigError RunError",
    "theory.activations": "ACTIVATIONS Activation",
    "theory.affine": "AvgPool2d Chain Conv2d Linear Map MaxPool2d Skip Weighted Wrapped",
    "theory.algorithm": "Algorithm Estimate Prediction",
    "theory.cost": "Cost",
    "theory.energies": "ByValue Energy ExactDisplacement ExactError",
    "theory.feedback": "Untied",
    "theory.network": "Layer Network",
}
PLACE = {name: place for place, names in PLACES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in PLACE:
        raise AttributeError(f"module 'ebmrun' has no attribute '{name}'; it offers {', '.join(sorted(PLACE))}")
    return getattr(import_module(f"ebmrun.{PLACE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*PLACE, "__version__"])
