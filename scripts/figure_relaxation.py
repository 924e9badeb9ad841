"""Draws relaxation.png and writes README.md from the files of ``ebmrun study=relaxation`` in a folder.

    python scripts/figure_relaxation.py results/relaxation
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path

import matplotlib
import pandas as pd
from figure_benchmark import machine

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

COLOURS = plt.get_cmap("YlGnBu")
ALIKE = 1.1  # what clocks cannot tell from the fastest
SLOW = 0.55  # of the scale of colours, from which letters are white
ABOUT = """The time of one gradient, free and nudged phase and learning rule together, as a multiple of forward and
backward pass of the same network and batch by plain PyTorch. Networks are at their initial weights; the first three
have the units of the preset, ReLU for predictive coding and hard sigmoid for equilibrium propagation. A row is one
option of `relax`, with {max_steps} steps, and as many again in a free phase; steps are the median over the first
{batches} batches, the residual is the largest. A relaxation has settled where it met `relax.tol`. `auto` is `conjugate`
where the free equilibrium is the forward pass, and `adaptive` elsewhere; `gradient_flow` takes steps of 0.1, all layers
at once."""


def text_of(row: pd.Series) -> tuple[str, str]:
    """What stands in a cell, large and small: the ratio of times and the steps, or else what is left to do."""
    if row.settled == 1:
        return f"{row.ratio:.3g}×", f"{row.steps:.0f} steps"
    if pd.isna(row.residual):
        return "diverged", ""
    if row.settled > 0:
        return f"{row.ratio:.3g}×", f"{row.settled:.0%} settled"
    return f"{row.ratio:.3g}×", f"residual {row.residual:.1g}"


def panel(axes: plt.Axes, rows: pd.DataFrame, networks: list[str], scale: LogNorm) -> None:
    """One problem: solvers against networks, a cell each; the fastest that settled, or as good as that, have frames."""
    solvers = list(dict.fromkeys(rows.solver))
    fastest = rows[rows.settled == 1].groupby("network").ratio.min()
    for row in rows.itertuples():
        x, y = networks.index(row.network), solvers.index(row.solver)
        settled = row.settled == 1
        cell = Rectangle((x + 0.03, y + 0.05), 0.94, 0.9, facecolor=COLOURS(scale(row.ratio)) if settled else "white",
                         hatch=None if settled else "////", edgecolor="0.92", linewidth=0)
        axes.add_patch(cell)
        best = settled and row.ratio <= ALIKE * fastest[row.network]
        if best:
            axes.add_patch(Rectangle((x + 0.03, y + 0.05), 0.94, 0.9, fill=False, edgecolor="tab:orange", linewidth=2))
        ink = "0.4" if not settled else "white" if scale(row.ratio) > SLOW else "0.1"
        large, small = text_of(row)
        axes.text(x + 0.5, y + 0.4, large, ha="center", va="center", fontsize=9.5, color=ink,
                  fontweight="bold" if best else "normal")
        axes.text(x + 0.5, y + 0.74, small, ha="center", va="center", fontsize=6.5, color=ink)
    axes.set(xlim=(0, len(networks)), ylim=(len(solvers), 0))
    axes.set_xticks([x + 0.5 for x in range(len(networks))], [textwrap.fill(name, 13) for name in networks], fontsize=8)
    axes.set_yticks([y + 0.5 for y in range(len(solvers))], [name.replace("_", " ") for name in solvers], fontsize=9)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)


def draw(table: pd.DataFrame, facts: dict, path: Path) -> None:
    """A panel for each problem, as wide as it has networks, on one scale of colours."""
    problems = list(dict.fromkeys(table.problem))
    parts = [table[table.problem == problem] for problem in problems]
    scale = LogNorm(1, table[table.settled == 1].ratio.max() * 1.5)
    figure, grid = plt.subplots(len(parts), 1, figsize=(8.6, 3.3 * len(parts) + 0.7), layout="constrained",
                                squeeze=False)
    figure.get_layout_engine().set(h_pad=0.12)
    every = list(dict.fromkeys(table.network))
    for axes, problem, rows in zip(grid.flat, problems, parts, strict=True):
        panel(axes, rows, [name for name in every if name in set(rows.network)], scale)
        axes.set_xlim(0, len(every))
        axes.set_title(problem, fontsize=11, fontweight="bold", loc="left")
    figure.supxlabel("time / time of plain PyTorch's gradient, dark where slow; framed: the fastest, within a tenth\n"
                     f"hatched: not settled in {facts['max_steps']} steps, with the largest residual", fontsize=9)
    figure.suptitle(machine(facts), fontsize=8, color="0.35")
    figure.savefig(path, dpi=130)


def readme(table: pd.DataFrame, facts: dict) -> str:
    """The command, the machine, the figure and the table."""
    drawn = "drawn by `python scripts/figure_relaxation.py results/relaxation`"
    lines = ["# Ways to relax, network by network", "", f"`{facts['command']}`, {drawn}", "", machine(facts), "",
             "![times and steps](relaxation.png)", "", ABOUT.format(**facts), ""]
    for problem, rows in table.groupby("problem", sort=False):
        lines += [f"## {problem}", "", "| network | relax | time / plain | ms | steps | residual | settled |",
                  "|---|---|---|---|---|---|---|"]
        for row in rows.itertuples():
            residual = "diverged" if pd.isna(row.residual) else f"{row.residual:.1e}"
            steps = "" if pd.isna(row.steps) else f"{row.steps:.0f}"
            lines.append(f"| {row.network} | {row.solver} | {row.ratio:.3g} | {row.ms:.3g} | {steps} | {residual} | "
                         f"{row.settled:.0%} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Reads the folder given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds relaxation.csv and relaxation.json")
    folder = parser.parse_args().folder
    table, facts = pd.read_csv(folder / "relaxation.csv"), json.loads((folder / "relaxation.json").read_text())
    draw(table, facts, folder / "relaxation.png")
    (folder / "README.md").write_text(readme(table, facts))


if __name__ == "__main__":
    main()
