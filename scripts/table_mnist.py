"""The table of results/mnist: python scripts/table_mnist.py RESULTS SWEEP... [--longer RUN...]

Each SWEEP is a folder of runs; every run is held against backprop of the same seed and activation, which started from
the same weights and saw the same batches.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from records import columns, command, runs, summary, table_parser
from scipy.stats import t as student

from ebmrun.report import markdown

MARGIN = 0.3  # points of test accuracy within which two algorithms count as equivalent
BP_LIKE = 0.05  # relative error against backprop
KEYS = ("test/accuracy", "test/loss", "train/loss", "alignment/angle", "alignment/relative_error",
        "alignment_implicit/relative_error", "time/step_ms", "relax/steps", "relax/converged")


def row(run: Path) -> dict[str, Any]:
    """What the table needs of one run."""
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    found = summary(run)
    return {"algo": found["algo"], "activation": config["arch"]["activation"], "seed": found["seed"],
            "epoch": found["epoch"], "steps": found["steps"], **{key: found.get(key, "") for key in KEYS}}


def paired(difference: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, 95% t interval, and the p value of equivalence: the larger of two one-sided t tests (Schuirmann 1987)."""
    mean, error, freedom = difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5, len(difference) - 1
    half = student.ppf(0.975, freedom) * error
    with np.errstate(divide="ignore"):
        p = max(student.sf((MARGIN + mean) / error, freedom), student.sf((MARGIN - mean) / error, freedom))
    return mean, mean - half, mean + half, p


def regime(algo: str, found: dict[str, np.ndarray]) -> str:
    """From what was measured: how near to backprop, else whether the relaxation met its tolerance."""
    if algo == "bp":
        return "the reference"
    if np.median(found["alignment/relative_error"]) <= BP_LIKE:
        return "BP-like"
    return "own equilibrium" if found["relax/converged"].mean() >= 0.95 else "partly relaxed"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each algorithm and activation."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in sorted(rows, key=lambda r: int(r["seed"])):
        groups.setdefault((each["algo"], each["activation"]), []).append(each)
    lines = []
    for (algo, activation), members in groups.items():
        found = {key: np.array([float(m[key]) if m[key] != "" else np.nan for m in members]) for key in KEYS}
        base = {m["seed"]: float(m["test/accuracy"]) for m in groups[("bp", activation)]}
        accuracy = 100 * found["test/accuracy"]
        error = accuracy.std(ddof=1) / len(accuracy) ** 0.5
        implicit = np.median(found["alignment_implicit/relative_error"])
        steps = int(members[0]["steps"]) / float(members[0]["epoch"])
        line = [f"`{algo}`", activation, str(len(members)), f"{accuracy.mean():.2f} ± {error:.2f}"]
        if algo == "bp":
            line += ["", ""]
        else:
            mean, low, high, p = paired(accuracy - 100 * np.array([base[m["seed"]] for m in members]))
            equal = "equivalent" if p < 0.05 else "not shown"
            line += [f"{mean:+.2f} ({low:+.2f} to {high:+.2f})", f"{equal}, p = {p:.1g}"]
        line += [
            f"{found['train/loss'].mean():.4f}", f"{found['test/loss'].mean():.4f}",
            f"{np.median(found['alignment/angle']):.2g}°", f"{np.median(found['alignment/relative_error']):.1e}",
            "" if np.isnan(implicit) or algo == "bp" else f"{implicit:.1e}", said(np.median(found["relax/steps"]), "g"),
            said(found["relax/converged"].mean(), ".0%"), f"{np.median(found['time/step_ms']) * steps / 1e3:.1f}",
            regime(algo, found),
        ]
        lines.append(line)
    return markdown.table(["algo", "units", "seeds", "test accuracy, %", "minus bp, points (95% interval)",
                     f"within {MARGIN} points", "train loss, last batch", "test loss", "angle to BP", "error to BP",
                     "error to own equilibrium", "sweeps", "converged", "s an epoch", "regime"], lines)


def said(number: float, form: str) -> str:
    """A number, and nothing for what was not measured."""
    return "" if np.isnan(number) else format(number, form)


def longer(run: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """One long run: its line, and its accuracy after each epoch."""
    found = columns(run / "metrics.csv")
    tested = np.isfinite(found["test/accuracy"])
    epochs, accuracy = found["epoch"][tested], 100 * found["test/accuracy"][tested]
    best = int(accuracy.argmax())
    line = [f"`{command(run)}`", f"{epochs[-1]:g}", f"{accuracy[-1]:.2f}",
            f"{accuracy[best]:.2f} (epoch {epochs[best]:g})"]
    curve = zip(epochs, accuracy)
    return line, [{"run": run.name, "epoch": f"{e:g}", "test/accuracy": f"{a / 100:.4f}"} for e, a in curve]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--longer", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    asked.results.mkdir(parents=True, exist_ok=True)
    rows = [row(run) for sweep in asked.sweeps for run in runs(sweep)]
    write(asked.results / "runs.csv", rows)
    commands = "\n".join(command(sweep) for sweep in asked.sweeps)
    text = f"""# Algorithms on MNIST

784-128-64-10, half squared error, batches of 64, the same step size (6.4e-3 on the mean, momentum 0.9) for all, and
{float(rows[0]['epoch']):g} epochs. Of one seed, all start from the same weights and see the same batches; the
difference is paired with `bp` of the same seed and units. Mean ± standard error over seeds. Equivalence: two one-sided
t tests at 5% with a margin of {MARGIN} points. Angle and errors are medians over the compared batches; the error to its
own equilibrium is against the gradient there, by implicit differentiation. Seconds are those of gradients and updates
alone, on one core of a machine that other work shared.

{table(rows)}

The regime follows from the measurements: *BP-like* within {BP_LIKE:.0%} of the gradient of backprop, otherwise *own
equilibrium* where at least 95% of the relaxations met their tolerance, and *partly relaxed* where they did not.

Every run, a row each: [runs.csv](runs.csv). Made by

```
{commands}
```
"""
    if asked.longer:
        each = [longer(run) for run in asked.longer]
        write(asked.results / "longer.csv", [epoch for _, epochs in each for epoch in epochs])
        heads = ["command", "epochs", "test accuracy at the end, %", "best, %"]
        lines = markdown.table(heads, [line for line, _ in each])
        text += f"\n## Longer runs\n\nOne seed each.\n\n{lines}\n\nEvery epoch: [longer.csv](longer.csv).\n"
    (asked.results / "README.md").write_text(text + "\nTables: `python scripts/table_mnist.py` with these folders.\n")


if __name__ == "__main__":
    main()
