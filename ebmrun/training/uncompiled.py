"""torch's optimizers without torch's compiler.

Each of them loads ``torch._dynamo`` to say that it should not be compiled, at its making and at each step. Where
nothing is compiled, that takes nearly as long as loading the rest of torch. A stand-in gives the same two answers, and
makes way for the compiler itself as soon as anything else is asked of it, or of a module below it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any

import torch

NAME = "torch._dynamo"


class StandIn(ModuleType):
    """In the place of the compiler's front end."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.__path__ = []

    def disable(self, function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """The function, which nothing compiles."""
        return function

    def graph_break(self, *_: Any, **__: Any) -> None:
        """Nothing: there is no graph."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what looks at every module, as inspect does, asks nothing of this one
            raise AttributeError(name)
        return getattr(give_way(), name)


class Below(MetaPathFinder, Loader):
    """Finds modules below the stand-in: those of the compiler, which takes its place first."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(f"{NAME}.") or not isinstance(sys.modules.get(NAME), StandIn):
            return None
        give_way()
        return spec_from_loader(name, self) if name in sys.modules else find_spec(name)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it has been."""


def without_compiler() -> None:
    """Puts the stand-in where the compiler would be, unless that is loaded already."""
    if NAME not in sys.modules:
        sys.modules[NAME] = torch._dynamo = StandIn()
        sys.meta_path.insert(0, Below())


def give_way() -> ModuleType:
    """The compiler itself, loaded in place of the stand-in."""
    if isinstance(sys.modules.get(NAME), StandIn):
        del sys.modules[NAME]
    return importlib.import_module(NAME)
