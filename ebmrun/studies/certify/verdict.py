"""What errors at falling strengths say of their limit, and the verdict that follows: 'cannot tell' where they say
nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ebmrun.studies.certify.error_parts import Point
from ebmrun.studies.convergence import FEWEST, Fit, fit_order
from ebmrun.theory.energies import contract

EXACT = 1e-9  # a relative error in float64 in which nothing is left to fall
NEGLIGIBLE = contract.TOLERANCE  # what an energy's functions may differ by; an error below it is not told from none
STEADY = 2.0, 1e3  # an error that changes by no more than this factor, over strengths that do by this one, stays
FAINT = 1e-9  # a nudge weaker than this leaves a state in float64 too few digits of its displacement
SHARP = 0.1  # how far the interval of an order may reach to either side


def fitted(points: Sequence[Point], key: str) -> Fit | None:
    """The order at which an error of settled points falls; None where too few lie on its falling branch."""
    usable = [p for p in points if p.settled]
    return fit_order([p.value for p in usable], [getattr(p, key) for p in usable])


def power(fit: Fit | None) -> int | None:
    """The whole number of 1 or more that an order is; None for another, or where its interval is too wide to say."""
    sharp = fit is not None and round(fit.order) >= 1 and fit.confirms(round(fit.order), SHARP)
    return round(fit.order) if fit and sharp else None


def follows_a_law(fit: Fit) -> bool:
    """Whether an error falls as a power, known to within ``SHARP``, until round-off sets in."""
    return fit.reaches_floor and fit.low > 0 and fit.high - fit.low <= 2 * SHARP


def falls(points: Sequence[Point], key: str) -> bool:
    """Whether an error tends to 0: it gets negligible, or follows a power law to where round-off sets in."""
    fit = fitted(points, key)
    smallest = min((getattr(p, key) for p in points if p.settled), default=1.0)
    return smallest <= NEGLIGIBLE or (fit is not None and follows_a_law(fit))


def stays(points: Sequence[Point], key: str) -> bool:
    """Whether an error tends to a number other than 0: over the weakest three decades it hardly changes."""
    change, span = STEADY
    known = {p.value: getattr(p, key) for p in points if p.settled and p.value >= FAINT}
    weak = [error for value, error in known.items() if value <= span * min(known)]
    wide = len(weak) >= FEWEST and max(known) >= span * min(known)
    return wide and NEGLIGIBLE < max(weak) <= change * min(weak)


@dataclass(frozen=True)
class Verdict:
    """``name`` is ``exact``, ``backprop``, ``own equilibrium``, ``neither`` or ``cannot tell``; ``sentence`` the same
    in words."""

    name: str
    sentence: str


def unreferenced(residual: float | None) -> Verdict:
    """Of a composition whose reference did not settle, to which no error can be fitted."""
    how = "diverged" if residual is None else f"did not settle (residual {residual:.1g})"
    return Verdict("cannot tell", f"cannot tell: the free equilibrium {how}, use a smaller energy.feedback_gain or "
                                  "arch.gain")


def judge(points: Sequence[Point], symbol: str, gap: float | None) -> Verdict:
    """Of errors against the gradient at the free equilibrium as the nudge strength falls. ``gap`` is the distance of
    that gradient from backprop, None where they are one."""
    if known := _without_limit(points, symbol):
        return known
    if falls(points, "bias"):
        limit = _order(points, symbol)
        if gap is None or gap <= EXACT:
            return Verdict("backprop", f"approximates backprop: yes, {limit}")
        return Verdict("own equilibrium", f"only its own equilibrium gradient, {limit}; that is {gap:.2g} from "
                                          "backprop")
    if stays(points, "bias"):
        return Verdict("neither", "neither backprop nor its own equilibrium gradient")
    return _undecided(symbol)


def judge_clamped(points: Sequence[Point], symbol: str, gain: float, own: Point) -> Verdict:
    """Of errors against backprop as the feedback gain falls, at a present one. Clamping at full feedback takes no
    limit; an error that stays as the gain falls may as well be digits that are lost to it."""
    if known := _without_limit(points, symbol):
        return known
    limit = _order(points, symbol) if falls(points, "bias") else None
    if gain == 1 and own.settled and own.bias > NEGLIGIBLE:
        also = f"; backprop, {limit}, as {symbol} falls" if limit else ""
        return Verdict("neither", f"neither backprop nor its own equilibrium gradient at full feedback{also}")
    return Verdict("backprop", f"approximates backprop: yes, {limit}") if limit else _undecided(symbol)


def _without_limit(points: Sequence[Point], symbol: str) -> Verdict | None:
    """Where the points are too few, or all of them exact."""
    measured = [p for p in points if p.settled]
    if len(measured) < FEWEST:
        return Verdict("cannot tell", f"cannot tell: the relaxation settles at {len(measured)} of {len(points)} values "
                                      f"of {symbol}, and {FEWEST} are needed")
    if len(measured) == len(points) and all(p.to_backprop <= EXACT for p in measured):
        return Verdict("exact", "approximates backprop: yes, exactly, at any strength")
    return None


def _undecided(symbol: str) -> Verdict:
    return Verdict("cannot tell", f"cannot tell: as {symbol} falls, the error neither falls to nothing nor stays where "
                                  "it is")


def _order(points: Sequence[Point], symbol: str) -> str:
    fit = fitted(points, "bias")
    if whole := power(fit):
        return f"order {whole} in {symbol}"
    least = min(p.bias for p in points if p.settled)
    if fit is None or least <= NEGLIGIBLE:
        return f"to {least:.1g}, at an order that the points do not tell"
    return f"order {fit.order:.2f} in {symbol}"
