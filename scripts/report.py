"""A page over any folder of runs: tables over seeds, differences from a baseline, figures, and the runs that are missing.

    python scripts/report.py FOLDER [--baseline bp] [--out FOLDER/report]

Writes report.md, report.html and the figures beside them. Runs whose configurations differ in the seed alone are one
row, mean ± standard error of the mean (n runs; no error for one). A difference is paired: between runs of one seed
that otherwise differ in what the algorithm sets, or by all that the sweep moves, from the baseline. Nothing is trained.
"""

from __future__ import annotations

import argparse
import html
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

MEASURES = {
    "test/accuracy": "test accuracy",
    "test/loss": "test loss",
    "train/loss": "train loss",
    "alignment/angle": "angle, degrees",
    "alignment/relative_error": "relative error",
    "relax/steps": "relaxation steps",
    "relax/converged": "converged",
    "time/step_ms": "ms a step",
}
ALIGNED = "alignment/relative_error"
plt.rcParams |= {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
                 "grid.alpha": 0.25, "legend.frameon": False, "figure.constrained_layout.use": True}


@dataclass(frozen=True)
class Runs:
    """What a folder holds: a row of ``table`` for each finished run, its metrics by folder, and what is amiss."""

    table: pd.DataFrame
    metrics: dict[str, pd.DataFrame]
    amiss: list[tuple[str, str]]


def read(folder: Path) -> Runs:
    """Every run below a folder. A run is a folder with a configuration, or with the note of a failure."""
    marks = (".hydra/config.yaml", "failed.json")
    places = sorted({path.parents[mark.count("/")] for mark in marks for path in folder.rglob(mark)})
    rows, metrics, amiss = [], {}, []
    for place in tqdm(places, unit="run", disable=None, dynamic_ncols=True):
        name = place.relative_to(folder).as_posix()
        try:
            reason = unfinished(place)
            if not reason:
                summary = json.loads((place / "summary.json").read_text())
                config = flat(yaml.safe_load((place / ".hydra" / "config.yaml").read_text()))
                metrics[name] = pd.read_csv(place / "metrics.csv")
                rows.append({"run": name, "seed": summary["seed"], "algo": summary["algo"], **chosen(place),
                             **{key: summary.get(key) for key in MEASURES},
                             "strength": config.get("nudge.strength"), "gain": config.get("energy.feedback_gain")})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            metrics.pop(name, None)
            reason = f"broken: {type(error).__name__}: {' '.join(str(error).split())}"
        if reason:
            amiss.append((name, reason))
    amiss += [(name, "missing: the sweep has no such run") for name in gaps(folder, places)]
    return Runs(pd.DataFrame(rows), metrics, amiss)


def unfinished(place: Path) -> str:
    """Why a run has no summary; empty for one that has."""
    if (place / "failed.json").is_file():
        return f"failed: {json.loads((place / 'failed.json').read_text())['error']}"
    if (place / "summary.json").is_file():
        return ""
    rows = (place / "metrics.csv").read_text().splitlines()
    last = rows[-1].split(",")[0] if len(rows) > 1 else "0"
    return f"not finished: its last row is of step {last}; resume=true goes on"


def gaps(folder: Path, places: list[Path]) -> list[str]:
    """Numbers that are left out among the runs of a sweep, which begin with 0."""
    found: dict[Path, set[int]] = {}
    for place in places:
        number = place.name.split("-")[0]
        if number.isdigit() and (place.parent / "multirun.yaml").is_file():
            found.setdefault(place.parent, set()).add(int(number))
    return [(parent / f"{number}-...").relative_to(folder).as_posix()
            for parent, numbers in found.items() for number in sorted(set(range(max(numbers))) - numbers)]


def chosen(place: Path) -> dict[str, str]:
    """What the command line of a run set, but for seeds and what has no bearing on numbers."""
    words = yaml.safe_load((place / ".hydra" / "overrides.yaml").read_text()) or []
    pairs = dict(word.lstrip("+~").split("=", 1) for word in words)
    return {key: value for key, value in pairs.items() if key not in ("algo", "seed", "resume", "logger", "device")}


def flat(config: dict[str, Any], above: str = "") -> dict[str, Any]:
    """A nested configuration with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def settings(table: pd.DataFrame) -> list[str]:
    """The columns that tell the settings of a folder's runs apart: the algorithm, and what else the sweep moved."""
    fixed = {"run", "seed", "algo", "strength", "gain", *MEASURES}
    return ["algo", *(key for key in table if key not in fixed and table[key].nunique(dropna=False) > 1)]


