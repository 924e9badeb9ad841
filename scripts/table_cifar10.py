"""The table and curves of results/cifar10: python scripts/table_cifar10.py RESULTS RUN...

Each RUN is a folder of one run, or of several seeds; each run is held against backprop of the same seed and units,
which started from the same weights and saw the same images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import yaml
from records import columns, command, runs, summary, table_parser
from table_mnist import said, write

from ebmrun.report import markdown

HEAD = ["algo", "units", "seeds", "epochs", "test accuracy, %", "minus bp, points", "validation, %", "train loss",
        "angle to BP", "error to BP", "sweeps", "batches converged", "ms a step"]
MIDDLE = {"angle": "alignment/angle", "error": "alignment/relative_error", "sweeps": "relax/steps",
          "ms": "time/step_ms"}


def row(run: Path) -> dict[str, Any]:
    """What the table needs of one run: its end, medians over its rows, the share of batches that converged, and the
    loss of training over the last epoch's rows."""
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    found, end = columns(run / "metrics.csv"), summary(run)
    last = found["epoch"] > found["epoch"].max() - 1

    def over(key: str, by: Any) -> float:
        there = found.get(key, np.array([]))
        there = there[np.isfinite(there)]
        return float(by(there)) if len(there) else float("nan")

    return {"algo": config["algo"]["name"], "units": config["arch"]["activation"], "seed": config["seed"],
            "epochs": found["epoch"].max(), "steps": end["steps"], "test": 100 * float(end["test/accuracy"]),
            "validation": 100 * float(end["val/accuracy"]), "loss": float(np.nanmean(found["train/loss"][last])),
            **{name: over(key, np.median) for name, key in MIDDLE.items()},
            "converged": over("relax/converged", np.mean)}


def lines(table: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each algorithm and kind of unit."""
    made = []
    for algo, units in dict.fromkeys((each["algo"], each["units"]) for each in table):
        mine = [each for each in table if (each["algo"], each["units"]) == (algo, units)]
        base = {each["seed"]: each["test"] for each in table if (each["algo"], each["units"]) == ("bp", units)}
        apart = [each["test"] - base[each["seed"]] for each in mine if algo != "bp" and each["seed"] in base]
        middle = {key: float(np.median([each[key] for each in mine])) for key in MIDDLE}
        test = np.array([each["test"] for each in mine])
        spread = f" ± {test.std(ddof=1) / len(test) ** 0.5:.2f}" if len(test) > 1 else ""
        made.append([
            f"`{algo}`", units, str(len(mine)), f"{mine[0]['epochs']:g}", f"{test.mean():.2f}{spread}",
            f"{np.mean(apart):+.2f}" if apart else "", f"{np.mean([each['validation'] for each in mine]):.2f}",
            f"{np.mean([each['loss'] for each in mine]):.4f}", said(middle["angle"], ".2g") and
            f"{middle['angle']:.2g}°", said(middle["error"], ".1e"), said(middle["sweeps"], "g"),
            said(float(np.mean([each["converged"] for each in mine])), ".1%"), f"{middle['ms']:.0f}",
        ])
    return made


def draw(folders: list[Path], path: Path) -> None:
    """Accuracy and loss of the validation examples after each epoch."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for run in folders:
        config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
        found = columns(run / "metrics.csv")
        there = np.isfinite(found["val/accuracy"])
        units = config["arch"]["activation"]
        for place, (key, scale) in zip(axes, (("val/accuracy", 100), ("val/loss", 1))):
            place.plot(found["epoch"][there], scale * found[key][there], ":" if config["algo"]["name"] == "bp" else "-",
                       label=f"{config['algo']['name']}, {units}", linewidth=2)
    axes[0].set(xlabel="epoch", ylabel="validation accuracy, %")
    axes[1].set(xlabel="epoch", ylabel="validation loss")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    asked = table_parser(__doc__).parse_args()
    asked.results.mkdir(parents=True, exist_ok=True)
    folders = [run for sweep in asked.sweeps for run in runs(sweep)]
    table = [row(run) for run in folders]
    write(asked.results / "runs.csv", table)
    draw(folders, asked.results / "curves.png")
    commands = "\n".join(command(sweep) for sweep in asked.sweeps)
    text = Path(__file__).with_name("cifar10_page.md").read_text()
    (asked.results / "README.md").write_text(text.format(
        table=markdown.table(HEAD, lines(table)), steps=table[0]["steps"], commands=commands))


if __name__ == "__main__":
    main()
