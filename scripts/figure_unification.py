"""Draws the unification figure: python scripts/figure_unification.py RUN RESULTS"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import yaml
from matplotlib.lines import Line2D
from records import columns, command, copy, summary

from ebmrun.report import markdown

COLOURS = {"pc": "#0072b2", "lifted": "#009e73", "ep": "#d55e00", "chl": "#cc79a7"}
NAMES = {
    "pc": "predictive coding", "lifted": "lifted energy", "ep": "equilibrium propagation*",
    "chl": "contrastive Hebbian learning",
}
MARKERS = {"one_sided": "o", "centered": "s", "fourth_order": "^", "holomorphic": "D", "holomorphic_8": "v"}
LABELS = {"holomorphic": "4 complex nodes", "holomorphic_8": "8 complex nodes"}


def colour(member: str) -> str:
    return COLOURS[member.partition("_")[0]]


def draw(h: np.ndarray, errors: dict[str, np.ndarray], moves: Mapping[str, str], path: Path) -> None:
    """Errors against the nudge strength and against the feedback gain, whichever a member ``moves``, with the rounding
    units of both precisions."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5.4), sharey=True, width_ratios=[1.2, 1])
    for name, error in errors.items():
        member, nudge, precision = name.split("/")
        fed = moves[member] == "energy.feedback_gain"
        marker = "o" if fed else MARKERS.get(nudge)
        if not marker:  # a single node without a free gradient is the one-sided stencil again
            continue
        single = precision == "float32"
        style = {"linewidth": 1, "linestyle": "--", "alpha": 0.75} if single else {"linewidth": 1.5, "marker": marker}
        axes[int(fed)].plot(h, error, color=colour(member), markersize=4, markevery=2, **style)
    for precision in (np.float32, np.float64):
        unit = np.finfo(precision).eps / 2
        for axis in axes:
            axis.axhline(unit, color="0.35", linestyle=":", linewidth=1)
        axes[1].text(h.max(), unit * 0.7, f"{precision.__name__} rounding unit", ha="right", va="top", fontsize=9,
                     color="0.35")
    for axis in axes:
        axis.set(xscale="log", yscale="log", ylim=(1e-18, 3))
    axes[0].set(xlabel="nudge strength λ", ylabel="relative error ‖g − g*‖ / ‖g*‖",
                title="weaker nudge: error O(λ), O(λ²), O(λ⁴), O(λ⁸)")
    axes[1].set(xlabel="feedback gain γ", title="weaker feedback: error O(γ)")
    axes[1].text(0.02, 0.02, "* left: g* is the gradient at its own free equilibrium", va="bottom", fontsize=8,
                 transform=axes[1].transAxes)
    stencils = [Line2D([], [], color="0.3", marker=m, label=LABELS.get(n, n.replace("_", "-")))
                for n, m in MARKERS.items()]
    styles = [Line2D([], [], color="0.3", label="float64"),
              Line2D([], [], color="0.3", linestyle="--", label="float32")]
    members = [Line2D([], [], color=c, linewidth=3, label=NAMES[n]) for n, c in COLOURS.items()]
    axes[1].add_artist(axes[1].legend(handles=members, loc="lower left", bbox_to_anchor=(0, 0.16), fontsize=9))
    axes[1].legend(handles=stencils + styles, loc="lower right", bbox_to_anchor=(1, 0.16), fontsize=9)
    figure.suptitle("Backpropagation is the common limit of predictive coding, equilibrium propagation and "
                    "contrastive Hebbian learning", fontsize=12)
    figure.savefig(path, dpi=95)


def table(names: Iterable[str], fitted: dict[str, float]) -> str:
    """Orders, intervals, predictions and verdicts."""
    rows = []
    for name in names:
        found = {key: fitted[f"{name}/{key}"] for key in
                 ("order", "low", "high", "predicted", "floor", "points", "from", "to", "confirmed")}
        rows.append([
            *name.split("/"), f"{found['order']:.3f}", f"{found['low']:.4f} to {found['high']:.4f}",
            f"{found['predicted']}", "pass" if found["confirmed"] else "**fail**",
            f"{found['points']} in {found['to']:.1g} to {found['from']:.1g}", f"{found['floor']:.1e}",
        ])
    return markdown.table(["member", "nudge", "precision", "fitted order", "95% interval", "predicted", "verdict",
                     "strengths fitted", "smallest error"], rows)


def main() -> None:
    """Reads one folder and fills the other."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("run", type=Path, help="the folder of a run of study=unification")
    parser.add_argument("results", type=Path, help="where the figure and its page go")
    asked = parser.parse_args()
    run, results = asked.run, asked.results
    fitted, errors = summary(run), columns(run / "metrics.csv")
    del errors["step"]
    study = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())["study"]
    moves = {member: curve["moves"] for member, curve in study["curves"].items()}
    results.mkdir(parents=True, exist_ok=True)
    draw(errors.pop("strength"), errors, moves, results / "unification.png")
    copy(run / "metrics.csv", results / "errors.csv")
    copy(run / ".hydra" / "overrides.yaml", results / "overrides.yaml")
    orders = {key: value for key, value in fitted.items() if not key.startswith("provenance/")}
    (results / "orders.json").write_text(json.dumps(orders, indent=2) + "\n")
    confirmed = [value for key, value in fitted.items() if key.endswith("/confirmed")]
    (results / "README.md").write_text(f"""# One limit for the whole family

![Error against nudge strength and feedback gain](unification.png)

Each line is one member of the family on one batch of a small network. Left: the nudge strength λ falls. g* is the
gradient of backprop for predictive coding and the lifted energy, whose free equilibrium is the forward pass, and the
gradient at its own free equilibrium, by implicit differentiation, for equilibrium propagation. Right: the feedback gain
γ falls. There g* is the gradient of backprop for all: predictive coding and contrastive Hebbian learning with a clamped
output, equilibrium propagation with a fixed weak nudge. For predictive coding and the lifted energy the single stencil
is the one-sided one, since the free gradient is zero, and lies under it in the figure.

Complex nodes are 4 and 8 points of holomorphic equilibrium propagation (Laborieux & Zenke 2022), for every energy.

The error falls by the order that theory predicts until it meets the floor of the arithmetic. {sum(confirmed)} of
{len(confirmed)} fitted orders pass: their whole 95% interval lies within 0.25 of the prediction, so that every other
whole order is excluded. The reference is in float64 for either precision; the smallest error in float64 of equilibrium
propagation against the nudge strength lies below the tolerance of that reference, eps^(3/4) = 2e-12.

{table(errors, fitted)}

Made by `{command(run)}`, then `python scripts/figure_unification.py`. Errors: [errors.csv](errors.csv); orders:
[orders.json](orders.json).
""")


if __name__ == "__main__":
    main()