def spread(values: pd.Series) -> str:
    """Mean ± standard error of the mean, with digits to match the error."""
    values = values.dropna()
    if values.empty:
        return "–"
    mean, error = values.mean(), values.sem()
    if not error > 1e-14 * abs(mean):  # one run, or equal ones up to round-off
        return f"{mean:.4g}"
    digits = min(max(int(np.ceil(np.log10(abs(mean) / error))) + 2 if mean else 2, 2), 8)
    return f"{mean:.{digits}g} ± {error:.2g}"


def means(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting, over its seeds."""
    keys = settings(table)
    groups = table.groupby(keys, dropna=False, sort=True)
    parts = {label: groups[key].apply(spread) for key, label in MEASURES.items() if table[key].notna().any()}
    return pd.DataFrame({"runs": groups.size(), **parts}).reset_index().fillna("default")


def differences(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """A row for each setting that is not of the baseline algorithm: run minus the baseline's run of the same seed and
    settings; a setting that the baseline was not given is no matter of the baseline."""
    base = table[table["algo"] == baseline]
    shared = [key for key in settings(table)[1:] if base[key].nunique(dropna=False) > 1]
    labels = {key: label for key, label in MEASURES.items() if table[key].notna().any() and base[key].notna().any()}
    base = base.drop_duplicates(["seed", *shared])
    pairs = table[table["algo"] != baseline].merge(base[["seed", *shared, *labels]], on=["seed", *shared],
                                                   suffixes=("", " of the baseline"))
    if pairs.empty:
        return pd.DataFrame()
    for key in labels:
        pairs[key] -= pairs[f"{key} of the baseline"]
    groups = pairs.groupby(settings(table), dropna=False, sort=True)
    parts = {f"Δ {label}": groups[key].apply(spread) for key, label in labels.items()}
    return pd.DataFrame({"pairs": groups.size(), **parts}).reset_index().fillna("default")


def curves(runs: Runs, key: str, axes: Axes) -> None:
    """A key against the step, for each setting: the mean over its seeds and the range of its standard error."""
    keys = settings(runs.table)
    groups = runs.table.groupby(keys, dropna=False, sort=True)
    for number, (setting, group) in enumerate(groups):
        each = pd.concat([runs.metrics[run].set_index("step")[key].dropna() for run in group["run"]], axis=1)
        if each.empty:
            continue
        mean, error = each.mean(axis=1), each.sem(axis=1)
        colour = plt.get_cmap("turbo")((number + 0.5) / len(groups))
        axes.plot(mean.index, mean, color=colour, linewidth=1.2, label=label(keys, setting),
                  marker="." if len(mean) < 30 else None)
        if len(mean) == 1:
            axes.errorbar(mean.index, mean, yerr=error, fmt="none", color=colour, capsize=3)
        elif error.notna().any():
            axes.fill_between(mean.index, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="step", ylabel=key)


def label(keys: list[str], setting: Any) -> str:
    """A setting in words: the algorithm, and what else was set."""
    values = setting if isinstance(setting, tuple) else (setting,)
    others = [f"{key.split('.')[-1]}={value}" for key, value in zip(keys[1:], values[1:]) if not pd.isna(value)]
    return " ".join([str(values[0]), *others])


def learning(runs: Runs) -> Figure:
    """Loss and accuracy against the step."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    for each, key in zip(axes, ("train/loss", "test/loss", "test/accuracy")):
        curves(runs, key, each)
        if key.endswith("loss"):
            each.set_yscale("log")
    beside(figure, axes[0])
    return figure


def layers(runs: Runs) -> Figure | None:
    """The relative error of each layer's gradient: the median over rows, then the mean over seeds."""
    keys = settings(runs.table)
    figure, axes = plt.subplots(figsize=(7, 3.6))
    groups = runs.table.groupby(keys, dropna=False, sort=True)
    for number, (setting, group) in enumerate(groups):
        found = pd.DataFrame([runs.metrics[run].filter(regex=rf"^{ALIGNED}/layer\d+$").median() for run in group["run"]])
        found = found.dropna(axis=1, how="all")
        if found.empty or not (found.to_numpy() > 0).any():
            continue  # the reference itself
        depth = [int(column.rpartition("layer")[2]) for column in found]
        axes.errorbar(depth, found.mean(), yerr=found.sem().fillna(0), fmt="o-", markersize=4, linewidth=1.2,
                      capsize=2, color=plt.get_cmap("turbo")((number + 0.5) / len(groups)), label=label(keys, setting))
        axes.set_xticks(sorted({*depth, *map(int, axes.get_xticks())} & set(range(1, max(depth) + 1))))
    if not axes.has_data():
        plt.close(figure)
        return None
    axes.set(yscale="log", xlabel="layer, counted from the input", ylabel="relative error of its gradient")
    beside(figure, axes)
    return figure


def strengths(runs: Runs) -> Figure | None:
    """The relative error against the nudge strength, where a sweep has several."""
    table = runs.table[(runs.table[ALIGNED] > 0) & runs.table["strength"].notna()]
    others = [key for key in settings(runs.table) if key != "nudge.strength"]
    figure, axes = plt.subplots(figsize=(7, 3.6))
    groups = table.groupby(others, dropna=False, sort=True)
    for number, (setting, group) in enumerate(groups):
        each = group.groupby("strength")[ALIGNED].agg(["mean", "sem"])
        if len(each) > 1:
            axes.errorbar(each.index, each["mean"], yerr=each["sem"].fillna(0), fmt="o-", markersize=4, linewidth=1.2,
                          capsize=2, color=plt.get_cmap("turbo")((number + 0.5) / len(groups)),
                          label=label(others, setting))
    if not axes.has_data():
        plt.close(figure)
        return None
    axes.set(xscale="log", yscale="log", xlabel="nudge strength", ylabel="relative error of the gradient")
    beside(figure, axes)
    return figure


def beside(figure: Figure, axes: Axes) -> None:
    """A legend to the right of all axes."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write(runs: Runs, title: str, baseline: str, out: Path) -> None:
    """report.md and report.html, with the same sections, and the figures that both show."""
    out.mkdir(parents=True, exist_ok=True)
    finished = len(runs.table)
    sections: list[tuple[str, str, pd.DataFrame | str]] = []
    if finished:
        sections.append(("Over seeds", "Mean ± standard error of the mean; values as summary.json has them.",
                         means(runs.table)))
        paired = differences(runs.table, baseline)
        if not paired.empty:
            sections.append((f"Differences from {baseline}",
                             f"Paired by seed: a run minus that of {baseline}, mean ± standard error of the mean.", paired))
        figures = {"learning": ("Loss and accuracy", learning(runs)), "layers": ("Alignment of each layer", layers(runs)),
                   "strengths": ("Error against nudge", strengths(runs))}
        for name, (heading, figure) in figures.items():
            if figure:
                figure.savefig(out / f"{name}.png", dpi=120)
                plt.close(figure)
                sections.append((heading, "Bands and bars are standard errors over seeds.", f"{name}.png"))
    text = f"{finished} finished runs" + (f", {len(runs.amiss)} missing or broken." if runs.amiss else ", none missing.")
    if runs.amiss:
        sections.insert(0, ("Missing or broken", "They are in no table and no figure.",
                            pd.DataFrame(runs.amiss, columns=["run", "what is wrong"])))
    plain, page = [f"# {title}", text], [f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p>"]
    for heading, words, content in sections:
        picture = isinstance(content, str)
        plain += [f"## {heading}", words, f"![{heading}]({content})" if picture else markdown(content)]
        shown = (f'<img src="{content}" alt="{html.escape(heading)}">' if picture
                 else content.to_html(index=False, border=0))
        page += [f"<h2>{html.escape(heading)}</h2><p>{html.escape(words)}</p>", shown]
    (out / "report.md").write_text("\n\n".join(plain) + "\n")
    (out / "report.html").write_text(PAGE.format(title=html.escape(title), body="\n".join(page)))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;display:block;overflow-x:auto}}td,th{{padding:.2rem .7rem;text-align:right;white-space:nowrap}}
tr:nth-child(even){{background:#f4f4f4}}td:first-child,th:first-child{{text-align:left}}img{{max-width:100%}}</style></head>
<body>{body}</body></html>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of runs, at any depth")
    parser.add_argument("--baseline", default="bp", help="the algorithm to take differences from (default: bp)")
    parser.add_argument("--out", type=Path, help="where the report goes (default: report, in the folder of runs)")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder")
    runs = read(options.folder)
    if runs.table.empty and not runs.amiss:
        parser.error(f"{options.folder} holds no runs")
    out = options.out or options.folder / "report"
    write(runs, f"Runs of {options.folder.resolve().name}", options.baseline, out)
    print(f"{len(runs.table)} runs, {len(runs.amiss)} missing or broken: {out / 'report.md'}, {out / 'report.html'}")


if __name__ == "__main__":
    main()
