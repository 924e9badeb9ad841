"""In which values two configurations differ, and a refusal where they must not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ebmrun.errors import ConfigError

ABSENT = "absent"


def difference(saved: Mapping[str, Any], current: Mapping[str, Any], ignore: Collection[str] = ()) -> list[str]:
    """One line `key: saved X, now Y` for each value in which two nested configs differ, in order of the keys.

    Keys are dotted (`optim.lr`); a key in `ignore` stands for all below it, too.
    """
    before, now = (dict(_leaves(config, frozenset(ignore))) for config in (saved, current))
    return [f"{key}: saved {before.get(key, ABSENT)}, now {now.get(key, ABSENT)}"
            for key in sorted(before.keys() | now.keys()) if before.get(key, ABSENT) != now.get(key, ABSENT)]


def require_same(path: Path, saved: Mapping[str, Any], current: Mapping[str, Any],
                 ignore: Collection[str] = ()) -> None:
    """Raise ConfigError, naming all that differs, unless the file at `path` comes from a run of the current config."""
    if lines := difference(saved, current, ignore):
        raise ConfigError(f"{path} does not fit: {'; '.join(lines)}. Use the saved values, begin again with "
                          "resume=false, or choose another folder with hydra.run.dir=PATH")


def _leaves(config: Mapping[str, Any], ignore: frozenset[str], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        key = f"{above}{name}"
        if key in ignore:
            continue
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, ignore, f"{key}.")
        else:
            yield key, value
