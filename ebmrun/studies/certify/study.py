"""``study=certify``: whether and how fast a composition approaches backprop, and what its error is made of.

With a fully relaxed estimate g(h) in float64,

    error(h) = ||g(h) - r|| / ||r|| = c h^p    as h tends to 0

h is the nudge strength and r the gradient at the free equilibrium: backprop where that is the forward pass, and by
implicit differentiation elsewhere, whose distance from backprop is measured too. Where the output is clamped and no
strength is left, h is the feedback gain and r the gradient of backprop (Xie & Seung 2003; Millidge et al. 2023). Where
messages go down by other weights than the transposes, there is no energy, and r is feedback alignment, backprop by
those weights (Lillicrap et al. 2016).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from ebmrun import files
from ebmrun.config import require_no_updates, resolved
from ebmrun.errors import ConfigError, Diverged
from ebmrun.experiment import Parts, build
from ebmrun.studies.certify.certificate import KNOBS, UNTIED, Certificate, Reference, column, flat, lines
from ebmrun.studies.certify.error_parts import Bench, Gradient, Point
from ebmrun.studies.certify.figure import draw
from ebmrun.studies.certify.verdict import EXACT
from ebmrun.studies.convergence import FEWEST, at
from ebmrun.theory.analog import AnalogLearning
from ebmrun.theory.energies import contract
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.noise import Noise
from ebmrun.training.summary import near
from ebmrun.training.tracking import Tracker

COLUMNS = ["strength", "gain", "bias", "to_backprop", "residual", "unfinished", "round_off", "noise", "total"]


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """Certifies the composition; writes certify.json, certify.png, metrics.csv and summary.json.

    Raises ConfigError for an energy whose functions contradict each other, as any run does, and for backprop itself.
    """
    parts = build(cfg)
    if parts.learning is None:
        raise ConfigError(f"algo={cfg.algo.name} is no energy-based composition: certify another, as with algo=pc")
    require_no_updates(parts.config, "certify")
    found = certify(parts, parts.learning, cfg)
    print("\n".join(lines(found)))
    columns = [column(found, key) for key in COLUMNS]
    with Tracker(run_dir, resolved(cfg), parts.config.logger, columns, None, overrides) as tracker:
        for step, row in enumerate(rows(found)):
            tracker.log(step, row)
        tracker.finish(flat(found))
    whole = {"summary": flat(found), "points": [p.measured for p in found.points],
             "gain_points": [p.measured for p in found.gain_points]}
    with files.replace(run_dir / "certify.json") as file:
        file.write(json.dumps(whole, allow_nan=False, indent=2).encode() + b"\n")
    draw(found, run_dir / "certify.png")
    print(f"\nfiles: {near(run_dir)}")


def certify(parts: Parts, learning: EnergyLearning, cfg: DictConfig) -> Certificate:
    """Everything that the certificate says, measured. Raises ConfigError for values that are no grid."""
    bench = Bench(parts)
    clamps = learning.nudge.clamps
    strengths, gains = (grid(cfg, name) for name in ("strengths", "gains"))
    try:
        distance: float | None = bench.free_distance(learning)
    except Diverged:
        distance = None
    reference, limit = referred(bench, learning, distance)
    knob, values = ("energy.feedback_gain", gains) if clamps else ("nudge.strength", strengths)
    own = learning.energy.feedback_gain if clamps else learning.nudge.strength

    def sweep(member: EnergyLearning, knob: str, values: Sequence[float], in_parts: bool) -> list[Point]:
        bar = tqdm(values if reference.settled else [], desc=KNOBS[knob], leave=False, disable=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of digits that are lost: here they are what is measured
            return [bench.point(at(member, knob, value), value, limit, in_parts) for value in bar]

    points, gain_points = sweep(learning, knob, values, True), []
    usable = [p for p in points if p.settled]
    if usable and reference.name != "backprop":
        # At the least nudge bias, so that what falls with the gain is all that there is.
        least = min(usable, key=attrgetter("bias")).value
        gain_points = sweep(at(learning, knob, least), "energy.feedback_gain", gains, False)
    return Certificate(
        composition=composition(learning),
        precision=parts.config.precision,
        disagreements={name: contract.disagreements(learning.energy, f)
                       for name, f in parts.network.named_activations.items()},
        free_distance=distance,
        reference=reference,
        knob=knob,
        feedback_gain=learning.energy.feedback_gain,
        points=points,
        gain_points=gain_points,
        own=sweep(learning, knob, [own], True)[0] if reference.settled else Point(own),
        regime=bench.regime(learning),
        limit="backprop" if parts.network.tied else UNTIED,
    )


def grid(cfg: DictConfig, name: str) -> list[float]:
    """The values of ``study.strengths`` or ``study.gains``, from the largest to the smallest. Raises ConfigError."""
    asked = cfg.study[name]
    if not (0 < asked.smallest < asked.largest and asked.points >= FEWEST):
        raise ConfigError(f"study.{name}={dict(asked)} is no grid: 0 < smallest < largest, and {FEWEST} points or more")
    return np.geomspace(asked.largest, asked.smallest, asked.points).tolist()


def referred(bench: Bench, learning: EnergyLearning, free_distance: float | None) -> tuple[Reference, Gradient]:
    """What the errors are held against: the gradient at the free equilibrium. Where that equilibrium is the forward
    pass this is backprop itself, without a tolerance of its own; a clamped member is held against backprop, too."""
    clamps, backprop = learning.nudge.clamps, bench.backprop
    if learning.energy.feedforward and free_distance is not None and free_distance <= EXACT:
        return Reference("backprop"), backprop
    name = "backprop" if clamps else "implicit"
    try:
        implicit, how = bench.implicit(learning)
    except Diverged:
        return Reference(name, settled=clamps), backprop
    gap = float((implicit - backprop).norm() / backprop.norm()) if how.converged else None
    if clamps:
        return Reference(name, gap=gap), backprop
    return Reference(name, bool(how.converged), how.residual, gap), implicit


def composition(learning: EnergyLearning) -> str:
    """The parts in words."""
    nudge, how = learning.nudge, learning.relaxation
    strength = "clamped" if nudge.infinite else f"{'joint ' * nudge.joint}nodes {nudge.nodes} x {nudge.strength:g}"
    strength = f"output held at {strength}" if nudge.holds else strength
    strength = f"{strength}, turned to {nudge.points} points of a circle" if nudge.points > 1 else strength
    reading = "one frozen sweep" if how.frozen else f"{how.order} relaxation to {how.tol:g}"
    return (f"{type(learning.energy).__name__} energy, feedback gain {learning.energy.feedback_gain:g}, {strength}, "
            f"{reading} in {how.coordinates} coordinates{imperfections(learning)}")


def imperfections(learning: EnergyLearning) -> str:
    """What a machine is not, in words; nothing of a perfect one."""
    if not isinstance(learning, AnalogLearning):
        return ""
    perfect = vars(Noise())
    asked = [f"{name} {value:g}" for name, value in vars(learning.noise).items() if value != perfect[name]]
    return f", noise of {', '.join(asked)}" if asked else ""


def rows(found: Certificate) -> list[dict[str, float]]:
    """One a point, with the column of what was moved."""
    clamps = found.knob == "energy.feedback_gain"
    columns = [("gain" if clamps else "strength", p) for p in found.points] + [("gain", p) for p in found.gain_points]
    return [{name if key == "value" else column(found, key): value for key, value in p.measured.items()}
            for name, p in columns]
