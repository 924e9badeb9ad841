"""One comparison of the benchmark, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison. ``ms`` of a gradient (or of a training step) and ``plain_ms`` of plain PyTorch's,
    medians over ``turns``, with their ``ratio``; then how the relaxation went, the distance to the reference
    gradient, and peaks of memory in MB (1e6 bytes)."""

    work: str
    case: str
    preset: str
    overrides: str
    ratio: float
    target: float | None
    ms: float
    plain_ms: float
    turns: int
    sweeps: int | None = None
    residual: float | None = None
    tolerance: float | None = None
    converged: bool | None = None
    relative_error: float | None = None
    reference: str | None = None
    reference_residual: float | None = None
    peak_mb: float | None = None
    plain_peak_mb: float | None = None


def heading(row: Row) -> str:
    """What stands above the rows of a case."""
    if row.work == "training":
        return (f"\ntraining {row.case}: a step of a whole run against a step of a bare loop\n"
                f"  {'preset':<20}{'ratio':>7}  {'target':<12}{'ms':>7}{'plain ms':>10}")
    return (f"\n{row.case}: plain autograd {row.plain_ms:.3g} ms, {row.plain_peak_mb:.3g} MB\n"
            f"  {'preset':<20}{'ratio':>7}  {'target':<12}{'ms':>7}{'MB':>8}{'sweeps':>8}  {'residual':<10}"
            "error")


def line(row: Row) -> str:
    """A row for people to read."""
    target = ""
    if row.target is not None:
        target = f"{row.target:<4g} {'met' if row.ratio <= row.target else 'missed'}"
    start = f"  {row.preset:<20}{row.ratio:>7.3g}  {target:<12}{row.ms:>7.3g}"
    if row.work == "training":
        return f"{start}{row.plain_ms:>10.3g}  {row.overrides}"
    residual = "-" if row.residual is None else f"{row.residual:.1e}{'' if row.converged else ' >'}"
    error = f"{row.relative_error:.1e} to {row.reference}"
    sweeps = "-" if row.sweeps is None else row.sweeps
    return f"{start}{row.peak_mb:>8.3g}{sweeps:>8}  {residual:<10}{error}"
