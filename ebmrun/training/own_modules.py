"""The user's own modules behind a run: those that its configuration names, and what they import."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

NOT_OWN = (Path(__file__).resolve().parents[1], Path(sysconfig.get_path("stdlib")).resolve())
INSTALLED = {"site-packages", "dist-packages"}


def own_modules(config: Any) -> dict[str, Path]:
    """Names and files of the loaded modules that a configuration names (``_target_: my_energy.Mine``), and of those
    that they import, as far as they are the user's: neither ebmrun's, nor Python's, nor installed."""
    found: dict[str, Path] = {}
    left = [module for path in _strings(config) for module in _modules_of(path)]
    while left:
        name = left.pop()
        path = _own_file(name)
        if path and name not in found:
            found[name] = path
            left += _imports(name, path)
    return dict(sorted(found.items()))


@cache  # what runs is what was loaded, whatever becomes of the file
def digest(path: Path) -> str:
    """The first sixteen digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _strings(config: Any) -> Iterator[str]:
    if isinstance(config, str):
        yield config
    elif isinstance(config, Mapping):
        yield from (text for value in config.values() for text in _strings(value))
    elif isinstance(config, (list, tuple)):
        yield from (text for value in config for text in _strings(value))


def _modules_of(path: str) -> list[str]:
    """The loaded modules that a dotted path leads through, its last part left out."""
    parts = path.split(".")
    heads = (".".join(parts[:end]) for end in range(1, len(parts)))
    return [head for head in heads if head in sys.modules]


def _own_file(name: str) -> Path | None:
    file = getattr(sys.modules.get(name), "__file__", None)
    path = Path(file or "").resolve()
    if not path.is_file() or INSTALLED & set(path.parts) or any(path.is_relative_to(each) for each in NOT_OWN):
        return None
    return path


def _imports(name: str, path: Path) -> list[str]:
    """The loaded modules that a source imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # no source, such as an extension
        return []
    package = (sys.modules[name].__package__ or "").split(".")
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [module for each in node.names for module in _modules_of(f"{each.name}.")]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found += [module for each in node.names for module in _modules_of(f"{origin}.{each.name}.")]
    return found
