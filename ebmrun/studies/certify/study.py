"""``study=certify``: whether and how fast a composition approaches backprop, and what its error is made of.

With a fully relaxed estimate g(h) in float64,

    error(h) = ||g(h) - r|| / ||r|| = c h^p    as h tends to 0

h is the nudge strength and r the gradient at the free equilibrium, by implicit differentiation; or, where the output is
clamped and no strength is left, h is the feedback gain and r the gradient of backprop (Xie & Seung 2003). Whether these
two gradients are the same is measured too (Millidge et al. 2023).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from ebmrun import files
from ebmrun.config import resolved
from ebmrun.errors import ConfigError
from ebmrun.experiment import Parts, build
from ebmrun.studies.certify.certificate import KNOBS, Certificate, flat, lines
from ebmrun.studies.certify.error_parts import Bench, Point
from ebmrun.studies.convergence import FEWEST, at
from ebmrun.theory.algorithm import EnergyLearning
from ebmrun.theory.energies import contract
from ebmrun.training.tracking import Tracker

COLUMNS = ["strength", "gain", "bias", "to_backprop", "residual", "unfinished", "round_off", "total"]


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """Certifies the composition; writes certify.json, certify.png, metrics.csv and summary.json.

    Raises ConfigError for an energy whose functions contradict each other, as any run does, and for backprop itself.
    """
    try:
        from ebmrun.studies.certify.figure import draw
    except ImportError as error:
        raise ConfigError(f"study=certify draws a figure and found no {error.name}: install it with `pip install "
                          "ebmrun[figures]`") from error
    parts = build(cfg)
    if not isinstance(parts.algorithm, EnergyLearning):
        raise ConfigError(f"algo={cfg.algo.name} is no energy-based composition: certify another, as with algo=pc")
    found = certify(parts, parts.algorithm, cfg)
    print("\n".join(lines(found)))
    with Tracker(run_dir, resolved(cfg), parts.config.logger, COLUMNS, None, overrides) as tracker:
        for step, row in enumerate(rows(found)):
            tracker.log(step, row)
        tracker.finish(flat(found))
    whole = {"summary": flat(found), "points": [p.measured for p in found.points],
             "gain_points": [p.measured for p in found.gain_points]}
    with files.replace(run_dir / "certify.json") as file:
        file.write(json.dumps(whole, allow_nan=False, indent=2).encode() + b"\n")
    draw(found, run_dir / "certify.png")
    print(f"\nfiles: {run_dir}")


def certify(parts: Parts, learning: EnergyLearning, cfg: DictConfig) -> Certificate:
    """Everything that the certificate says, measured."""
    bench = Bench(parts)
    clamps = learning.nudge.clamps
    for name in ("strengths", "gains"):
        grid = cfg.study[name]
        if not (0 < grid.smallest < grid.largest and grid.points >= FEWEST):
            raise ConfigError(f"study.{name}={dict(grid)} is no grid: 0 < smallest < largest, and {FEWEST} points "
                              "or more")
    gains, strengths = (np.geomspace(r.largest, r.smallest, r.points).tolist()
                        for r in (cfg.study.gains, cfg.study.strengths))
    free_distance, free_residual = bench.free_distance(learning)
    implicit = bench.implicit(learning)
    knob, limit, values = (("energy.feedback_gain", bench.backprop, gains) if clamps else
                           ("nudge.strength", implicit, strengths))
    own = learning.energy.feedback_gain if clamps else learning.nudge.strength

    def sweep(member: EnergyLearning, knob: str, values: Sequence[float], in_parts: bool) -> list[Point]:
        bar = tqdm(values, desc=KNOBS[knob], leave=False, disable=None)
        return [bench.point(at(member, knob, value), value, limit, in_parts) for value in bar]

    points = sweep(learning, knob, values, True)
    gain_points = []
    if not clamps:
        # At the least nudge bias, so that what falls with the gain is all that there is.
        least = min((p for p in points if p.settled), key=attrgetter("bias"), default=None)
        if least:
            gain_points = sweep(at(learning, knob, least.value), "energy.feedback_gain", gains, False)
    units = parts.network.named_units
    return Certificate(
        composition=composition(learning),
        precision=parts.config.precision,
        disagreements={name: contract.disagreements(learning.energy, f) for name, f in units.items()},
        free_distance=free_distance,
        free_residual=free_residual,
        gap=float((implicit - bench.backprop).norm() / bench.backprop.norm()),
        knob=knob,
        feedback_gain=learning.energy.feedback_gain,
        points=points,
        gain_points=gain_points,
        own=bench.point(learning, own, limit, True),
    )


def composition(learning: EnergyLearning) -> str:
    """The parts in words."""
    nudge, how = learning.nudge, learning.relaxation
    strength = "clamped" if nudge.clamps else f"nodes {nudge.nodes} x {nudge.strength:g}"
    reading = how.reading if how.reading != "equilibrium" else f"{how.order} relaxation to {how.tol:g}"
    return (f"{type(learning.energy).__name__} energy, feedback gain {learning.energy.feedback_gain:g}, {strength}, "
            f"{reading} in {how.coordinates} coordinates")


def rows(found: Certificate) -> list[dict[str, float]]:
    """One a point, with the column of what was moved."""
    clamps = found.knob == "energy.feedback_gain"
    columns = [("gain" if clamps else "strength", p) for p in found.points] + [("gain", p) for p in found.gain_points]
    return [{name if key == "value" else key: value for key, value in p.measured.items()}
            for name, p in columns]
