"""The figure and the tables of results/feedback: python scripts/table_feedback.py RESULTS SWEEP...

Each SWEEP is a folder of runs of one network, an algorithm and a feedback each. The first one is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml
from records import columns, command, runs, summary, table_parser
from table_mnist import write

from ebmrun.report import markdown

ALGORITHMS = ("pc", "lifted", "ep_centered", "chl")
FEEDBACK = ("tied", "random", "sign", "kolen_pollack")
LAST = 5  # compared batches whose median is the end


def row(run: Path) -> dict[str, Any]:
    """What the tables need of one run: its words, its results, and angles at the first and the last compared batches,
    to backprop in all and by layer, and between both ways."""
    said = dict(word.split("=", 1) for word in yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text()))
    found, rows = summary(run), columns(run / "metrics.csv")
    kept: dict[str, Any] = {"network": said["arch.hidden"], "algo": said["algo"], "feedback": said["feedback"],
                            "seed": found["seed"], "epoch": found["epoch"], "steps": found["steps"]}
    kept |= {key: found.get(key, "") for key in ("test/accuracy", "test/loss", "relax/converged", "time/step_ms")}
    for key, values in rows.items():
        if key.startswith(("alignment/angle", "feedback/angle")):
            measured = values[~np.isnan(values)]
            kept |= {f"{key}/start": float(f"{measured[0]:.3g}"),
                     f"{key}/end": float(f"{np.median(measured[-LAST:]):.3g}")}
    return kept


def way(found: Mapping[str, Any], key: str) -> str:
    """An angle from start to end; none where it was not measured."""
    return f"{found[f'{key}/start']:.3g}° → {found[f'{key}/end']:.3g}°" if f"{key}/start" in found else ""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a run, in the order of the command."""
    layers = [key.split("/")[2] for key in rows[0] if key.startswith("alignment/angle/layer") and "/start" in key]
    lines = [[found["algo"], found["feedback"], f"{100 * found['test/accuracy']:.2f}", way(found, "alignment/angle"),
              *(way(found, f"alignment/angle/{layer}") for layer in layers), way(found, "feedback/angle"),
              f"{found['relax/converged']:.0%}"] for found in rows]
    return markdown.table(["algo", "feedback", "test accuracy, %", "angle to backprop", *layers, "between B and W",
                           "converged"], lines)


def ordered(sweep: Path) -> list[dict[str, Any]]:
    """The runs of a sweep, in the order of the lists above. Exits for what they do not name."""
    found = [row(run) for run in runs(sweep)]
    if unknown := {each[key] for each in found for key in ("algo", "feedback")} - {*ALGORITHMS, *FEEDBACK}:
        raise SystemExit(f"{sweep} has runs of {', '.join(sorted(unknown))}, which the table does not name")
    return sorted(found, key=lambda each: (ALGORITHMS.index(each["algo"]), FEEDBACK.index(each["feedback"])))


def draw(sweep: Path, path: Path) -> None:
    """Angles to backprop over training, a line each layer and a panel each algorithm and way down that is not tied."""
    figure, axes = plt.subplots(len(FEEDBACK) - 1, len(ALGORITHMS), figsize=(11, 7.2), sharex=True, sharey=True)
    for run in runs(sweep):
        found, rows = row(run), columns(run / "metrics.csv")
        if found["feedback"] == "tied":
            continue
        axis = axes[FEEDBACK.index(found["feedback"]) - 1, ALGORITHMS.index(found["algo"])]
        for key, values in rows.items():
            if key.startswith("alignment/angle/") or key == "feedback/angle":
                there, ways = ~np.isnan(values), key == "feedback/angle"
                axis.plot(rows["step"][there], values[there], "--" if ways else "-", linewidth=1.2,
                          color="0.4" if ways else None, label="between B and W" if ways else key.rpartition("/")[2])
        axis.axhline(90, color="0.7", linewidth=0.8, linestyle=":")
        axis.set(ylim=(0, 135))
    for axis, name in zip(axes[0], ALGORITHMS):
        axis.set_title(name)
    for axis, name in zip(axes[:, 0], FEEDBACK[1:]):
        axis.set_ylabel(f"{name}\nangle, degrees")
    for axis in axes[-1]:
        axis.set_xlabel("batches")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=95)


def main() -> None:
    asked = table_parser(__doc__).parse_args()
    asked.results.mkdir(parents=True, exist_ok=True)
    tables = [ordered(sweep) for sweep in asked.sweeps]
    draw(asked.sweeps[0], asked.results / "angles.png")
    write(asked.results / "runs.csv", widened([found for rows in tables for found in rows]))
    shown = "\n\n".join(f"784-{rows[0]['network'].strip('[]').replace(',', '-')}-10:\n\n{table(rows)}"
                        for rows in tables)
    commands = "\n".join(command(sweep) for sweep in asked.sweeps)
    (asked.results / "README.md").write_text(f"""# Feedback by weights of its own

MNIST, tanh units, half squared error, batches of 64, {tables[0][0]['steps']} steps, seed {tables[0][0]['seed']}; one
learning rate and one weight decay for a network. Every run starts from the same weights and sees the same batches.
Angles are to backpropagation by the transposes: at the first compared batch, and the median of the last {LAST}; in all,
layer by layer, and between the weights of both ways, B and W.

{shown}

![Angles to backprop over training, layer by layer, and between both ways](angles.png)

*The first network. Full lines: each layer's gradient against backpropagation. Dashes: the weights of both ways.*

With random weights `pc`, `lifted` and `chl` are feedback alignment, to within their nudge. Below the output, their
layers begin at 84 to 105° to backpropagation and turn to 45 to 50°, as Lillicrap et al. 2016 found. The layer
next to the output hears the cost itself, and has nothing to align where the nudge is weak. Where the Hopfield energy
has full feedback (`ep_centered`), the angle contains that between its equilibrium and the forward pass.

Every run, a row each: [runs.csv](runs.csv). Made by `make feedback`, which runs

```
{commands}
```

and then `python scripts/table_feedback.py results/feedback SWEEP...` with these folders.
""")


def widened(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same rows with the keys of all, empty where nothing was measured."""
    keys = list(dict.fromkeys(key for found in rows for key in found))
    return [{key: found.get(key, "") for key in keys} for found in rows]


if __name__ == "__main__":
    main()
