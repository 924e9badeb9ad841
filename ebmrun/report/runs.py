"""What a folder of runs holds: a row for each finished run, studies, and the reason why anything else has no row."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm

from ebmrun.training.folder import LOCK

MEASURES = {
    "test/accuracy": "test accuracy",
    "test/loss": "test loss",
    "val/accuracy": "validation accuracy",
    "best/test/accuracy": "test accuracy of best.pt",
    "train/loss": "train loss",
    "alignment/angle": "angle, degrees",
    "alignment/relative_error": "relative error",
    "alignment/relative_error/worst": "worst layer",
    "relax/steps": "relaxation steps",
    "relax/converged": "converged",
    "time/step_ms": "ms a step",
}
TRAINING, BACKPROP = "ebmrun.training.run.train", "backprop"  # how a configuration names them
# on what a run computes
WITHOUT_BEARING = ("resume", "logger", "device", "dataset.root", "dataset.in_memory", "dataset.workers")


@dataclass(frozen=True)
class Runs:
    """What a folder holds.

    ``table``: a row for each finished run of one configuration and seed, in the order of their folders.
    ``underway``: the same for runs that a process is writing now; ``progress`` is the share of their epochs.
    ``metrics``: the rows of metrics.csv, by folder, of both.
    ``configs``: the configurations by dotted keys, without what has no bearing on numbers.
    ``studies``: folders of studies, and which study.
    ``amiss``: folders of what is not counted, and why.
    """

    table: pd.DataFrame
    underway: pd.DataFrame
    metrics: dict[str, pd.DataFrame]
    configs: dict[str, dict[str, Any]]
    studies: list[tuple[str, str]]
    amiss: list[tuple[str, str]]

    @property
    def algorithms(self) -> list[str]:
        """The algorithms of finished runs."""
        return sorted(set(self.table["algo"])) if len(self.table) else []

    @property
    def backprop(self) -> str | None:
        """The one that is built as backpropagation by autograd, if there is one."""
        found = self.table["algo"][self.table["build"] == BACKPROP].tolist() if len(self.table) else []
        return found[0] if found else None


def read(folder: Path) -> Runs:
    """Every run below a folder. A run is a folder with a configuration, or with the note of a failure."""
    marks = (".hydra/config.yaml", "failed.json")
    places = sorted({path.parents[mark.count("/")] for mark in marks for path in folder.rglob(mark)})
    found = Runs(pd.DataFrame(), pd.DataFrame(), {}, {}, [], [])
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    underway: list[dict[str, Any]] = []
    for place in tqdm(places, unit="run", disable=None, dynamic_ncols=True):
        name = place.relative_to(folder).as_posix()
        try:
            if (place / "failed.json").is_file():
                raise Amiss(f"failed: {json.loads((place / 'failed.json').read_text())['error']}")
            config = yaml.safe_load((place / ".hydra" / "config.yaml").read_text())
            study = (config.get("study") or {}).get("run", TRAINING)
            if study != TRAINING:
                found.studies.append((name, study.removeprefix("ebmrun.studies.")))
                continue
            if written_now(place):
                row, metrics = begun(place, config)
                underway.append(row | {"run": name})
                found.metrics[name], found.configs[name] = metrics, bearing(config)
                continue
            row, metrics = finished(place, config)
            same = rows.setdefault((row["configuration"], row["seed"]), row | {"run": name})["run"]
            if same != name:
                raise Amiss(f"repeats {same}: the same configuration and seed, of which one run counts")
            found.metrics[name], found.configs[name] = metrics, bearing(config)
        except Amiss as reason:
            found.amiss.append((name, str(reason)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            found.amiss.append((name, f"broken: {type(error).__name__}: {' '.join(str(error).split())}"))
    return replace(found, table=pd.DataFrame(rows.values()), underway=pd.DataFrame(underway))


class Amiss(Exception):
    """Why a run is not counted."""


def finished(place: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], pd.DataFrame]:
    """The row and the metrics of a run. Raises Amiss for one that has no summary of all its rows."""
    metrics = measured(place / "metrics.csv")
    last = int(metrics["step"].max()) if len(metrics) else 0
    path = place / "summary.json"
    summary = json.loads(path.read_text()) if path.is_file() else {}
    if summary.get("steps") != last:
        raise Amiss(f"not finished: its last row is of step {last}; resume={place} goes on")
    row = {"seed": summary["seed"], "algo": summary["algo"], **identity(place, config),
           **{key: summary.get(key) for key in MEASURES}, "strength": config["nudge"]["strength"]}
    return row, metrics


def begun(place: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], pd.DataFrame]:
    """The row and the metrics of a run that goes on while it is read."""
    metrics = measured(place / "metrics.csv")
    epochs = metrics["epoch"].max() if len(metrics) and "epoch" in metrics else 0.0
    row = {"seed": config["seed"], "algo": config["algo"]["name"], **identity(place, config),
           "progress": min(float(epochs) / config["trainer"]["epochs"], 1.0)}
    return row, metrics


def identity(place: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the settings of runs apart."""
    return {**chosen(place), "configuration": digest(config),
            "build": str(config["algo"].get("build")).rpartition(".")[2]}


def written_now(place: Path) -> bool:
    """Whether a process holds the lock of a run's folder."""
    try:
        with (place / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def measured(path: Path) -> pd.DataFrame:
    """The rows of a metrics.csv; none of one that is absent or empty."""
    try:
        return pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()


def digest(config: Mapping[str, Any]) -> str:
    """What tells a configuration apart from every other that computes something else."""
    return sha256(json.dumps(bearing(config), sort_keys=True).encode()).hexdigest()[:8]


def bearing(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration by dotted keys: all of it but the seed and what has no bearing on numbers."""
    return {key: value for key, value in flat(config).items()
            if not any(f"{key}.".startswith(f"{name}.") for name in ("seed", *WITHOUT_BEARING))}


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A nested mapping by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) and value else {f"{above}{key}": value}
    return found


def chosen(place: Path) -> dict[str, str]:
    """What the command line of a run set, but for algorithm, seed and what has no bearing on numbers. A number is
    written in one way: 1e-2 is 0.01."""
    words = yaml.safe_load((place / ".hydra" / "overrides.yaml").read_text()) or []
    pairs = (word.lstrip("+~").partition("=")[::2] for word in words)
    return {key: plain(value) for key, value in pairs if key not in ("algo", "seed", *WITHOUT_BEARING)
            and not key.startswith("logger.")}


def plain(value: str) -> str:
    """A number as Python writes its shortest form; anything else as it is."""
    try:
        return f"{float(value):.12g}"
    except ValueError:
        return value
