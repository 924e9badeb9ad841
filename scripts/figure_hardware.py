"""Draws the figures of imperfect hardware: python scripts/figure_hardware.py STRENGTHS ACCURACIES RESULTS"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml
from records import summary, write_csv
from table_mnist import write

from ebmrun.report import markdown

NUDGES = {1: "single, order 1", 2: "centered, order 2", 4: "fourth-order"}
LEVELS = ("#0072b2", "#e69f00", "#d55e00")
AXES = {
    "readings": "noise of each reading σ", "states": "noise of each state at each step",
    "reading_bits": "bits of a reading", "weight_bits": "bits of a weight",
}
MEMBERS = {
    "pc, λ = 0.3": ("#0072b2", "o"), "lifted, λ = 0.3": ("#009e73", "s"), "ep_centered, λ = 0.3": ("#d55e00", "^"),
    "chl, γ = 0.3": ("#cc79a7", "D"), "pc, λ = 0.0001": ("0.5", "v"),
}


def config(run: Path) -> dict:
    return yaml.safe_load((run / ".hydra" / "config.yaml").read_text())


def nudge_of(run: Path) -> str:
    nudge, found = config(run)["nudge"], summary(run)
    return f"holomorphic, {nudge['points']} points" if nudge["points"] > 1 else NUDGES[round(found["best/order"])]


def strengths(folder: Path, path: Path) -> tuple[list[list[str]], dict[str, np.ndarray]]:
    """Draws error against strength, a panel a nudge; the rows of the table, and the columns behind the figure."""
    by_nudge: dict[str, list[tuple[float, Path]]] = defaultdict(list)
    for run in sorted(path.parent for path in folder.glob("*/certify.json")):
        by_nudge[nudge_of(run)].append((config(run)["noise"]["readings"], run))
    order = [*NUDGES.values(), *(name for name in by_nudge if name not in NUDGES.values())]
    figure, axes = plt.subplots(1, len(order), figsize=(13, 4.6), sharey=True)
    rows, columns = [], {}
    for axis, name in zip(axes, order):
        for (level, run), colour in zip(sorted(by_nudge[name]), LEVELS):
            whole, found = json.loads((run / "certify.json").read_text()), summary(run)
            points = sorted((p for p in whole["points"] if "total" in p), key=lambda p: p["value"])
            h, total = (np.array([p[key] for p in points]) for key in ("value", "total"))
            best, least = found["best/strength"], int(total.argmin())
            axis.plot(h, total, ".", color=colour, markersize=4)
            axis.plot(h, np.hypot(found["best/bias"] * h ** found["best/order"], found["best/noise"] / h), "-",
                      color=colour, linewidth=1, label=f"σ = {level:g}")
            axis.plot(h[least], total[least], "o", color=colour, markersize=9, markerfacecolor="none")
            axis.axvline(best, color=colour, linestyle=":", linewidth=1.2)
            columns |= {"strength": h, f"{name}/{level:g}": total}
            rows.append([name, f"{level:g}", f"{found['best/bias']:.3g}", f"{found['best/order']:g}",
                         f"{found['best/noise']:.2g}", f"{best:.3g}", f"{found['best/strength_in_square']:.3g}",
                         f"{h[least]:.3g}", f"{h[least] / best:.2f}", f"{found['best/error_in_square']:.2g}",
                         f"{total[least]:.2g}"])
        axis.plot(h, [p["bias"] for p in points], "--", color="0.5", linewidth=1, label="bias alone")
        axis.set(xscale="log", yscale="log", ylim=(1e-4, 30), title=name, xlabel="nudge strength λ")
    axes[0].set_ylabel("relative error of the gradient,\nroot mean square of 16 draws")
    axes[0].legend(frameon=False, fontsize=9, loc="upper right")
    figure.suptitle("Dots: measured. Lines: b λᵖ and σ/λ, in squares. Dotted: λ* = (σ/(p b))^(1/(p+1)). "
                    "Ring: the least measured error", fontsize=11)
    figure.savefig(path, dpi=95)
    return rows, columns


def member_of(run: Path) -> str:
    asked = config(run)
    if asked["algo"]["name"] == "chl":
        return f"chl, γ = {asked['energy']['feedback_gain']:g}"
    return f"{asked['algo']['name']}, λ = {asked['nudge']['strength']:g}"


def trainings(folder: Path) -> list[dict[str, Any]]:
    """A row for each training that ended."""
    found = []
    for run in sorted(path.parent for path in folder.glob("*/*/*/summary.json")):
        asked, ended = config(run), summary(run)
        key = run.parent.name.removeprefix("noise.")
        found.append({"imperfection": key, "member": member_of(run), "value": float(asked["noise"][key]),
                      "seed": asked["seed"], "epoch": ended["epoch"], "test/accuracy": ended["test/accuracy"]})
    return found


def accuracies(runs: list[dict[str, Any]], path: Path) -> list[list[str]]:
    """Draws test accuracy against each imperfection; the rows of the table, mean and standard error over seeds."""
    found: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for run in runs:
        found[run["imperfection"], run["member"], run["value"]].append(100 * run["test/accuracy"])
    figure, axes = plt.subplots(1, len(AXES), figsize=(13, 4.4), sharey=True)
    rows = []
    for axis, (key, label) in zip(axes, AXES.items()):
        for member, (colour, marker) in MEMBERS.items():
            values = sorted(value for at, who, value in found if (at, who) == (key, member) and value > 0)
            each = [np.array(found[key, member, value]) for value in values]
            mean = [one.mean() for one in each]
            error = [one.std(ddof=1) / len(one) ** 0.5 if len(one) > 1 else math.nan for one in each]
            if values:
                axis.errorbar(values, mean, error, color=colour, marker=marker, markersize=5, capsize=2, label=member)
            rows += [[AXES[key], member, f"{value:g}", f"{m:.1f}" + ("" if math.isnan(e) else f" ± {e:.1f}"),
                      str(len(one))] for value, m, e, one in zip(values, mean, error, each)]
            clean = found.get(("readings", member, 0.0))
            if clean:
                axis.axhline(float(np.mean(clean)), color=colour, linestyle=":", linewidth=0.8)
        axis.set(xlabel=label, xscale="linear" if key.endswith("bits") else "log", ylim=(0, 100))
        if key.endswith("bits"):
            axis.set_xticks([3, 4, 6, 8])
    axes[0].set_ylabel("test accuracy, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=10)
    figure.suptitle("Digits, 64 tanh units, 8 epochs, three seeds. Dotted: without imperfections", fontsize=11)
    figure.savefig(path, dpi=95)
    clean = [["none", member, "", f"{np.mean(each):.1f} ± {np.std(each, ddof=1) / len(each) ** 0.5:.1f}",
              str(len(each))] for member in MEMBERS if len(each := found.get(("readings", member, 0.0), [])) > 1]
    return clean + rows


def main() -> None:
    """Reads two folders and fills the third."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("strengths", type=Path, help="the folder of runs of study=certify")
    parser.add_argument("accuracies", type=Path, help="the folder of the trainings, MEMBER/IMPERFECTION/RUN")
    parser.add_argument("results", type=Path, help="where the figures and their page go")
    asked = parser.parse_args()
    results = asked.results
    results.mkdir(parents=True, exist_ok=True)
    laws, columns = strengths(asked.strengths, results / "strength.png")
    ended = trainings(asked.accuracies)
    accuracy, epochs = accuracies(ended, results / "accuracy.png"), ended[0]["epoch"]
    write(results / "accuracy.csv", ended)
    write_csv(results / "errors.csv", columns, 6)
    (results / "README.md").write_text(f"""# Imperfect hardware

## The best strength of a nudge that is read with noise

![Error against strength, for four nudges at three levels of noise](strength.png)

A nudge has a bias of b λᵖ. The difference of readings that carry noise has an error of σ/λ. Their sum is least at

    λ* = (σ / (p b))^(1 / (p + 1))

Bias and noise are independent, so that over many draws their squares add up; that moves the minimum up by
p^(1/(2(p+1))), 1 for p = 1, 1.12 for 2 and 1.15 for 4. Lifted energy, the default network of tanh units on the first
batch of the digits, float64; b, p
and σ (relative to the gradient, as `study=certify` measures them), the two predictions, and what
was measured:

{markdown.table(["nudge", "noise", "b", "p", "σ", "λ*", "λ* in squares", "measured", "measured / λ*",
                 "predicted error, in squares", "measured error"], laws)}

The strengths measured lie a factor of 1.26 apart. A higher order stands a stronger nudge, which leaves less noise; the
complex nodes have smaller weights and a smaller bias than the real ones of the same order.

## What a training makes of it

![Accuracy against noise and bits](accuracy.png)

The digits, one hidden layer of 64 tanh units, batches of 64, {epochs:g} epochs, mean ± standard error over seeds.

A strong nudge (λ or γ of 0.3) is read well enough where the default of `pc`, 1e-4, drowns in noise or in the first bit.
What the Hopfield energy reads are states, which fill the range of the readings; the messages of the other two are small
errors, and need more bits. Three bits of a weight are steps of 1/3, which round all initial weights to 0.
A run that diverged has no number; the last column says how many ended.

{markdown.table(["imperfection", "algorithm", "value", "test accuracy, %", "seeds"], accuracy)}

Made by `make hardware`: runs of `ebmrun study=certify` and of `ebmrun`, then `python scripts/figure_hardware.py`.
Errors: [errors.csv](errors.csv); accuracies: [accuracy.csv](accuracy.csv).
""")


if __name__ == "__main__":
    main()
