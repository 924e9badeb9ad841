"""The figure and the page of results/new, from the tables there: ``python scripts/figure_new.py draw results/new``."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import pandas as pd

from ebmrun.report import markdown
from ebmrun.report.figures import STYLE

matplotlib.use("Agg")
matplotlib.rcParams.update(STYLE)

from matplotlib import pyplot as plt

# colour by stencil, full lines for joint nodes, dashes for nodes by themselves
COLOURS = {"single": "#000000", "centered": "#0072b2", "richardson": "#009e73", "fourth_order": "#d55e00"}
FAMILY = [f"{energy} {nudge}{joint}" for energy in ("predictive", "lifted") for nudge in COLOURS
          for joint in ("", ", joint") if (nudge, joint) != ("single", ", joint")]
STRONG = 0.4  # of the strongest node, for the tables


def panel(axis: plt.Axes, rows: pd.DataFrame, energy: str, key: str) -> None:
    """One energy's curves of ``key`` against the strength of the strongest node."""
    for name in (each for each in FAMILY if each.startswith(energy)):
        nudge, joint = name.split(" ")[1].rstrip(","), name.endswith("joint")
        mine = rows[(rows.member == name) & rows.converged.eq(True) & (rows[key] > 0)]
        axis.plot(mine.strongest.to_numpy(float), mine[key].to_numpy(float), linestyle="-" if joint else (0, (4, 2)),
                  color=COLOURS[nudge], linewidth=1.8, label=f"{nudge.replace('_', ' ')}{', joint' * joint}")
    axis.set(xscale="log", xlim=(1e-4, 1.2))


def figure(table: pd.DataFrame, path: Path) -> None:
    """Angles of trained tanh networks in float64, sweeps, and angles where readings are noisy."""
    rows = table[(table.activation == "tanh") & (table.weights == "trained")]
    made, grid = plt.subplots(2, 3, figsize=(12, 7), layout="constrained", sharex=True)
    noise = "angle at noise 0.001"
    for line, energy in zip(grid, ("predictive", "lifted")):
        for axis, key, title in zip(line, ("angle", "steps", noise),
                                    ("angle to backprop, radians", "sweeps to a residual of 1e-7",
                                     "angle, messages read ± 0.001")):
            panel(axis, rows, energy, key)
            axis.set_title(f"{energy}: {title}", fontsize=10, loc="left")
            axis.set(yscale="log")
        line[0].set(ylim=(1e-16, 2))
        line[1].set(ylim=(1.7, 150))
        line[1].set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
        line[1].minorticks_off()
        line[2].set(ylim=(3e-2, 2))
    for axis in grid[1]:
        axis.set_xlabel("strongest nudge, λ max|node|")
    handles, labels = grid[1][0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    made.savefig(path, dpi=130)


def number(value: float, form: str = ".1e") -> str:
    return "" if pd.isna(value) else format(value, form)


def at(table: pd.DataFrame, member: str, activation: str, weights: str) -> pd.Series | None:
    """The strongest measured nudge that is no stronger than STRONG."""
    rows = table[(table.member == member) & (table.activation == activation) & (table.weights == weights)
                 & (table.strongest <= STRONG)]
    return None if rows.empty else rows.loc[rows.strongest.idxmax()]


def strong(table: pd.DataFrame) -> str:
    """One line a member: what it is off by at a strong nudge, and at its best."""
    lines = []
    for member in dict.fromkeys(table.member):
        line = [member]
        for activation in ("tanh", "relu"):
            for weights in ("initial", "trained"):
                row = at(table, member, activation, weights)
                line.append("" if row is None or pd.isna(row.error) else
                            f"{number(row.error)}, {number(row.angle)}" + ("" if row.converged else " (not settled)"))
        row = at(table, member, "tanh", "trained")
        mine = table[(table.member == member) & (table.activation == "tanh") & (table.weights == "trained")]
        line.append("" if row is None or pd.isna(row.steps) else f"{row.steps:.0f}")
        line.append(number(mine["error float32"].min()))
        line += [number(mine[key].min()) for key in mine if key.startswith("angle at noise")]
        lines.append(line)
    noises = [key.removeprefix("angle at ") for key in table if key.startswith("angle at noise")]
    return markdown.table(["member", "tanh, initial", "tanh, trained", "relu, initial", "relu, trained", "sweeps",
                           "least error, float32", *(f"least angle, {each}" for each in noises)], lines)


def timed(times: pd.DataFrame) -> str:
    lines = [[row.member, number(row.strength, "g"), f"{row.ms:.2g}", f"{row['of backprop']:.2f}",
              number(row.sweeps, ".0f")] for _, row in times.iterrows()]
    return markdown.table(["member", "λ", "ms", "of backprop", "sweeps"], lines)


def trained(trainings: pd.DataFrame) -> str:
    lines = []
    for member, rows in trainings.groupby("member", sort=False):
        accuracy = 100 * rows["test/accuracy"]
        spread = accuracy.std(ddof=1) / math.sqrt(accuracy.count())
        failed = rows["failed"].notna().sum() if "failed" in rows else 0
        lines.append([str(member), f"`{rows.words.iloc[0]}`",
                      f"{accuracy.mean():.2f} ± {spread:.2f}" if accuracy.count() else "diverged",
                      number(rows["alignment/angle"].median(), ".2g"), number(rows["relax/steps"].median(), ".0f"),
                      number(rows["relax/converged"].mean(), ".0%"), number(rows["time/step_ms"].median(), ".2g"),
                      str(failed or "")])
    return markdown.table(["member, λ", "words", "test accuracy, %", "angle, degrees", "sweeps", "converged",
                           "ms a step", "failed"], lines)


def draw(folder: Path) -> None:
    """new.png and README.md."""
    table, times, trainings = (pd.read_csv(folder / f"{name}.csv") for name in ("errors", "times", "trainings"))
    figure(table, folder / "new.png")
    text = (Path(__file__).parent / "new_page.md").read_text()
    (folder / "README.md").write_text(text.format(strong=strong(table), timed=timed(times), trained=trained(trainings),
                                                  limit=STRONG))
