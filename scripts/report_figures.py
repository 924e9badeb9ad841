"""Figures over seeds: learning, the error of each layer's gradient, and the error against the nudge strength."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import records  # noqa: F401 - how figures look
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report_runs import Runs
from report_tables import settings

ALIGNED = "alignment/relative_error"
BARS: dict[str, Any] = {"fmt": "o-", "markersize": 4, "linewidth": 1.2, "capsize": 2}


def by_setting(table: pd.DataFrame, keys: list[str]) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """The runs of each setting, with its colour and its label: the algorithm, and what else was set."""
    groups = table.groupby(keys, dropna=False, sort=True)
    for number, (values, group) in enumerate(groups):
        others = [f"{key.split('.')[-1]}={value}" for key, value in zip(keys[1:], values[1:]) if not pd.isna(value)]
        colour = plt.get_cmap("turbo")((number + 0.5) / len(groups))
        yield group, {"color": colour, "label": " ".join([values[0], *others])}


def legend(figure: Figure, axes: Axes) -> Figure | None:
    """The figure with a legend to the right of all axes; None for one without data."""
    if not axes.has_data():
        plt.close(figure)
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
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    for each, key in zip(axes, ("train/loss", "test/loss", "test/accuracy")):
        curves(runs, key, each)
        if key.endswith("loss"):
            each.set_yscale("log")
    return legend(figure, axes[0])


def layers(runs: Runs) -> Figure | None:
    """The relative error of each layer's gradient: the median over rows, then the mean over seeds."""
    figure, axes = plt.subplots(figsize=(7, 3.6))
    depths: set[int] = set()
    for group, style in by_setting(runs.table, settings(runs.table)):
        medians = [runs.metrics[run].filter(regex=rf"^{ALIGNED}/layer\d+$").median() for run in group["run"]]
        found = pd.DataFrame(medians).dropna(axis=1, how="all")
        if found.empty or not (found.to_numpy() > 0).any():
            continue  # the reference itself
        depth = [int(column.rpartition("layer")[2]) for column in found]
        axes.errorbar(depth, found.mean(), yerr=found.sem().fillna(0), **BARS, **style)
        depths.update(depth)
    axes.set(yscale="log", xlabel="layer, counted from the input", ylabel="relative error of its gradient",
             xticks=sorted(depths))
    return legend(figure, axes)


def strengths(runs: Runs) -> Figure | None:
    """The relative error against the nudge strength, where a sweep has several."""
    table = runs.table[(runs.table[ALIGNED] > 0) & runs.table["strength"].notna()]
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for group, style in by_setting(table, [key for key in settings(runs.table) if key != "nudge.strength"]):
        each = group.groupby("strength")[ALIGNED].agg(["mean", "sem"])
        if len(each) > 1:
            axes.errorbar(each.index, each["mean"], yerr=each["sem"].fillna(0), **BARS, **style)
    axes.set(xscale="log", yscale="log", xlabel="nudge strength", ylabel="relative error of the gradient")
    return legend(figure, axes)
