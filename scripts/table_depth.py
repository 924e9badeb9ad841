"""The table and figure of results/depth: python scripts/table_depth.py SWEEP RESULTS

SWEEP holds runs of residual networks of several depths; each run is held against backprop of the same depth and seed,
which started from the same weights and saw the same batches.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml
from records import command, runs, summary

from ebmrun.report import markdown

HEAD = ["depth", "algo", "seeds", "test accuracy, %", "minus bp, points", "largest difference", "angle to BP",
        "sweeps", "batches converged", "ms a step"]
FIELDS = ["algo", "depth", "seed", "accuracy", "angle", "steps", "converged", "step_ms"]


def row(run: Path) -> dict[str, Any]:
    """What the table needs of one run: averages and medians over its rows."""
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def of(key: str, by: Any) -> float:
        found = [float(each[key] == "True") if each[key] in ("True", "False") else float(each[key])
                 for each in rows if each.get(key)]
        return float(by(found)) if found else float("nan")

    return {"algo": config["algo"]["name"], "depth": config["arch"]["depth"], "seed": config["seed"],
            "accuracy": 100 * float(summary(run)["test/accuracy"]), "angle": of("alignment/angle", np.median),
            "steps": of("relax/steps", np.median), "converged": of("relax/converged", np.mean),
            "step_ms": of("time/step_ms", np.median)}


def lines(table: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each depth and algorithm."""
    said = []
    for depth in sorted({each["depth"] for each in table}):
        here = [each for each in table if each["depth"] == depth]
        base = {each["seed"]: each["accuracy"] for each in here if each["algo"] == "bp"}
        for algo in dict.fromkeys(["bp", *(each["algo"] for each in here)]):
            mine = [each for each in here if each["algo"] == algo]
            values = np.array([each["accuracy"] for each in mine])
            apart = np.array([each["accuracy"] - base[each["seed"]] for each in mine])
            error = values.std(ddof=1) / len(values) ** 0.5
            middle = {key: float(np.median([each[key] for each in mine])) for key in ("angle", "steps", "step_ms")}
            converged = float(np.mean([each["converged"] for each in mine]))
            other = algo != "bp"
            said.append([str(depth), f"`{algo}`", str(len(mine)), f"{values.mean():.2f} ± {error:.2f}",
                         f"{apart.mean():+.2f}" if other else "", f"{abs(apart).max():.2f}" if other else "",
                         f"{middle['angle']:.2g}°" if other else "", f"{middle['steps']:.0f}" if other else "",
                         f"{converged:.1%}" if other else "", f"{middle['step_ms']:.1f}"])
    return said


def draw(table: list[dict[str, Any]], path: Path) -> None:
    """Accuracy over depth, a mark a run."""
    figure, axes = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
    depths = sorted({each["depth"] for each in table})
    algos = list(dict.fromkeys(["bp", *(each["algo"] for each in table)]))
    for i, algo in enumerate(algos):
        at = {depth: [e["accuracy"] for e in table if e["algo"] == algo and e["depth"] == depth] for depth in depths}
        x = [k + 0.12 * (i - (len(algos) - 1) / 2) for k in range(len(depths))]
        line, = axes.plot(x, [np.mean(at[depth]) for depth in depths], "o-", label=algo, markersize=6)
        for place, depth in zip(x, depths):
            axes.plot([place] * len(at[depth]), at[depth], "_", color=line.get_color(), markersize=9, alpha=0.7)
    axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set(xlabel="layers", ylabel="test accuracy, %")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(sweep: Path, results: Path) -> None:
    """Writes runs.csv, depth.png and README.md."""
    table = sorted((row(run) for run in runs(sweep)), key=lambda each: (each["depth"], each["algo"], each["seed"]))
    results.mkdir(parents=True, exist_ok=True)
    with (results / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows({key: f"{value:.5g}" if isinstance(value, float) else value for key, value in each.items()}
                         for each in table)
    draw(table, results / "depth.png")
    (results / "README.md").write_text("\n".join([
        "# A hundred layers, trained", "",
        ("Residual networks of dense layers (`arch=resmlp`, width 128, relu, no normalisation) on MNIST, 3 epochs, the "
        "default optimizer; of one seed, all algorithms start from the same weights and see the same batches."), "",
        "![accuracy over depth](depth.png)", "", markdown.table(HEAD, lines(table)).rstrip(), "",
        "Mean ± standard error over seeds; the differences are paired by seed. Angles, sweeps and times are",
        "medians over logged batches (one core of a machine that other work shared); *batches converged* is the",
        "mean over them. The published comparison, of other networks and settings, has 92.9 for backprop and for",
        "error-based predictive coding at 8 layers, and 89.6 and 87.8 at 128 (FabricPC's own runs).",
        "",
        "Every run: [runs.csv](runs.csv). Made by", "", "```", command(sweep), "```", "",
        "and `python scripts/table_depth.py` with that folder.", ""]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
