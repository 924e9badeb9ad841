"""The recipes: each file is a whole run with its sources, and builds as it stands on images of its size."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from own_files import write_npz
from program import composed

from ebmrun.command import cli
from ebmrun.config import typed
from ebmrun.experiment import build
from ebmrun.training.distributed import Job
from ebmrun.training.run import trainer_of

FILES = sorted((Path(__file__).resolve().parents[1] / "conf" / "experiment").glob("*.yaml"))
SHAPES = {"mnist": (28, 28), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}
FIELDS = ("Source", "Published", "Command", "Ours")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_names_its_source_and_both_numbers(path: Path) -> None:
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("# ")]
    assert lines[0] == "# @package _global_" and len(lines[1]) > 20
    found = dict(re.match(r"#   (\w+): (.+)", line).groups() for line in head if re.match(r"#   \w+: ", line))
    assert tuple(found) == FIELDS
    assert found["Ours"] == "not run" or re.search(r"\(20\d\d-\d\d-\d\d", found["Ours"])
    command = shlex.split(found["Command"].split(", and")[0])
    assert command[0] == "ebmrun" and f"experiment={path.stem}" in command


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_builds_as_it_stands(path: Path, tmp_path: Path) -> None:
    """Network, schedule, optimizer and augmentation fit each other, on ten random images of the published size."""
    asked = composed(f"experiment={path.stem}")
    shape, classes = SHAPES[asked.dataset.name], 100 if asked.dataset.name == "cifar100" else 10
    labels, images = np.arange(4 * classes) % classes, np.random.default_rng(0)
    data = {f"{part}_{kind}": labels if kind == "labels" else images.integers(0, 256, (len(labels), *shape), np.uint8)
            for part in ("train", "test") for kind in ("images", "labels")}
    validated = ["dataset.validation=0.25"] if asked.dataset.validation else []
    cfg = composed(f"experiment={path.stem}", "dataset=npz", f"dataset.path={write_npz(tmp_path / 'mine.npz', **data)}",
                   *validated, "trainer.batch_size=10")
    config = typed(cfg)
    assert {key: value for key, value in cfg.dataset.items() if key not in ("name", "root", "path", "validation")} == {
        key: value for key, value in asked.dataset.items() if key not in ("name", "root", "path", "validation")}
    trainer = trainer_of(build(cfg), cfg, Job())
    assert trainer.steps_per_epoch >= 1 and config.trainer.epochs >= 1
    x, *_ = next(trainer.batches_after(0))
    assert x.shape == (10, *((1, 28, 28) if shape == (28, 28) else (3, 32, 32)))


def test_a_recipe_leaves_the_algorithm_and_every_key_to_the_command() -> None:
    cfg = composed("experiment=cifar10_small", "algo=ep_centered", "optim.lr=0.5", "trainer.epochs=3")
    assert (cfg.algo.name, cfg.arch.activation, cfg.optim.lr) == ("ep_centered", "hard_sigmoid", 0.5)
    assert cfg.schedule.epochs == 3 and cfg.augment.border == "reflection"
    assert "experiment" in cli.GROUPS and FILES
