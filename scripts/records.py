"""What figures and tables share: the command behind a folder of runs, its numbers, and a table in Markdown."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import yaml

matplotlib.use("Agg")
matplotlib.rcParams.update({
    "font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "legend.frameon": False, "figure.dpi": 110, "savefig.dpi": 110, "figure.constrained_layout.use": True,
})


def runs(folder: Path) -> list[Path]:
    """The run directories in a folder of several, or the folder itself. Exits where there is no finished run."""
    found = sorted((path.parent for path in folder.glob("*/summary.json")), key=_number) or [folder]
    if not (found[0] / "summary.json").is_file():
        raise SystemExit(f"{folder} holds no finished run: make it first, with `make reproduce`")
    return found


def _number(run: Path) -> tuple[int, str]:
    """The place of a run in its sweep, which its name begins with."""
    number = re.match(r"\d*", run.name)[0]
    return int(number or 0), run.name


def command(folder: Path) -> str:
    """The command that made the runs of a folder, from the overrides that each of them recorded."""
    each = [yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text()) for run in runs(folder)]
    values: dict[str, list[str]] = {}
    for key, value in (override.split("=", 1) for overrides in each for override in overrides):
        if value not in values.setdefault(key, []):
            values[key].append(value)
    several = " -m" if len(each) > 1 else ""
    return f"ebmrun{several} " + " ".join(shlex.quote(f"{key}={','.join(found)}") for key, found in values.items())


def columns(path: Path) -> dict[str, np.ndarray]:
    """A CSV file of numbers by column; an empty field is NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]}


def summary(folder: Path) -> dict[str, float]:
    """The summary of a run."""
    return json.loads((folder / "summary.json").read_text())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_csv(path: Path, table: dict[str, np.ndarray], digits: int) -> None:
    """Columns as a CSV file with so many significant digits; NaN is an empty field."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        for row in zip(*table.values()):
            writer.writerow("" if np.isnan(value) else f"{value:.{digits}g}" for value in row)


def copy(source: Path, target: Path) -> None:
    """A file of a run as it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
