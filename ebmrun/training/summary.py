"""A run's rows reduced to one value a key, for summary.json and for the table at the end."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, median, mode
from typing import Any


def summarise(metrics: Path) -> dict[str, float]:
    """From metrics.csv: what is measured at an evaluation or of a batch's cost as last measured, convergence as the
    share of rows, a worst layer as the one that most rows name, everything else as the median over rows. ``best/`` is
    of the step with the best validation accuracy. Keys that were never measured are left out."""
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, float] = {"steps": int(rows[-1]["step"])} if rows else {}
    for key in rows[0] if rows else ():
        values = [float(row[key]) for row in rows if row[key] != ""]
        if key == "step" or not values:
            continue
        if key in ("epoch", "relax/free_converged") or key.startswith(("train/", "test/", "val/", "optim/")):
            found[key] = values[-1]
        elif key.endswith("converged"):
            found[key] = mean(values)
        else:
            found[key] = int(mode(values)) if key.endswith("worst_layer") else median(values)
    validated = [row for row in rows if row.get("val/accuracy")]
    if validated:
        best = max(validated, key=lambda row: float(row["val/accuracy"]))  # the first of equals
        found |= {"best/step": int(best["step"])} | {
            f"best/{key}": float(best[key]) for key in ("val/accuracy", "test/accuracy")}
    return found


def show(summary: Mapping[str, Any], run_dir: Path, wandb_location: str | None) -> None:
    """Prints the small table at the end of a run, and where its files are."""
    rows = [
        ("train loss", "train/loss", ".4g"),
        ("test loss", "test/loss", ".4g"),
        ("test accuracy", "test/accuracy", ".4f"),
        ("validation accuracy", "val/accuracy", ".4f"),
        ("test of best.pt", "best/test/accuracy", ".4f"),
        ("angle to {reference}", "alignment/angle", ".3g"),
        ("relative error", "alignment/relative_error", ".3g"),
        ("worst layer", "alignment/relative_error/worst", ".3g"),
        ("reference converged", "alignment/reference_converged", ".1%"),
        ("angle to implicit", "alignment_implicit/angle", ".3g"),
        ("implicit converged", "alignment_implicit/reference_converged", ".1%"),
        ("relaxation steps", "relax/steps", "g"),
        ("residual", "relax/residual", ".3g"),
        ("converged", "relax/converged", ".1%"),
        ("free phase converged", "relax/free_converged", ".1%"),
        ("stable step", "probe/stable_step", ".3g"),
        ("work done", "probe/work_done", ".1%"),
        ("cosine to one sweep", "probe/cosine_to_one_sweep", ".6g"),
        ("ms a step", "time/step_ms", ".3g"),
    ]
    reference = summary["alignment/reference"].replace("both", "backprop")
    print(f"\n{summary['algo']} on {summary['dataset']}, seed {summary['seed']}: {summary['steps']} steps")
    for label, key, form in rows:
        if key in summary:
            unit = " degrees" if key.endswith("angle") else ""
            unit = f" (layer {summary[f'{key}_layer']})" if key.endswith("worst") else unit
            print(f"  {label.format(reference=reference):<20} {summary[key]:{form}}{unit}")
    print(f"files: {near(run_dir)}" + (f"\nwandb: {near(wandb_location)}" if wandb_location else ""))


def near(place: str | Path) -> str:
    """A path below the current folder as it is written there; any other, and an address, as it is."""
    here = Path.cwd()
    return str(Path(place).relative_to(here)) if Path(place).is_relative_to(here) else str(place)
