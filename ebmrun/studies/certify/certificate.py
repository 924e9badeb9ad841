"""What a certificate says: orders, verdict, the parts of the error, and the value at which their sum is least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ebmrun.studies.certify.error_parts import Point
from ebmrun.studies.convergence import FEWEST, Fit, fit_order

EXACT = 1e-9  # a relative error in float64 in which nothing is left to fall
KNOBS = {"nudge.strength": "λ", "energy.feedback_gain": "γ"}


def order(points: Sequence[Point], key: str) -> Fit | None:
    """The order at which an error of settled points falls; None for fewer than a fit needs."""
    usable = [(p.value, getattr(p, key)) for p in points if p.settled and getattr(p, key) > 0]
    return fit_order(*zip(*usable)) if len(usable) >= FEWEST else None


def whole(fit: Fit) -> bool:
    """Whether the order is a whole number of 1 or more."""
    return round(fit.order) >= 1 and fit.confirms(round(fit.order))


@dataclass(frozen=True)
class Certificate:
    """``knob`` is what tends to 0, ``points`` what was measured as it does, and ``own`` that at its present value.
    ``gain_points`` are those of a falling feedback gain, at the least nudge bias. ``gap`` is the relative distance of
    the gradient at the free equilibrium from backprop. Disagreements are those between the energy's functions, by unit.
    """

    composition: str
    precision: str
    disagreements: dict[str, dict[str, float]]
    free_distance: float
    free_residual: float
    gap: float
    knob: str
    feedback_gain: float
    points: list[Point]
    gain_points: list[Point]
    own: Point

    @property
    def order(self) -> Fit | None:
        """Of the bias as the knob falls."""
        return order(self.points, "bias")

    @property
    def order_to_backprop(self) -> Fit | None:
        return order(self.points, "to_backprop")

    @property
    def gain_order(self) -> Fit | None:
        return order(self.gain_points, "to_backprop")

    @property
    def verdict(self) -> str:
        """``exact``, ``backprop``, ``own equilibrium``, ``neither``, or ``unsettled`` where too few relaxations reach
        an equilibrium to say. Clamping at full feedback takes no limit: it is none of the first three."""
        measured = [p for p in self.points if p.settled]
        if len(measured) < FEWEST:
            return "unsettled"
        if all(p.to_backprop <= EXACT for p in measured):
            return "exact"
        if self.order is None or not whole(self.order):
            return "neither"
        if self.knob == "energy.feedback_gain":
            return "backprop" if self.feedback_gain < 1 else "neither"
        return "backprop" if self.gap <= EXACT else "own equilibrium"

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        fit, verdict = self.order, self.verdict
        power = round(fit.order) if fit else 0
        if verdict == "unsettled":
            return "no verdict: the relaxation reaches no equilibrium here"
        if verdict == "exact":
            return "approximates backprop: yes, exactly, at any strength"
        if verdict == "backprop":
            return f"approximates backprop: yes, order {power} in {self.knob}"
        if verdict == "own equilibrium":
            return (f"only its own equilibrium gradient, order {power} in {self.knob}; that is "
                    f"{self.gap:.2g} from backprop")
        if self.knob == "energy.feedback_gain" and fit and whole(fit):
            return (f"neither backprop nor its own equilibrium gradient at full feedback; backprop, order "
                    f"{power}, as {self.knob} falls")
        return "neither backprop nor its own equilibrium gradient"

    @property
    def suggestion(self) -> Point | None:
        """The measured value at which the three parts add up to least: the largest of those within a tenth of it, where
        their sum is flat. None for a composition whose error does not fall."""
        best = min((p.sum for p in self.points), default=float("inf"))
        if self.verdict in ("exact", "unsettled") or best == float("inf"):
            return None
        return max((p for p in self.points if p.sum <= 1.1 * best), key=lambda p: p.value)


def flat(found: Certificate) -> dict[str, float | str]:
    """The certificate as one value a key; what was not measured is left out."""
    keys: dict[str, float | str] = {
        "verdict": found.verdict, "sentence": found.sentence, "composition": found.composition, "knob": found.knob,
        "precision": found.precision, "free/distance": found.free_distance, "free/residual": found.free_residual,
        "free/gradient_gap": found.gap,
    }
    keys |= {f"contract/{unit}/{name}": gap for unit, gaps in found.disagreements.items() for name, gap in gaps.items()}
    for name in ("order", "order_to_backprop", "gain_order"):
        fit = getattr(found, name)
        if fit:
            keys |= {f"{name}/{key}": getattr(fit, key) for key in ("order", "low", "high", "floor")}
            keys |= {f"{name}/points": len(fit.points)}
    for name, point in ("own", found.own), ("suggestion", found.suggestion):
        if point:
            keys |= {f"{name}/{key}": value for key, value in point.measured.items()}
    return keys


def lines(found: Certificate) -> Iterator[str]:
    """The certificate for people to read."""
    worst = max(gap for gaps in found.disagreements.values() for gap in gaps.values())
    forward = "the forward pass" if found.free_distance <= EXACT else "not the forward pass"
    yield f"\n{found.composition}"
    yield f"  {'energy contract':<24} holds: its functions differ by {worst:.1g} at most"
    yield f"  {'free equilibrium':<24} {forward}: states {found.free_distance:.2g} away, gradient {found.gap:.2g}"
    symbol = KNOBS[found.knob]
    target = "own equilibrium" if found.knob == "nudge.strength" else "backprop"
    yield f"  {f'error to {target}':<24} {_fit(found.order, symbol)}"
    if found.knob == "nudge.strength":
        yield f"  {'error to backprop':<24} {_fit(found.order_to_backprop, symbol)}"
        yield f"  {'the same, falling gain':<24} {_fit(found.gain_order, 'γ')}"
    yield f"  {'verdict':<24} {found.sentence}"
    yield f"\n  {'error, ' + found.precision:<24} {'now':>12} {'suggested':>12}"
    columns = [found.own, found.suggestion]
    for label, key in (
        (found.knob, "value"), ("nudge bias", "bias"), ("unfinished relaxation", "unfinished"),
        ("round-off", "round_off"), ("all of it", "total"), ("residual, fully relaxed", "residual"),
    ):
        yield f"  {label:<24} " + " ".join(f"{_number(point, key):>12}" for point in columns)


def _fit(fit: Fit | None, symbol: str) -> str:
    if fit is None:
        return "too few equilibria to fit an order"
    if fit.high < 0.5:
        return f"does not fall with {symbol}: {fit.floor:.1e} at least"
    falls = f"falls as {symbol}^{round(fit.order)}" if whole(fit) else "falls at no whole order"
    return (f"{falls}: order {fit.order:.3f}, 95% interval {fit.low:.3f} to {fit.high:.3f}, "
            f"{symbol} from {fit.points[0]:.0e} to {fit.points[-1]:.0e}, least error {fit.floor:.0e}")


def _number(point: Point | None, key: str) -> str:
    value = point.measured.get(key) if point else None
    return "-" if value is None else f"{value:.2g}"
