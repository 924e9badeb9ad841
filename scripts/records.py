"""What figures and tables share: how figures look, the command behind a folder of runs, and its numbers."""

from __future__ import annotations

import argparse
import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import yaml

from ebmrun.report.figures import STYLE

matplotlib.use("Agg")
matplotlib.rcParams.update(STYLE)


def table_parser(text: str | None) -> argparse.ArgumentParser:
    """RESULTS SWEEP..., as every table that is made of sweeps is asked for."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("sweeps", type=Path, nargs="+")
    return parser


def runs(folder: Path) -> list[Path]:
    """The run directories in a folder of several, or the folder itself. Exits where there is no finished run."""
    found = sorted((path.parent for path in folder.glob("*/summary.json")), key=_place) or [folder]
    if not (found[0] / "summary.json").is_file():
        raise SystemExit(f"{folder} holds no finished run: make it first, with `make reproduce`")
    return found


def _place(run: Path) -> list[tuple[int, str]]:
    """The place of a run among others: its name, seed=10 after seed=9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", run.name)]


def command(folder: Path) -> str:
    """The command that made the runs of a folder, from the overrides that each of them recorded."""
    each = [yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text()) for run in runs(folder)]
    values: dict[str, list[str]] = {}
    for overrides in each:
        for key, value in last_words(overrides).items():
            value = Path(value).name if key == "dataset.path=" else value  # wherever the data lay
            if value not in values.setdefault(key, []):
                values[key].append(value)
    several = " -m" if len(each) > 1 else ""
    return f"ebmrun{several} " + " ".join(shlex.quote(f"{key}{','.join(found)}") for key, found in values.items())


def last_words(overrides: list[str]) -> dict[str, str]:
    """What follows each key and its sign, where it stands last; without a sign, a word takes a key away."""
    return {key + sign: value for key, sign, value in (override.partition("=") for override in overrides)}


def columns(path: Path) -> dict[str, np.ndarray]:
    """A CSV file of numbers by column; an empty field is NaN."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]}


def summary(folder: Path) -> dict[str, float]:
    """The summary of a run."""
    return json.loads((folder / "summary.json").read_text())


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
