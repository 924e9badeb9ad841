"""Draws the paper's figures: python scripts/figure_paper.py RUNS RESULTS

RUNS holds ``inference`` (study=paper) and the multiruns ``as_published``, ``converged`` and ``backprop``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from records import columns, command, copy, runs, write_csv

from ebmrun.report import markdown

MODES = {"as_published": "as published", "converged": "converged"}
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
Table = dict[str, np.ndarray]
LAMBDA = "nudge strength λ"
BATCH = "batch"
SETTLED = 1e-9  # a residual below this is at the tolerance of 1e-10; one at a kink is above 1e-2


@contextmanager
def side_by_side(path: Path, title: str, xlabel: str, ylabel: str) -> Iterator[dict[str, Axes]]:
    """Axes for the two modes, saved when the block ends."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axis, label in zip(axes, MODES.values()):
        axis.set(title=label, xlabel=xlabel)
    axes[0].set_ylabel(ylabel)
    figure.suptitle(title)
    yield dict(zip(MODES, axes))
    figure.savefig(path)
    plt.close(figure)


def band(axis: Axes, x: np.ndarray, mean: np.ndarray, error: np.ndarray, colour: str, label: str | None = None) -> None:
    """A mean with plus and minus one standard error."""
    axis.plot(x, mean, color=colour, label=label, linewidth=1.2)
    axis.fill_between(x, mean - error, mean + error, color=colour, alpha=0.25, linewidth=0)


