"""The figure of a certificate: errors in float64 as strength or gain fall, and the parts of the error as asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ebmrun.studies.certify.certificate import KNOBS, Certificate
from ebmrun.studies.certify.error_parts import Point
from ebmrun.studies.convergence import Fit

PARTS = (("bias", "nudge bias", "#0072b2"), ("unfinished", "unfinished relaxation", "#e69f00"),
         ("round_off", "round-off", "#999999"), ("noise", "noise", "#cc79a7"), ("total", "all of it", "#000000"))


def draw(found: Certificate, path: Path) -> None:
    """Left: how the fully relaxed error falls. Right: what the error is made of at the precision asked for."""
    symbol = KNOBS[found.knob]
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    own_name = f"to {found.limit}" if found.reference.name == "backprop" else "to its own equilibrium's gradient"
    curve(left, found.points, "bias", f"{own_name}, against {symbol}", "#0072b2", "o", found.order, size=8)
    if found.gain_points:
        curve(left, found.points, "to_backprop", f"to {found.limit}, against {symbol}", "#d55e00", "s",
              found.order_to_backprop)
        curve(left, found.gain_points, "to_backprop", f"to {found.limit}, against γ", "#009e73", "^", found.gain_order)
    left.set(xlabel="nudge strength λ, or feedback gain γ" if found.gain_points else f"{found.knob} {symbol}",
             ylabel="relative error of the gradient", title="fully relaxed, float64")
    for key, label, colour in PARTS:
        known = [p for p in found.points if p.measured.get(key)]
        if known:
            right.plot([p.value for p in known], [getattr(p, key) for p in known], ".-", color=colour, label=label)
    right.axvline(found.own.value, color="0.4", linestyle=":", label="now")
    if found.best:
        values = sorted(p.value for p in found.points)
        right.plot(values, [found.best.at(value) for value in values], "--", color="#cc79a7", linewidth=1,
                   label="b λᵖ and σ/λ, in squares")
        right.axvline(found.best.strength, color="#cc79a7", linestyle="-.", label="λ* of these")
    if found.suggestion:
        right.axvline(found.suggestion.value, color="0.4", linestyle="--", label="suggested")
    right.set(xlabel=f"{found.knob} {symbol}", title=f"relaxed as asked, {found.precision}")
    for axis, columns in (left, 1), (right, 2):
        axis.set(xscale="log", yscale="log")
        axis.grid(alpha=0.25)
        if axis.lines:
            axis.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=columns)
    figure.suptitle(f"{found.composition}\n{found.verdict.sentence}", fontsize=10)
    figure.savefig(path, dpi=110)


def curve(axis: Axes, points: Sequence[Point], key: str, label: str, colour: str, marker: str, fit: Fit | None,
          size: float = 5) -> None:
    """Settled points in full, others hollow, with the fitted order."""
    shown = [p for p in points if p.measured.get(key)]
    if not shown:
        return
    order = f", order {fit.order:.2f}" if fit else ""
    axis.plot([p.value for p in shown], [getattr(p, key) for p in shown], "-", color=colour, alpha=0.4, linewidth=1)
    for full in (True, False):
        some = [(p.value, getattr(p, key)) for p in shown if p.settled is full]
        if some:
            axis.plot(*zip(*some), marker, color=colour, markersize=size, markerfacecolor=colour if full else "none",
                      label=label + order if full else f"{label}, unsettled")
