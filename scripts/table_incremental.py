"""The table of results/incremental: python scripts/table_incremental.py results/incremental MNIST... --cifar RUN...

MNIST are folders of runs of several seeds, each RUN is one run on CIFAR-10. Runs with the same words but for the seed
make one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from records import command, last_words, runs, summary, table_parser
from table_mnist import write

from ebmrun.report import markdown

KEYS = ("steps", "train/loss", "test/loss", "test/accuracy", "alignment/angle", "relax/residual", "time/step_ms")
ASIDE = ("seed", "logger", "trainer.log_every", "alignment.every", "resume", "device", "dataset", "dataset.path")


def row(run: Path) -> dict[str, Any]:
    """What the table needs of one run."""
    said = last_words(yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text()))
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    found = summary(run)
    each = config["relax"]["max_steps"] if config["trainer"]["update"] == "each_step" else 1
    words = " ".join(key + value for key, value in said.items() if key.removesuffix("=") not in ASIDE)
    return {"words": words, "seed": found["seed"], "updates": each * found["steps"],
            **{key: found.get(key, float("nan")) for key in KEYS}}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each set of words, without those that all have: means over seeds, with the standard error of the
    accuracy."""
    lines, shared = [], set.intersection(*(set(each["words"].split()) for each in rows))
    for words, each in pd.DataFrame(rows).groupby("words", sort=False):
        accuracy = 100 * each["test/accuracy"]
        spread = f" ± {accuracy.std(ddof=1) / len(each) ** 0.5:.2f}" if len(each) > 1 else ""
        mean = each.mean(numeric_only=True)
        numbers = [format(mean[key], form) if pd.notna(mean[key]) else ""
                   for key, form in (("train/loss", ".4f"), ("test/loss", ".4f"), ("alignment/angle", ".3g"),
                                     ("relax/residual", ".2g"), ("time/step_ms", ".3g"))]
        own = " ".join(word for word in words.split() if word not in shared)
        lines.append([f"`{own}`", str(len(each)), f"{mean.steps:.0f}", f"{mean.updates:.0f}",
                      f"{accuracy.mean():.2f}{spread}", *numbers])
    return markdown.table(["words", "seeds", "batches", "updates", "test accuracy, %", "train loss", "test loss",
                           "angle to backprop, degrees", "residual", "ms a batch"], lines)


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--cifar", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    asked.results.mkdir(parents=True, exist_ok=True)
    mnist, cifar = [row(run) for sweep in asked.sweeps for run in runs(sweep)], [row(run) for run in asked.cifar]
    write(asked.results / "runs.csv", mnist + cifar)
    text = Path(__file__).with_name("incremental_page.md").read_text()
    commands = "\n".join(command(folder) for folder in (*asked.sweeps, *asked.cifar))
    (asked.results / "README.md").write_text(text.format(mnist=table(mnist), cifar=table(cifar), commands=commands))


if __name__ == "__main__":
    main()
