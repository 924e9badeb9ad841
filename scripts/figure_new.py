"""Measures joint nodes beside what else was tried, and draws the figure of results/new.

    EBMRUN_DATA=DATA python scripts/figure_new.py measure results/new      some minutes on one core
    python scripts/figure_new.py draw results/new                          new.png and README.md from the tables

The networks are 784-128-64-10 with half the squared error on one batch of MNIST, at their initial weights and after an
epoch of backpropagation.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from new_energies import Mixed, Natural, Normalised
from new_page import draw
from torch import Tensor

import ebmrun
from ebmrun.errors import ConfigError, RunError
from ebmrun.theory.algorithm import Estimate
from ebmrun.theory.energies import Energy
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.references import Backprop
from ebmrun.theory.relaxation import sent
from ebmrun.theory.solver import read, relax

STRENGTHS = [10 ** (-k / 4) for k in range(17)]
NOISES = (1e-4, 1e-3, 1e-2)
DRAWS = 8
BASE = ["dataset=mnist", "device=cpu", "logger=csv"]
NUDGES = ("single", "centered", "richardson", "fourth_order")


@dataclass(frozen=True)
class Member:
    """A way to estimate, by its words; ``energy`` replaces that of the words, ``normalised`` the nudge by one that is
    as strong for each example."""

    name: str
    words: tuple[str, ...]
    energy: Energy | None = None
    normalised: bool = False

    def learning(self, activation: str, strength: float, **how: float) -> EnergyLearning | None:
        """None where energy and nudge have no equilibrium."""
        made = algorithm(self, activation)
        made = replace(made, nudge=replace(made.nudge, strength=strength), relaxation=replace(made.relaxation, **how))
        return None if made.nudge.lowest <= -1 else made


@cache
def algorithm(member: Member, activation: str) -> EnergyLearning:
    """As its words build it."""
    made = ebmrun.build(*BASE, "algo=lifted", f"arch.activation={activation}", *member.words).algorithm
    assert isinstance(made, EnergyLearning)
    if member.energy is not None:
        made = replace(made, energy=member.energy)
    return Normalised(made.energy, made.nudge, made.relaxation, made.cost) if member.normalised else made


MEMBERS = [
    *(Member(f"{energy} {nudge}", (f"energy={energy}", f"nudge={nudge}"))
      for energy in ("predictive", "lifted") for nudge in NUDGES),
    *(Member(f"{energy} {nudge}, joint", (f"energy={energy}", f"nudge={nudge}", "nudge.joint=true", "relax=sweep"))
      for energy in ("predictive", "lifted") for nudge in NUDGES[1:]),
    Member("predictive single, γ = 0.1", ("energy=predictive", "nudge=single", "energy.feedback_gain=0.1")),
    Member("predictive coupled", ("energy=predictive", "nudge=coupled")),
    Member("predictive single, normalised", ("energy=predictive", "nudge=single"), normalised=True),
    Member("natural single", ("energy=lifted", "nudge=single"), Natural()),
    Member("mixed single", ("energy=lifted", "nudge=single"), Mixed()),
]


def networks(folder: Path) -> Iterator[tuple[str, str, Network, Tensor, Tensor]]:
    """Activation, when, network and batch, in float64."""
    for activation in ("tanh", "relu"):
        words = ["algo=bp", *BASE, f"arch.activation={activation}", "precision=float64"]
        trial = ebmrun.build(*words)
        run = ebmrun.train(*words, "trainer.epochs=1", "alignment.every=0", folder=folder / activation)
        yield activation, "initial", trial.network, *trial.batch()
        yield activation, "trained", run.network, *trial.batch()


def compared(found: list[Tensor], truth: list[Tensor]) -> tuple[float, float]:
    """||g - r|| / ||r||, and the angle in radians, without rounding small ones away."""
    g, r = (torch.cat([each.double().flatten() for each in parts]) for parts in (found, truth))
    g1, r1 = g / g.norm(), r / r.norm()
    return float((g - r).norm() / r.norm()), 2 * math.asin(min(1.0, float((g1 - r1).norm()) / 2))


def noisy(learning: EnergyLearning, network: Network, x: Tensor, y: Tensor) -> Iterator[tuple[float, list[Tensor]]]:
    """A size, and the gradients where every message is read with a Gaussian error of it; nothing that relaxes is noisy,
    and DRAWS of each."""
    with torch.no_grad():
        free, _ = learning.free_equilibrium(network, x)
        space, pull = learning.around(network, free, y)
        how = learning.relaxation
        at = read(space, pull, relax(space, pull, how, how.max_steps), how)
        for size in NOISES:
            for seed in range(DRAWS):
                draw = torch.Generator().manual_seed(seed)
                heard = [m + size * torch.randn(m.shape, generator=draw, dtype=m.dtype) for m in sent(space, at)]
                yield size, learning.learning_rule(space, at._replace(feedback=dict(enumerate(heard))))


def measured(learning: EnergyLearning, network: Network, x: Tensor, y: Tensor) -> Estimate | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return learning.estimate(network, x, y)
        except RunError:
            return None


def errors(folder: Path) -> pd.DataFrame:
    """Every member on every network, at every strength: to round-off in float64, in float32, and read with noise."""
    rows = []
    for activation, when, network, x, y in networks(folder):
        single, few = network.float(), (x.float(), y.float())
        for member in MEMBERS:
            if activation == "relu" and member.energy is not None:
                continue  # they need a slope
            for strength in STRENGTHS:
                learning = member.learning(activation, strength, tol=1e-7, max_steps=200)
                if learning is None:
                    continue
                network.double()
                truth = Backprop(learning.cost).estimate(network, x, y).gradients
                found = measured(learning, network, x, y)
                row = {"activation": activation, "weights": when, "member": member.name, "strength": strength,
                       "strongest": strength * max(map(abs, learning.nudge.nodes))}
                if found is not None:
                    error, angle = compared(found.gradients, truth)
                    row |= {"error": error, "angle": angle, "steps": found.steps, "converged": found.converged}
                    each = list(noisy(learning, network, x, y)) if found.converged and not member.normalised else []
                    for size in NOISES if each else ():
                        angles = [compared(g, truth)[1] for of, g in each if of == size]
                        row[f"angle at noise {size:g}"] = float(np.median(angles))
                    loose = member.learning(activation, strength, tol=1e-5)
                    low = measured(loose, single.float(), *few) if loose is not None else None
                    if low is not None:
                        row |= dict(zip(("error float32", "angle float32"), compared(low.gradients, truth)))
                rows.append(row)
        print(activation, when, flush=True)
    return pd.DataFrame(rows)


def times() -> pd.DataFrame:
    """Milliseconds of one gradient in float32 as shipped, the fastest of 100 interleaved, since others use the machine;
    and sweeps."""
    trial, rows = ebmrun.build(*BASE, "algo=bp"), []
    x, y = trial.batch()
    made: dict[str, tuple[float, object]] = {"backprop": (math.nan, Backprop(trial.cost))}
    for member in MEMBERS[: len(NUDGES) * 2 + 6]:
        for strength in (1e-4, 0.1):
            made[f"{member.name}, {strength:g}"] = strength, member.learning("relu", strength)
    taken: dict[str, list[float]] = {name: [] for name in made}
    steps = {name: each.estimate(trial.network, x, y).steps for name, (_, each) in made.items()}
    for _ in range(100):
        for name, (_, each) in made.items():
            start = time.perf_counter()
            each.estimate(trial.network, x, y)
            taken[name].append(1e3 * (time.perf_counter() - start))
    plain = min(taken["backprop"])
    for name, (strength, _) in made.items():
        rows.append({"member": name.rsplit(", ", 1)[0], "strength": strength, "ms": min(taken[name]),
                     "of backprop": min(taken[name]) / plain, "sweeps": steps[name]})
    return pd.DataFrame(rows)


TRAINED = {
    "backprop": ["algo=bp"],
    "predictive single, 1e-4": ["algo=pc"],
    "predictive single, 0.4": ["algo=pc", "nudge.strength=0.4"],
    "predictive centered, 0.4": ["algo=pc", "nudge=centered", "nudge.strength=0.4"],
    "predictive centered, joint, 0.4": ["algo=dual_propagation", "energy=predictive", "nudge.strength=0.4"],
    "predictive richardson, joint, 1": ["algo=dual_propagation", "energy=predictive", "nudge=richardson",
                                        "nudge.strength=1"],
    "lifted single, 0.4": ["algo=lifted", "nudge.strength=0.4"],
    "lifted centered, 0.4": ["algo=lifted", "nudge=centered", "nudge.strength=0.4"],
    "lifted centered, joint, 0.4": ["algo=dual_propagation", "nudge.strength=0.4"],
    "lifted fourth_order, joint, 0.4": ["algo=dual_propagation", "nudge=fourth_order", "nudge.strength=0.4"],
}


def trainings(folder: Path) -> pd.DataFrame:
    """One epoch of MNIST, three seeds."""
    rows = []
    for name, words in TRAINED.items():
        for seed in range(3):
            row = {"member": name, "words": " ".join(words), "seed": seed}
            try:
                run = ebmrun.train(*BASE, *words, "trainer.epochs=1", f"seed={seed}", "alignment.every=50",
                                   folder=folder / f"{name} {seed}")
                row |= {key: run.summary.get(key) for key in ("test/accuracy", "alignment/angle", "relax/steps",
                                                              "relax/converged", "time/step_ms")}
            except (ConfigError, RunError) as error:
                row["failed"] = str(error)
            rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "draw"))
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.what == "measure":
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as scratch:
            for name, table in (("times", times()), ("errors", errors(Path(scratch))),
                                ("trainings", trainings(Path(scratch)))):
                table.to_csv(asked.folder / f"{name}.csv", index=False, float_format="%.6g")
    draw(asked.folder)


if __name__ == "__main__":
    main()