def spread(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the first axis."""
    return rows.mean(0), rows.std(0, ddof=1) / np.sqrt(len(rows))


def by_seed(table: Table, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Strengths, and a column as a matrix of initialisations by strengths."""
    seeds = len(set(table["seed"]))
    return table["strength"][: len(table["seed"]) // seeds], table[key].reshape(seeds, -1)


def draw_inference(steps: Table, strengths: Table, results: Path) -> None:
    """F1 to F5."""
    with side_by_side(results / "F1.png", "F1  energies of one example during inference, λ = 1", "inference step",
                      "energy (half squared error)") as axes:
        for mode, axis in axes.items():
            for part, colour in (("total", BLUE), ("internal", GREEN), ("loss", ORANGE)):
                axis.plot(steps["step"], steps[f"{mode}/1/{part}"], color=colour, label=part)
        axis.legend(loc="center right", bbox_to_anchor=(1, 0.42))
    panels = {"F2": ("equilibrium", "F2  equilibrium against free phase", "‖x(λ) − x(0)‖²"),
              "F3": ("gradient", "F3  λ-normalised gradient against backprop", "‖g(λ)/λ − g$_{BP}$‖²")}
    seeds = len(set(strengths["seed"]))
    for name, (key, title, label) in panels.items():
        with side_by_side(results / f"{name}.png", f"{title}, {seeds} initialisations", LAMBDA, label) as axes:
            for mode, axis in axes.items():
                h, values = by_seed(strengths, f"{mode}/{key}")
                axis.plot(h, values.T, color="0.75", linewidth=0.7)
                band(axis, h, *spread(values), BLUE, "mean ± standard error")
                axis.plot(h, h**2 * values.mean(0)[-1], color=ORANGE, linestyle=":", label="∝ λ²")
                unsettled = by_seed(strengths, f"{mode}/residual")[1] > SETTLED
                if mode == "converged":
                    axis.plot(np.broadcast_to(h, values.shape)[unsettled], values[unsettled], "x", color=GREEN,
                              markersize=4, label="did not settle")
                axis.set(yscale="log", xscale="log")
            axis.legend(fontsize=9)
    with side_by_side(results / "F4.png", "F4  distance of the gradient against that of the equilibrium",
                      "‖x(λ) − x(0)‖²", "‖g(λ)/λ − g$_{BP}$‖²") as axes:
        for mode, axis in axes.items():
            _, near = by_seed(strengths, f"{mode}/equilibrium")
            _, off = by_seed(strengths, f"{mode}/gradient")
            for number, (x, y) in enumerate(zip(near, off)):
                axis.plot(x, y, marker=".", color=plt.colormaps["viridis"](number / len(near)), linewidth=1)
    with side_by_side(results / "F5.png", "F5  distance to the backprop gradient during inference", "inference step",
                      "‖g/λ − g$_{BP}$‖², mean") as axes:
        for mode, axis in axes.items():
            for strength, colour in (("1", BLUE), ("0.0001", ORANGE)):
                axis.plot(steps["step"], steps[f"{mode}/{strength}/distance"], color=colour, label=f"λ = {strength}")
            axis.set_yscale("log")
        axis.legend()


def training(folder: Path) -> dict[str, np.ndarray]:
    """The columns of all runs of a folder, as matrices of seeds by batches."""
    tables = [columns(run / "metrics.csv") for run in runs(folder)]
    return {key: np.stack([table[key] for table in tables]) for key in tables[0]}


def draw_training(found: dict[str, Table], results: Path) -> None:
    """F6 to F9."""
    seeds, batch = len(found["backprop"]["step"]), found["backprop"]["step"][0]
    with side_by_side(results / "F6.png", f"F6  cosine similarity to backprop, short of 1, {seeds} seeds", BATCH,
                      "1 − cosine") as axes:
        for mode, axis in axes.items():
            band(axis, batch, *spread(versine(found[mode])), BLUE)
            axis.set_yscale("log")
    panels = {"F7": ("train/accuracy", "training accuracy", "accuracy of the batch"),
              "F8": ("train/loss", "training loss", "half squared error per example")}
    for name, (key, title, label) in panels.items():
        with side_by_side(results / f"{name}.png", f"{name}  {title}, {seeds} seeds", BATCH, label) as axes:
            for mode, axis in axes.items():
                axis.plot(batch, found["backprop"][key].mean(0), color=ORANGE, alpha=0.4, linewidth=4, label="backprop")
                band(axis, batch, *spread(found[mode][key]), BLUE, "predictive coding")
            axis.legend()
    with side_by_side(results / "F9.png", f"F9  relative distance to the backprop gradient, {seeds} seeds", BATCH,
                      "‖g − g$_{BP}$‖ / ‖g$_{BP}$‖") as axes:
        for mode, axis in axes.items():
            band(axis, batch, *spread(found[mode]["alignment/relative_error"]), BLUE)
            axis.set_yscale("log")


def versine(table: Table) -> np.ndarray:
    """1 - cosine from the angle, which keeps the digits that the cosine rounds away."""
    return 2 * np.sin(np.radians(table["alignment/angle"]) / 2) ** 2


def training_table(found: dict[str, Table]) -> Table:
    """Means and standard errors over seeds, by batch."""
    table = {"batch": found["backprop"]["step"][0]}
    for name, of in found.items():
        kept = {"accuracy": of["train/accuracy"], "loss": of["train/loss"]}
        if "alignment/angle" in of:
            kept |= {"one_minus_cosine": versine(of), "relative_distance": of["alignment/relative_error"]}
        for key, rows in kept.items():
            table[f"{name}/{key}"], table[f"{name}/{key}/error"] = spread(rows)
    return table


def summary_table(steps: Table, strengths: Table, found: dict[str, Table]) -> str:
    """One line a figure, in both modes."""
    def at(key: str, strength: float) -> list[str]:
        cells = []
        for mode in MODES:
            h, values = by_seed(strengths, f"{mode}/{key}")
            mean, error = spread(values[:, np.isclose(h, strength)])
            cells.append(f"{mean[0]:.3g} ± {error[0]:.1g}")
        return cells

    def over(name: str, key: str, last: int) -> str:
        values = found[name][key][:, -last:].mean(1)
        return f"{values.mean():.4f} ± {values.std(ddof=1) / np.sqrt(len(values)):.4f}"

    final = [f"{steps[f'{mode}/1/total'][-1]:.6g}" for mode in MODES]
    rows = [["F1", "total energy after the last step, λ = 1", *final, ""]]
    for strength in (0.01, 1.0):
        rows.append(["F2", f"distance of the equilibrium, λ = {strength:g}", *at("equilibrium", strength), ""])
    for strength in (0.01, 1.0):
        rows.append(["F3", f"distance of the gradient, λ = {strength:g}", *at("gradient", strength), ""])
    residuals = [strengths[f"{mode}/residual"] for mode in MODES]
    rows.append(["F2, F3", "settled", *(f"{np.sum(r < SETTLED)} of {len(r)}" for r in residuals), ""])
    for strength in ("1", "0.0001"):
        rows.append(["F5", f"distance of the gradient after the last step, λ = {strength}",
                     *(f"{steps[f'{mode}/{strength}/distance'][-1]:.3g}" for mode in MODES), ""])
    rows.append(["F6", "1 − cosine, median over batches",
                 *(f"{np.median(versine(found[mode])):.2g}" for mode in MODES), ""])
    rows.append(["F6", "batches relaxed to tolerance",
                 *(f"{found[mode]['relax/converged'].mean():.1%}" for mode in MODES), ""])
    for name, key in (("F7", "train/accuracy"), ("F8", "train/loss")):
        rows.append([name, f"training {key[6:]}, last 100 batches",
                     *(over(name, key, 100) for name in (*MODES, "backprop"))])
    rows.append(["F9", "relative distance, median over batches",
                 *(f"{np.median(found[mode]['alignment/relative_error']):.2g}" for mode in MODES), ""])
    return markdown.table(["figure", "number", *MODES.values(), "backprop"], rows)


def main() -> None:
    """Reads one folder and fills the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("runs", type=Path, help="holds inference, as_published, converged and backprop")
    parser.add_argument("results", type=Path, help="where the figures and their page go")
    asked = parser.parse_args()
    source, results = asked.runs, asked.results
    results.mkdir(parents=True, exist_ok=True)
    inference = source / "inference"
    steps, strengths = columns(inference / "metrics.csv"), columns(inference / "strengths.csv")
    found = {name: training(source / name) for name in (*MODES, "backprop")}
    draw_inference(steps, strengths, results)
    draw_training(found, results)
    copy(inference / "metrics.csv", results / "inference.csv")
    copy(inference / ".hydra" / "overrides.yaml", results / "overrides.yaml")
    copy(inference / "strengths.csv", results / "strengths.csv")
    write_csv(results / "training.csv", training_table(found), digits=4)
    commands = "\n".join(f"    {command(source / name)}" for name in ("inference", *MODES, "backprop"))
    figures = "\n\n".join(f"![F{number}](F{number}.png)" for number in range(1, 10))
    text = (Path(__file__).parent / "paper.md").read_text()
    for name, value in (("TABLE", summary_table(steps, strengths, found)), ("FIGURES", figures),
                        ("COMMANDS", commands)):
        text = text.replace(f"{{{name}}}", value)
    (results / "README.md").write_text(text)


if __name__ == "__main__":
    main()
