"""What `ebmrun --help` says: every group with its options, and how to use them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

TEXT = """ebmrun trains energy-based networks and measures how close their gradients are to backpropagation.

Usage: ebmrun [GROUP=OPTION ...] [KEY=VALUE ...]

Groups:
{groups}

Examples:
  ebmrun algo=pc dataset=mnist                  predictive coding on MNIST
  ebmrun algo=pc nudge.strength=1e-2            override any key of the configuration
  ebmrun -m algo=bp,pc seed=range(3)            a run of each combination, under multirun/
  ebmrun algo=pc --cfg job                      show the whole configuration, and run nothing
  eval "$(ebmrun --completion bash)"            complete groups, options and keys with TAB (also zsh, fish)

Groups and keys of your own: put files in conf/GROUP/ of the current folder, then write GROUP=NAME."""


def text(folders: Iterable[Path]) -> str:
    """The whole of it, for configurations in these folders."""
    found = options(folders)
    return TEXT.format(groups="\n".join(f"{group}: {', '.join(found[group])}" for group in sorted(found)))


def options(folders: Iterable[Path]) -> dict[str, list[str]]:
    """The options of each group: the files of the folders of that name."""
    found: dict[str, set[str]] = {}
    for path in (path for folder in folders for path in folder.glob("*/*.yaml")):
        if path.parent.name != "hydra":
            found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(names) for group, names in found.items()}
