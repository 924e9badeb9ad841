"""What a folder of runs holds: a row for each finished run, and the reason why any other has none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from tqdm import tqdm

MEASURES = {
    "test/accuracy": "test accuracy",
    "test/loss": "test loss",
    "train/loss": "train loss",
    "alignment/angle": "angle, degrees",
    "alignment/relative_error": "relative error",
    "relax/steps": "relaxation steps",
    "relax/converged": "converged",
    "time/step_ms": "ms a step",
}


@dataclass(frozen=True)
class Runs:
    """What a folder holds: a row of ``table`` for each finished run, its metrics by folder, and what is amiss."""

    table: pd.DataFrame
    metrics: dict[str, pd.DataFrame]
    amiss: list[tuple[str, str]]


def read(folder: Path) -> Runs:
    """Every run below a folder. A run is a folder with a configuration, or with the note of a failure."""
    marks = (".hydra/config.yaml", "failed.json")
    places = sorted({path.parents[mark.count("/")] for mark in marks for path in folder.rglob(mark)})
    rows, metrics, amiss = [], {}, []
    for place in tqdm(places, unit="run", disable=None, dynamic_ncols=True):
        name = place.relative_to(folder).as_posix()
        try:
            reason = unfinished(place)
            if not reason:
                summary = json.loads((place / "summary.json").read_text())
                config = yaml.safe_load((place / ".hydra" / "config.yaml").read_text())
                row = {"run": name, "seed": summary["seed"], "algo": summary["algo"], **chosen(place),
                       **{key: summary.get(key) for key in MEASURES}, "strength": config["nudge"]["strength"]}
                metrics[name] = pd.read_csv(place / "metrics.csv")
                rows.append(row)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            reason = f"broken: {type(error).__name__}: {' '.join(str(error).split())}"
        if reason:
            amiss.append((name, reason))
    amiss += [(name, "missing: the sweep has no such run") for name in gaps(folder, places)]
    return Runs(pd.DataFrame(rows), metrics, amiss)


def unfinished(place: Path) -> str:
    """Why a run has no summary of all its rows; empty for one that has."""
    if (place / "failed.json").is_file():
        return f"failed: {json.loads((place / 'failed.json').read_text())['error']}"
    rows = (place / "metrics.csv").read_text().splitlines()
    last = rows[-1].split(",")[0] if len(rows) > 1 else "0"
    if (place / "summary.json").is_file() and json.loads((place / "summary.json").read_text())["steps"] == int(last):
        return ""
    return f"not finished: its last row is of step {last}; resume=true goes on"


def gaps(folder: Path, places: list[Path]) -> list[str]:
    """Numbers that are left out among the runs of a sweep, which begin with 0."""
    found: dict[Path, set[int]] = {}
    for place in places:
        number = place.name.split("-")[0]
        if number.isdigit() and (place.parent / "multirun.yaml").is_file():
            found.setdefault(place.parent, set()).add(int(number))
    return [(parent / f"{number}-...").relative_to(folder).as_posix()
            for parent, numbers in found.items() for number in sorted(set(range(max(numbers))) - numbers)]


def chosen(place: Path) -> dict[str, str]:
    """What the command line of a run set, but for seeds and what has no bearing on numbers."""
    words = yaml.safe_load((place / ".hydra" / "overrides.yaml").read_text()) or []
    pairs = dict(word.lstrip("+~").split("=", 1) for word in words)
    return {key: value for key, value in pairs.items() if key not in ("algo", "seed", "resume", "logger", "device")}
