"""Figures over seeds: learning, the error of each layer's gradient, and the error against the nudge strength."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ebmrun.report.runs import Runs
from ebmrun.report.tables import settings

ALIGNED = "alignment/relative_error"
BARS: dict[str, Any] = {"fmt": "o-", "markersize": 4, "linewidth": 1.2, "capsize": 2}
STYLE: dict[Any, Any] = {
    "font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "legend.frameon": False, "figure.dpi": 110, "savefig.dpi": 110, "figure.constrained_layout.use": True,
}


def drawn(runs: Runs) -> dict[str, Figure]:
    """The figures for which the runs have data, by name."""
    with matplotlib.rc_context(STYLE):
        figures = {"learning": learning(runs), "layers": layers(runs), "strengths": strengths(runs)}
    return {name: figure for name, figure in figures.items() if figure}


def by_setting(table: pd.DataFrame, keys: list[str]) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """The runs of each setting, with its colour and its label: the algorithm, and what else was set."""
    groups = table.groupby(keys, dropna=False, sort=True)
    for number, (values, group) in enumerate(groups):
        others = [f"{key.split('.')[-1]}={value}" for key, value in zip(keys[1:], values[1:]) if not pd.isna(value)]
        colour = matplotlib.colormaps["turbo"]((number + 0.5) / len(groups))
        yield group, {"color": colour, "label": " ".join([values[0], *others])}


def legend(figure: Figure, axes: Axes) -> Figure | None:
    """The figure with a legend to the right of all axes; None for one without data."""
    if not axes.has_data():
        return None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def curves(runs: Runs, key: str, axes: Axes) -> None:
    """A key against the step, for each setting: the mean over its seeds and the range of its standard error."""
    for group, style in by_setting(runs.table, settings(runs.table)):
        each = pd.concat([runs.metrics[run].set_index("step")[key].dropna() for run in group["run"]], axis=1)
        if each.empty:
            continue
        mean, error = each.mean(axis=1), each.sem(axis=1)
        axes.plot(mean.index, mean, linewidth=1.2, marker="." if len(mean) < 30 else None, **style)
        if len(mean) == 1:
            axes.errorbar(mean.index, mean, yerr=error, fmt="none", color=style["color"], capsize=3)
        elif error.notna().any():
            axes.fill_between(mean.index, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0)
    axes.set(xlabel="step", ylabel=key)


def learning(runs: Runs) -> Figure | None:
    """Loss and accuracy against the step."""
    figure = Figure(figsize=(12, 3.6))
    axes = figure.subplots(1, 3)
    for each, key in zip(axes, ("train/loss", "test/loss", "test/accuracy")):
        curves(runs, key, each)
        if key.endswith("loss"):
            each.set_yscale("log")
    return legend(figure, axes[0])


def layers(runs: Runs) -> Figure | None:
    """The relative error of each layer's gradient: the median over rows, then the mean over seeds."""
    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    names: list[str] = []
    for group, style in by_setting(runs.table, settings(runs.table)):
        medians = [runs.metrics[run].filter(regex=rf"^{ALIGNED}/(?!worst)").median() for run in group["run"]]
        found = pd.DataFrame(medians)
        if not (found.to_numpy() > 0).any():
            continue  # never measured, or the reference itself
        axes.errorbar(range(found.shape[1]), found.mean(), yerr=found.sem().fillna(0), **BARS, **style)
        names = max(names, [column.rpartition("/")[2] for column in found], key=len)
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 8 else 0)
    axes.set(yscale="log", xlabel="from the input to the output", ylabel="relative error of its gradient")
    return legend(figure, axes)


def strengths(runs: Runs) -> Figure | None:
    """The relative error against the nudge strength, where a sweep has several, and each is of one configuration."""
    keys = [key for key in settings(runs.table) if key != "nudge.strength"]
    if "configuration" in keys:
        return None
    table = runs.table[(runs.table[ALIGNED] > 0) & runs.table["strength"].notna()]
    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    for group, style in by_setting(table, keys):
        each = group.groupby("strength")[ALIGNED].agg(["mean", "sem"])
        if len(each) > 1:
            axes.errorbar(each.index, each["mean"], yerr=each["sem"].fillna(0), **BARS, **style)
    axes.set(xscale="log", yscale="log", xlabel="nudge strength", ylabel="relative error of the gradient")
    return legend(figure, axes)
