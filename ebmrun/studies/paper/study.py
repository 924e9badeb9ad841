"""Figures 1 to 5 of Millidge, Song, Salvatori, Lukasiewicz & Bogacz (ICLR 2023): inference in one network, of one
example at a time, in two modes side by side. As in the published code the output is no state.

    metrics.csv     F1 and F5: energies and the distance of the gradient from backprop, step by step
    strengths.csv   F2 to F4: distances of equilibrium and gradient, by nudge strength and initialisation

Distances are squared Euclidean norms over all layers, and the reference is backprop in float64 in either mode.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from ebmrun.config import dtype_of, require_no_updates, require_whole_products, resolved, typed
from ebmrun.errors import ConfigError
from ebmrun.experiment import Parts, build, energy_learning
from ebmrun.files import replace as new_file
from ebmrun.studies.paper.inference import Inference, Mode, Row, Scene
from ebmrun.theory.references import Backprop
from ebmrun.theory.relaxing import Relaxation
from ebmrun.training.summary import near
from ebmrun.training.tracking import Tracker


def modes(cfg: DictConfig) -> dict[str, Mode]:
    """The modes of the configuration by name."""
    return {name: Mode(dtype_of(mode.precision), Relaxation(**mode.relax)) for name, mode in cfg.study.modes.items()}


def truth(parts: Parts, scene: Scene) -> list[Tensor]:
    """The gradient of backprop in float64."""
    exact = scene.to(torch.float64)
    return Backprop(parts.cost).estimate(exact.network, exact.x, exact.y).gradients


@torch.no_grad()
def by_strength(cfg: DictConfig, parts: Parts, seeds: Sequence[int], strengths: Sequence[float]) -> list[Row]:
    """F2 to F4: a row for each initialisation and strength."""
    learning = energy_learning(cfg, parts.config, parts.network, parts.cost)
    rows: list[Row] = []
    for seed in tqdm(seeds, desc="F2-F4", disable=None):
        scene = Scene.drawn(parts, seed)
        goal = truth(parts, scene)
        for strength in strengths:
            rows.append({"seed": seed, "strength": strength})
            for name, mode in modes(cfg).items():
                found = Inference.of(learning, scene, mode, strength).distances(goal)
                rows[-1] |= {f"{name}/{key}": value for key, value in found.items()}
    return rows


@torch.no_grad()
def by_step(cfg: DictConfig, parts: Parts, seeds: Sequence[int]) -> list[Row]:
    """F1 and F5: a row for each step. Energies are those of the first initialisation, distances the mean over all."""
    learning = energy_learning(cfg, parts.config, parts.network, parts.cost)
    rows: list[Row] = [{} for _ in range(cfg.study.steps + 1)]
    for seed in tqdm(seeds, desc="F1, F5", disable=None):
        scene = Scene.drawn(parts, seed)
        goal = truth(parts, scene)
        for (name, mode), strength in product(modes(cfg).items(), cfg.study.watched):
            key = f"{name}/{strength:g}"
            trajectory = Inference.of(learning, scene, mode, strength).trajectory(goal, cfg.study.steps)
            for row, found in zip(rows, trajectory):
                row[f"{key}/distance"] = row.get(f"{key}/distance", 0.0) + found.pop("distance") / len(seeds)
                if seed == seeds[0]:
                    row |= {f"{key}/{part}": value for part, value in found.items()}
    return rows


def write(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Rows as a CSV file, whole or absent."""
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with new_file(path) as file:
        file.write(text.getvalue().encode())


def run(cfg: DictConfig, run_dir: Path, overrides: Sequence[str]) -> None:
    """``study=paper``. The summary holds the ends of F1 and F5. Raises ConfigError for a nudge without one strength, or
    a precision that rounds products."""
    require_whole_products(typed(cfg), "paper")
    require_no_updates(typed(cfg), "paper")
    noise = typed(cfg).noise
    if noise.estimated or noise.writes:
        raise ConfigError(f"noise={vars(noise)} enters no relaxation of study=paper: use noise=none")
    parts = build(cfg)
    nudge = parts.config.nudge
    if nudge.clamps or nudge.random_sign or nudge.points > 1 or nudge.joint:
        raise ConfigError(f"nudge.nodes={nudge.nodes} with nudge.holds={nudge.holds}, nudge.random_sign="
                          f"{nudge.random_sign}, nudge.points={nudge.points} and nudge.joint={nudge.joint} have no "
                          "message of one strength, which study=paper follows: use nudge=single or centered")
    seeds = range(parts.config.seed, parts.config.seed + cfg.study.initialisations)
    steps, strengths = by_step(cfg, parts, seeds), by_strength(cfg, parts, seeds, cfg.study.strengths)
    with Tracker(run_dir, resolved(cfg), parts.config.logger, list(steps[0]), None, overrides) as tracker:
        for step, row in enumerate(steps):
            tracker.log(step, row)
        write(run_dir / "strengths.csv", strengths)
        tracker.finish(steps[-1])
    print(f"files: {near(run_dir)}")
