"""What a certificate says: orders, verdict, the parts of the error, and the value at which their sum is least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ebmrun.studies.certify.best_strength import Best, best
from ebmrun.studies.certify.error_parts import Point
from ebmrun.studies.certify.verdict import (
    EXACT,
    Verdict,
    fitted,
    follows_a_law,
    judge,
    judge_clamped,
    power,
    stays,
    unreferenced,
)
from ebmrun.studies.convergence import Fit

KNOBS = {"nudge.strength": "λ", "energy.feedback_gain": "γ"}
UNTIED = "feedback alignment"  # what stands for backprop where messages go down by other weights than the transposes


@dataclass(frozen=True)
class Reference:
    """The gradient that an estimate is held against: ``name``, with the residual of its equilibrium and its linear
    system (None where it has none, or diverged), and whether it settled. ``gap`` is the relative distance of the
    gradient at the free equilibrium from backprop; None where the two are one, or where it was not measured."""

    name: str
    settled: bool = True
    residual: float | None = None
    gap: float | None = None


@dataclass(frozen=True)
class Certificate:
    """``knob`` is what tends to 0, ``points`` what was measured as it does, and ``own`` that at its present value.
    ``gain_points`` are those of a falling feedback gain, at the least nudge bias; none where the reference is backprop
    at any gain. ``free_distance`` is that of the free equilibrium from the forward pass, None where it has none.
    Disagreements are those between the energy's functions, by unit; ``regime`` is what ``theory.probe`` finds at the
    present setting. ``limit`` is ``backprop``, or ``UNTIED`` where the network's way down is not the transpose: there
    is no energy then, and wherever these parts say backprop, it is by the weights of that way down.
    """

    composition: str
    precision: str
    disagreements: dict[str, dict[str, float]]
    free_distance: float | None
    reference: Reference
    knob: str
    feedback_gain: float
    points: list[Point]
    gain_points: list[Point]
    own: Point
    regime: dict[str, float] = field(default_factory=dict)
    limit: str = "backprop"

    @cached_property
    def order(self) -> Fit | None:
        """Of the bias as the knob falls."""
        return fitted(self.points, "bias")

    @cached_property
    def order_to_backprop(self) -> Fit | None:
        return fitted(self.points, "to_backprop")

    @cached_property
    def gain_order(self) -> Fit | None:
        return fitted(self.gain_points, "to_backprop")

    @cached_property
    def verdict(self) -> Verdict:
        found = self._of_backprop
        return Verdict(self.said(found.name), self.said(found.sentence))

    def said(self, words: str) -> str:
        """Words about backprop, about what this composition has in its place."""
        return words.replace("backprop", self.limit)

    @property
    def _of_backprop(self) -> Verdict:
        if not self.reference.settled:
            return unreferenced(self.reference.residual)
        if self.knob == "energy.feedback_gain":
            return judge_clamped(self.points, self.knob, self.feedback_gain, self.own)
        return judge(self.points, self.knob, self.reference.gap)

    @cached_property
    def best(self) -> Best | None:
        """Where bias and noise together are least, by their laws; None without noise, or without a law."""
        return best(self.points) if self.knob == "nudge.strength" and self.verdict.name != "cannot tell" else None

    @property
    def suggestion(self) -> Point | None:
        """The measured value at which the parts add up to least: the largest of those within a tenth of it, where
        their sum is flat. None for a composition whose error does not fall."""
        best = min((p.sum for p in self.points), default=float("inf"))
        if self.verdict.name in ("exact", "cannot tell") or best == float("inf"):
            return None
        return max((p for p in self.points if p.sum <= 1.1 * best), key=lambda p: p.value)


def flat(found: Certificate) -> dict[str, float | str]:
    """The certificate as one value a key; what was not measured is left out."""
    reference = found.reference
    known = {
        "verdict": found.verdict.name, "sentence": found.verdict.sentence, "composition": found.composition,
        "knob": found.knob, "precision": found.precision, "free/distance": found.free_distance,
        "free/gradient_gap": reference.gap, "reference": reference.name, "reference/residual": reference.residual,
    }
    keys: dict[str, float | str] = {key: value for key, value in known.items() if value is not None}
    keys |= {} if found.limit != UNTIED else {"energy": "none", "reference": found.said(reference.name)}
    keys |= {f"contract/{unit}/{name}": gap for unit, gaps in found.disagreements.items() for name, gap in gaps.items()}
    for name in ("order", "order_to_backprop", "gain_order"):
        fit = getattr(found, name)
        if fit:
            keys |= {f"{name}/{key}": getattr(fit, key) for key in ("order", "low", "high", "floor")}
            keys |= {f"{name}/points": len(fit.points)}
    for name, point in ("own", found.own), ("suggestion", found.suggestion):
        if point:
            keys |= {f"{name}/{key}": value for key, value in point.measured.items()}
    if found.best:
        keys |= {f"best/{key}": getattr(found.best, key) for key in (
            "bias", "order", "noise", "strength", "error", "strength_in_square", "error_in_square")}
    return {column(found, key): value for key, value in (keys | found.regime).items()}


def column(found: Certificate, key: str) -> str:
    """A key, which names the limit where that is not backprop."""
    return found.said(key).replace(UNTIED, "feedback_alignment")


def lines(found: Certificate) -> Iterator[str]:
    """The certificate for people to read."""
    worst = max(gap for gaps in found.disagreements.values() for gap in gaps.values())
    yield f"\n{found.composition}"
    if found.limit == UNTIED:
        yield f"  {'energy':<24} none: messages go down by other weights than the transposes"
        yield f"  {'what still holds':<24} {_identity(found)}"
    else:
        yield f"  {'energy contract':<24} holds: its functions differ by {worst:.1g} at most"
    yield f"  {'free equilibrium':<24} {_free(found)}"
    symbol = KNOBS[found.knob]
    apart = found.reference.name != "backprop"
    name = f"error to {'own equilibrium' if apart else found.limit}"
    yield f"  {name:<24} {_fit(found.order, symbol, found.points, 'bias')}"
    if apart:
        yield f"  {f'error to {found.limit}':<24} {_fit(found.order_to_backprop, symbol, found.points, 'to_backprop')}"
        yield f"  {'the same, falling gain':<24} {_fit(found.gain_order, 'γ', found.gain_points, 'to_backprop')}"
    yield f"  {'verdict':<24} {found.verdict.sentence}"
    if found.best:
        yield f"  {'bias and noise':<24} {_law(found.best, symbol)}"
    elif found.own.noise > 0:
        yield f"  {'bias and noise':<24} follow no laws b {symbol}^p and σ/{symbol}, which would give a best {symbol}"
    yield f"\n  {'error, ' + found.precision:<24} {'now':>12} {'suggested':>12}"
    columns = [found.own, found.suggestion]
    for label, key in (
        (found.knob, "value"), ("nudge bias", "bias"), ("unfinished relaxation", "unfinished"),
        ("round-off", "round_off"), ("noise, root mean square", "noise"), ("all of it", "total"),
        ("residual, fully relaxed", "residual"),
    ):
        yield f"  {label:<24} " + " ".join(f"{_number(point, key):>12}" for point in columns)
    for label, key, form in (
        ("largest stable step", "probe/stable_step", ".3g"), ("work done", "probe/work_done", ".1%"),
        ("cosine to one sweep", "probe/cosine_to_one_sweep", ".6f"),
    ):
        yield f"  {label:<24} {format(found.regime[key], form) if key in found.regime else '-':>12}"


def _identity(found: Certificate) -> str:
    """What theory says of a composition without an energy."""
    symbol = "γ" if found.knob == "energy.feedback_gain" or found.reference.name != "backprop" else "λ"
    return f"as {symbol} → 0, backprop with those weights for the transposes: {found.limit}"


def _free(found: Certificate) -> str:
    if found.free_distance is None:
        return "none: its relaxation diverged"
    forward = "the forward pass" if found.free_distance <= EXACT else "not the forward pass"
    gap = "" if found.reference.gap is None else f", gradient {found.reference.gap:.2g}"
    return f"{forward}: states {found.free_distance:.2g} away{gap}"


def _law(found: Best, symbol: str) -> str:
    return (f"{found.bias:.2g} {symbol}^{found.order:.3g} + {found.noise:.2g}/{symbol}, least at {symbol} = "
            f"{found.strength:.2g}: {found.error:.2g}; in the mean square {found.error_in_square:.2g} at "
            f"{found.strength_in_square:.2g}")


def _fit(fit: Fit | None, symbol: str, points: Sequence[Point], key: str) -> str:
    if stays(points, key):
        return f"does not fall with {symbol}: {min(getattr(p, key) for p in points if p.settled):.1e} at least"
    if fit is None or not (power(fit) or follows_a_law(fit)):
        least = min((getattr(p, key) for p in points if p.settled), default=None)
        return "too few points" if least is None else f"{least:.0e} at least; the points do not tell its order"
    return (f"falls as {symbol}^{power(fit) or format(fit.order, '.2f')}: order {fit.order:.3f}, 95% interval "
            f"{fit.low:.3f} to {fit.high:.3f}, {symbol} from {fit.points[0]:.0e} to {fit.points[-1]:.0e}, least error "
            f"{fit.floor:.0e}")


def _number(point: Point | None, key: str) -> str:
    apart = point is not None and (point.settled or key not in ("bias", "unfinished"))
    value = point.measured.get(key) if point and apart else None
    return "-" if value is None else f"{value:.2g}"
