"""One limit for the whole family: how the error of each member falls as its nudge or its feedback vanishes.

Predictive coding, the lifted energy and equilibrium propagation move the nudge strength, under several stencils; weakly
fed back members and contrastive Hebbian learning move the feedback gain. ``metrics.csv`` has a row for each strength
and ``summary.json`` the fitted orders beside the predicted ones (Millidge et al. 2023; Xie & Seung 2003), in float64
and in float32. The reference is always in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from ebmrun.config import DTYPES, dtype_of, require_no_updates, require_whole_products, resolved, typed
from ebmrun.errors import Diverged, RunError
from ebmrun.experiment import Parts, build, energy_learning, first_batch
from ebmrun.studies.convergence import Fit, at, fit_order
from ebmrun.theory.alignment import alignment
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.references import Backprop, Implicit
from ebmrun.training.summary import near
from ebmrun.training.tracking import Tracker


@dataclass(frozen=True)
class Curve:
    """A member of the family, under a name of three parts: member, nudge, precision. ``moves`` names what tends to 0:
    ``nudge.strength`` or ``energy.feedback_gain``."""

    name: str
    learning: EnergyLearning
    moves: str
    reference: str
    dtype: torch.dtype

    @property
    def predicted(self) -> int:
        """The order that theory gives: 1 in the feedback gain, that of the stencil in the strength (0 for a clamp,
        which the strength does not change)."""
        return 1 if self.moves == "energy.feedback_gain" else self.learning.nudge.order or 0

    def truth(self, parts: Parts) -> list[Tensor]:
        """The reference r on the first batch of the training set, in float64. Raises RunError for one that did not
        settle, to which no order can be fitted."""
        x, y = first_batch(parts)
        exact = Backprop(parts.cost) if self.reference == "backprop" else Implicit(self.learning)
        try:
            found = exact.estimate(deepcopy(parts.network).double(), x.double(), y.double())
            how = f"did not settle (residual {found.residual:.1g})" if found.converged is False else ""
        except Diverged:
            how = "diverged"
        if how:
            raise RunError(f"the {self.reference} reference of {self.name} {how}, so that no order can be fitted to "
                           "it: use a smaller arch.gain, or leave the curve out with "
                           f"~study.curves.{self.name.split('/')[0]}")
        return found.gradients

    def errors(self, parts: Parts, truth: Sequence[Tensor], values: Sequence[float]) -> list[float]:
        """||g - r|| / ||r|| for each value, on the first batch of the training set, of the gradients g in this
        precision and the reference r."""
        x, y = (part.to(self.dtype) for part in first_batch(parts))
        network = deepcopy(parts.network).to(self.dtype)
        found = []
        for value in values:
            estimate = at(self.learning, self.moves, value).estimate(network, x, y)
            found.append(alignment([[g.double() for g in estimate.gradients]], [truth])["alignment/relative_error"])
        return found


def curves(cfg: DictConfig, parts: Parts) -> list[Curve]:
    """The curves of the configuration, each energy and nudge checked against each other."""
    found = []
    for member, curve in cfg.study.curves.items():
        for nudge in curve.nudges:
            own = cfg.copy()
            own.merge_with({"energy": cfg.study.energies[curve.energy], "nudge": cfg.study.nudges[nudge]})
            learning = energy_learning(own, typed(own), parts.network, parts.cost)
            found += [Curve(f"{member}/{nudge}/{each}", learning, curve.moves, curve.reference, dtype_of(each))
                      for each in curve.get("precisions", DTYPES)]
    return found


def report(curve: Curve, fit: Fit | None) -> dict[str, float]:
    """The keys of the summary for one curve; none where too few points are left to fit."""
    if fit is None:
        return {}
    found = {"order": fit.order, "low": fit.low, "high": fit.high, "points": len(fit.points), "floor": fit.floor,
             "from": fit.points[-1], "to": fit.points[0], "predicted": curve.predicted,
             "confirmed": fit.confirms(curve.predicted)}
    return {f"{curve.name}/{key}": value for key, value in found.items()}


def shown(fit: Fit | None, predicted: int) -> str:
    """An order beside the predicted one, for people to read."""
    if fit is None:
        return f"{'':7}  {'cannot tell':<18} {predicted:>8}"
    verdict = "confirmed" if fit.confirms(predicted) else "not confirmed"
    return f"{fit.order:7.4f}  [{fit.low:.4f}, {fit.high:.4f}] {predicted:>8}   {verdict}"


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """``study=unification``. Raises ConfigError for a precision that rounds products."""
    require_whole_products(typed(cfg), "unification")
    require_no_updates(typed(cfg), "unification")
    parts = build(cfg)
    values = np.geomspace(cfg.study.largest, cfg.study.smallest, cfg.study.points).tolist()
    members = curves(cfg, parts)
    truths = [curve.truth(parts) for curve in members]
    errors = {curve.name: curve.errors(parts, truth, values)
              for curve, truth in tqdm(zip(members, truths), total=len(members), unit="curve", disable=None)}
    summary: dict[str, float] = {}
    print(f"{'member':<18} {'nudge':<13} {'precision':<9}   order  95% interval        predicted")
    for curve in members:
        fit = fit_order(values, errors[curve.name])
        summary |= report(curve, fit)
        member, nudge, precision = curve.name.split("/")
        print(f"{member:<18} {nudge:<13} {precision:<9} {shown(fit, curve.predicted)}")
    with Tracker(run_dir, resolved(cfg), parts.config.logger, ["strength", *errors], None, overrides,
                 axis="strength") as tracker:
        for step, value in enumerate(values):
            tracker.log(step, {"strength": value} | {name: found[step] for name, found in errors.items()})
        tracker.finish(summary)
    print(f"files: {near(run_dir)}")
