"""All that the page of a report shows, as plain values that fit into it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from ebmrun.report.runs import MEASURES, Runs
from ebmrun.report.tables import differences, settings, spread
from ebmrun.report.thinning import largest, thinned

SHOWN = re.compile(r"(train|val|test)/(loss|accuracy)|alignment\w*/(angle|relative_error)|relax/(steps|residual)|"
                   r"optim/lr|probe/.+")
LAYERED = ("relative_error", "angle")  # the measures of a layer's gradient that have a map
POINTS, CELLS = 70_000, 100_000  # of all curves and of all maps together: what keeps the page below 3 MB
DIGITS = 4


def contents(runs: Runs, title: str, counts: str, baseline: str | None) -> dict[str, Any]:
    """Everything, by the section that shows it; a run is known by its place in ``runs``, a setting by its in
    ``settings``."""
    parts = [each for each in (runs.table, runs.underway) if len(each)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *MEASURES, "progress"])))
    keys = settings(table) if len(table) else ["algo"]
    measures = [key for key in MEASURES if table[key].notna().any()]
    groups = [group for _, group in table.groupby(keys, dropna=False, sort=True)] if len(table) else []
    setting_of = {run: number for number, group in enumerate(groups) for run in group["run"]}
    return {
        "title": title,
        "counts": counts,
        "keys": keys,
        "measures": [MEASURES[key] for key in measures],
        "settings": [setting(group, keys, measures) for group in groups],
        "runs": [{"name": row["run"], "setting": setting_of[row["run"]], "seed": int(row["seed"]),
                  "progress": number(row["progress"]), "values": [number(row[key]) for key in measures]}
                 for row in table.to_dict("records")],
        "curves": curves(runs, list(table.get("run", []))),
        "maps": maps(runs, list(table.get("run", []))),
        "strengths": strengths(runs, keys),
        "differences": paired(runs, baseline),
        "baseline": baseline,
        "differing": differing(runs, groups),
        "same": same(runs),
        "amiss": runs.amiss,
        "studies": runs.studies,
    }


def setting(group: pd.DataFrame, keys: list[str], measures: list[str]) -> dict[str, Any]:
    """The row of a setting: what it was set to, and over its seeds the mean of each measure with its standard error, as
    a number to sort by and in words."""
    first = group.iloc[0]
    return {"values": [None if pd.isna(first[key]) else str(first[key]) for key in keys], "runs": len(group),
            "means": [[number(group[key].mean()), spread(group[key])] for key in measures]}


def curves(runs: Runs, names: list[str]) -> list[dict[str, Any]]:
    """Every key that is shown as a curve, with that of each run: its steps and its values, and where rows were put
    together the lowest and the highest of them."""
    keys = list(dict.fromkeys(key for name in names for key in runs.metrics[name] if SHOWN.fullmatch(key)))
    drawn = {key: [(run, series) for run, series in each_series(runs, names, key)] for key in keys}
    points = budget(POINTS, sum(map(len, drawn.values())), 16, 200)
    found = []
    for key, each in drawn.items():
        lines = []
        for run, series in each:
            kept = thinned(series, points)
            line = {"run": run, "steps": kept.index.tolist(), "values": numbers(kept["middle"])}
            if len(kept) < len(series):
                line |= {"lows": numbers(kept["low"]), "highs": numbers(kept["high"])}
            lines.append(line)
        if lines:
            found.append({"key": key, "lines": lines})
    return found


def each_series(runs: Runs, names: list[str], key: str) -> Iterator[tuple[int, pd.Series]]:
    """A key of each run where it was measured, by step."""
    for run, name in enumerate(names):
        metrics = runs.metrics[name]
        if key in metrics and metrics[key].notna().any():
            yield run, pd.Series(metrics[key].to_numpy(), metrics["step"].to_numpy()).dropna()


def maps(runs: Runs, names: list[str]) -> list[dict[str, Any]]:
    """For each run and each measure of its layers' gradients, those values by layer and step."""
    found: list[tuple[int, str, pd.DataFrame]] = []
    for run, name in enumerate(names):
        metrics = runs.metrics[name]
        for measure in LAYERED:
            pattern = rf"^alignment/{measure}/(?!worst(_layer)?$)"
            table = metrics.set_index("step").filter(regex=pattern).dropna(how="all") if len(metrics) else metrics
            if table.size and (table.to_numpy() > 0).any():  # measured, and not of the reference itself
                found.append((run, measure, table))
    columns = budget(CELLS, sum(table.shape[1] for _, _, table in found), 8, 160)
    thin = [(run, measure, table.shape[1], largest(table, columns)) for run, measure, table in found]
    return [{"run": run, "measure": measure, "steps": table.index.tolist(),
             "layers": [column.rpartition("/")[2] for column in table],
             "values": [numbers(table[column]) for column in table]}
            for run, measure, _, table in thin]


def strengths(runs: Runs, keys: list[str]) -> list[dict[str, Any]]:
    """The relative error against the nudge strength, where a sweep has several: for each setting of all else the mean
    over seeds and its standard error."""
    others = [key for key in keys if key != "nudge.strength"]
    error = "alignment/relative_error"
    if "configuration" in keys or not len(runs.table):
        return []
    table = runs.table[(runs.table[error] > 0) & runs.table["strength"].notna()]
    found = []
    for values, group in table.groupby(others, dropna=False, sort=True):
        each = group.groupby("strength")[error].agg(["mean", "sem"])
        if len(each) > 1:
            name = " ".join(str(value) for value in values if not pd.isna(value))
            found.append({"name": name, "strengths": each.index.tolist(), "errors": numbers(each["mean"]),
                          "spreads": numbers(each["sem"])})
    return found


def paired(runs: Runs, baseline: str | None) -> dict[str, Any] | None:
    """The differences from the baseline; None without one, or with nothing to hold against it."""
    if not baseline or len(runs.algorithms) < 2:
        return None
    table = differences(runs.table, baseline)
    return {"columns": list(table.columns), "rows": table.astype(str).to_numpy().tolist()}


def differing(runs: Runs, groups: list[pd.DataFrame]) -> list[dict[str, Any]]:
    """Every key of the configuration that is not the same in all runs, with its value for each setting; where one
    setting has several, all are named."""
    names = [name for group in groups for name in group["run"]]
    keys = sorted({key for name in names for key in runs.configs[name]})
    found = []
    for key in keys:
        values = {name: written(runs.configs[name].get(key, "absent")) for name in names}
        if len(set(values.values())) > 1:
            found.append({"key": key, "values": [" or ".join(sorted({values[run] for run in group["run"]}))
                                                 for group in groups]})
    return found


def same(runs: Runs) -> list[list[str]]:
    """Keys and values of the configuration that all runs share."""
    first, *others = runs.configs.values() or [{}]
    return [[key, written(value)] for key, value in sorted(first.items())
            if all(key in each and each[key] == value for each in others)]


def written(value: Any) -> str:
    """A value of a configuration as a command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def budget(total: int, shares: int, least: int, most: int) -> int:
    """How much of a total each share gets, within bounds."""
    return min(max(total // max(shares, 1), least), most)


def numbers(values: pd.Series) -> list[float | None]:
    """Each with a few digits."""
    return [number(value) for value in values]


def number(value: Any) -> float | None:
    """With a few digits; None for what was not measured, or is no number."""
    if value is None or pd.isna(value) or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")
