"""The figure of results/main_job: loss and alignment of predictive coding beside backpropagation.

    python scripts/figure_main_job.py RUN_OF_PC RUN_OF_BP

Reads metrics.csv and summary.json of two runs with alignment.every=1, and writes the columns that it drew, with both
summaries and the figure, to results/main_job. Given those copies, it draws the same figure again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

OUT = Path(__file__).resolve().parents[1] / "results" / "main_job"
COLUMNS = ["step", "train/loss", "test/accuracy", "alignment/cosine", "alignment/relative_error"]
COLOURS = {"pc": "#c0392b", "bp": "#95a5a6"}
LABELS = {"pc": "predictive coding", "bp": "backpropagation"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pc", type=Path, help="run directory of algo=pc")
    parser.add_argument("bp", type=Path, help="run directory of algo=bp")
    folders = vars(parser.parse_args())
    runs = {}
    for algo, folder in folders.items():
        table = pd.read_csv(folder / "metrics.csv", usecols=COLUMNS, dtype=str)[COLUMNS]
        text = (folder / "summary.json").read_text()
        if json.loads(text)["algo"] != algo:
            parser.error(f"{folder} is a run of algo={json.loads(text)['algo']}, not of {algo}")
        (OUT / algo).mkdir(parents=True, exist_ok=True)
        table.to_csv(OUT / algo / "metrics.csv", index=False)
        (OUT / algo / "summary.json").write_text(text)
        runs[algo] = table.astype(float)
    draw(runs).savefig(OUT / "loss_and_alignment.png", dpi=130)


def draw(runs: dict[str, pd.DataFrame]) -> plt.Figure:
    """Left: the loss of both, over each other. Right: how far the gradient of PC is from that of BP, batch by batch."""
    plt.rcParams |= {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
    for algo, width in ("bp", 4.0), ("pc", 1.0):
        run = runs[algo]
        accuracy = run["test/accuracy"].iloc[-1]
        smooth = run["train/loss"].rolling(20, min_periods=1, center=True).mean()
        left.plot(run["step"], smooth, color=COLOURS[algo], linewidth=width,
                  label=f"{LABELS[algo]}, test accuracy {accuracy:.4f}")
    left.set(xlabel="batch of 64 images", ylabel="training loss, mean of 20 batches", yscale="log",
             title="One epoch of MNIST, 784-128-64-10 ReLU")
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("{x:g}")
    left.legend(frameon=False)

    pc = runs["pc"]
    for name, values, colour in (
        ("relative error  |g − g_BP| / |g_BP|", pc["alignment/relative_error"], "#c0392b"),
        ("1 − cosine(g, g_BP)", 1 - pc["alignment/cosine"], "#2c3e50"),
    ):
        right.plot(pc["step"], values, ".", color=colour, markersize=2.5, label=name)
    right.axhline(1e-4, color="black", linewidth=0.8, linestyle=":")
    right.annotate("λ = 1e-4", (938, 1e-4), (0, -3), textcoords="offset points", ha="right", va="top")
    right.set(xlabel="batch of 64 images", ylabel="distance from backpropagation", yscale="log",
              title="Gradient of predictive coding, float32")
    right.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.45), markerscale=4)
    return figure


if __name__ == "__main__":
    main()
