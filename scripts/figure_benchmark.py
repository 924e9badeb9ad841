"""Draws benchmark.png and writes README.md from the files of ``ebmrun study=benchmark`` in a folder.

    python scripts/figure_benchmark.py results/benchmark
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLUMNS = 2
ABOUT = """Ratios are to plain PyTorch: forward and backward pass of the same network and batch for a gradient,
a step of a bare loop for training. Memory is the peak of tensors during the call, on a CPU as seen by
the profiler of torch."""
MET, MISSED, FREE = "tab:green", "tab:red", "tab:gray"


def colour(row: pd.Series) -> str:
    """By whether a target was met."""
    if pd.isna(row.target):
        return FREE
    return MET if row.ratio <= row.target else MISSED


def panel(axes: plt.Axes, rows: pd.DataFrame, title: str) -> None:
    """Bars of the ratios of one case, a mark at each target."""
    places = range(len(rows))
    bars = axes.barh(places, rows.ratio, color=[colour(row) for row in rows.itertuples()])
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    for place, bar, row in zip(places, bars, rows.itertuples(), strict=True):
        if row.work == "gradient" and not row.converged:
            bar.set(hatch="///", edgecolor="white")
        if pd.notna(row.target):
            axes.plot([row.target] * 2, [place - 0.45, place + 0.45], color="black", linewidth=2.5)
        right = row.ratio if pd.isna(row.target) else max(row.ratio, row.target)
        axes.annotate(f"{row.ratio:.3g}", (right, place), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize=8)
    axes.set_yticks(places, rows.preset, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)


def draw(table: pd.DataFrame, facts: dict, path: Path) -> None:
    """One panel a case, all on one scale."""
    groups = list(table.groupby(["work", "case"], sort=False))
    lines = -(-len(groups) // COLUMNS)
    figure, grid = plt.subplots(
        lines, COLUMNS, figsize=(9, 2.3 * lines + 0.8), sharex=True, layout="constrained", squeeze=False)
    for axes, ((work, case), rows) in zip(grid.flat, groups, strict=False):
        what = case if work == "gradient" else f"{case}, training"
        panel(axes, rows, f"{what}: plain PyTorch {rows.plain_ms.median():.3g} ms")
    for axes in grid.flat[len(groups):]:
        axes.set_visible(False)
    shown = grid.flat[0]
    shown.set_xscale("log")
    shown.set_xlim(0.5, 3 * table.ratio.max())
    shown.xaxis.set_major_formatter("{x:g}")
    for axes in grid.flat[: len(groups)]:
        axes.tick_params(axis="x", labelbottom=True, labelsize=8)
    figure.supxlabel("time / time of plain PyTorch, log scale\n"
                     "bold mark: target (green met, red missed); hatched: not relaxed to its tolerance",
                     fontsize=9)
    figure.suptitle(machine(facts), fontsize=8)
    figure.savefig(path, dpi=90)


def machine(facts: dict) -> str:
    """The machine, in one line."""
    device = facts["cpu"] if facts["device"] == "cpu" else f"{facts['device']} ({facts['cpu']})"
    return (f"{device}, {facts['threads']} threads on {facts['cores']} cores, torch {facts['torch']}, "
            f"{facts['precision']}, batch {facts['batch_size']} of {facts['dataset']}")


def relaxed(row: pd.Series) -> str:
    """The residual, and whether it met its tolerance; empty where nothing was measured."""
    if pd.isna(row.residual):
        return ""
    return f"{row.residual:.1e}" + ("" if row.converged else ", not converged")


def readme(table: pd.DataFrame, facts: dict) -> str:
    """The table, the command and the machine."""
    lines = ["# Relaxation against backpropagation", "", f"`{facts['command']}`", "", machine(facts), "",
             "![ratios](benchmark.png)", "", ABOUT, ""]
    columns = ["preset", "overrides", "ratio", "target", "ms", "plain ms", "sweeps", "residual",
               "relative error", "MB", "plain MB"]
    head = f"| {' | '.join(columns)} |"
    for (work, case), rows in table.groupby(["work", "case"], sort=False):
        title = f"## {case}" + (", training" if work == "training" else "")
        lines += [title, "", head, "|---" * len(columns) + "|"]
        for row in rows.itertuples():
            start = [row.preset, f"`{row.overrides}`" if pd.notna(row.overrides) else "", f"{row.ratio:.2f}",
                     "" if pd.isna(row.target) else f"{row.target:g}", f"{row.ms:.3g}", f"{row.plain_ms:.3g}"]
            rest = [""] * 5 if work == "training" else [
                "" if pd.isna(row.sweeps) else f"{row.sweeps:.0f}", relaxed(row),
                f"{row.relative_error:.1e} to {row.reference}", f"{row.peak_mb:.3g}",
                f"{row.plain_peak_mb:.3g}"]
            lines.append("| " + " | ".join(start + rest) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Reads the folder given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds benchmark.csv and benchmark.json")
    folder = parser.parse_args().folder
    table, facts = pd.read_csv(folder / "benchmark.csv"), json.loads((folder / "benchmark.json").read_text())
    draw(table, facts, folder / "benchmark.png")
    (folder / "README.md").write_text(readme(table, facts))


if __name__ == "__main__":
    main()
