"""Selection by the validation examples: which weights are kept, when a training stops, and how it goes on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from program import Command, composed
from run_folder import rows, saved, summary, timeless

from ebmrun.experiment import build
from ebmrun.training.distributed import Job
from ebmrun.training.run import trainer_of
from ebmrun.training.selection import Selection

# Steps so large that the accuracy goes up and down; 21 batches an epoch.
WILD = ("dataset.validation=0.1", "optim.lr=0.25", "trainer.epochs=8", "alignment.every=0", "device=cpu", "algo=bp")


@pytest.mark.parametrize("patience, stops", [(1, 4), (2, 5), (3, 9), (None, 9)])
def test_the_first_of_equals_is_the_best_and_patience_counts_from_there(patience: int | None, stops: int) -> None:
    selection = Selection(patience)
    for step, accuracy in enumerate([0.1, 0.3, 0.5, 0.5, 0.4, 0.6, 0.6, 0.6, 0.6], 1):
        selection.see({"val/accuracy": accuracy}, step)
        if selection.exhausted(step):
            break
    assert step == stops
    assert (selection.accuracy, selection.step) == ((0.5, 3) if stops < 6 else (0.6, 6))


def test_without_validation_nothing_is_selected() -> None:
    selection = Selection(1)
    for step in range(1, 9):
        selection.see({"test/accuracy": 0.5}, step)
        assert not selection.exhausted(step) and selection.step == 0


def test_the_best_checkpoint_has_the_accuracy_that_its_row_names(command: Command) -> None:
    assert command(*WILD, "hydra.run.dir=run") == (0, [])
    measured = {int(row["step"]): float(row["val/accuracy"]) for row in rows("run") if row["val/accuracy"]}
    assert len(measured) == 8
    best = torch.load("run/best.pt", weights_only=True)
    first = min(step for step, accuracy in measured.items() if accuracy == max(measured.values()))
    assert best["step"] == first < 8 * 21  # the last is not the best, or nothing is shown
    cfg = composed(*WILD)
    parts = build(cfg)
    parts.network.load_state_dict(best["network"])
    found = trainer_of(parts, cfg, Job()).evaluate()
    assert found["val/accuracy"] == measured[first]
    said = summary("run")
    assert (said["best/step"], said["best/val/accuracy"]) == (first, measured[first])
    assert said["best/test/accuracy"] == found["test/accuracy"] != said["test/accuracy"]


def test_a_run_that_lost_its_patience_has_ended_and_stays_so(command: Command) -> None:
    """It is the run without patience, up to the step at which it stops."""
    assert command(*WILD, "hydra.run.dir=whole") == (0, [])
    assert command(*WILD, "trainer.patience=1", "hydra.run.dir=run") == (0, [])
    whole, run = timeless("whole"), timeless("run")
    assert 0 < len(run) < len(whole) and run == whole[: len(run)]
    accuracies = [float(row["val/accuracy"]) for row in run if row["val/accuracy"]]
    assert accuracies[-1] <= max(accuracies[:-1]) and all(a < b for a, b in pairwise(accuracies[:-1]))
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert command(*WILD, "trainer.patience=1", "resume=run") == (0, [])
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    Path("run/summary.json").unlink()  # as if it had been killed just before
    assert command(*WILD, "trainer.patience=1", "resume=run") == (0, [])
    assert timeless("run") == run and summary("run")["steps"] == int(run[-1]["step"])


def test_a_resumed_run_knows_the_best_so_far(command: Command) -> None:
    for name, cap in (("whole", "null"), ("parts", "130")):
        assert command(*WILD, f"trainer.max_steps={cap}", f"hydra.run.dir={name}") == (0, [])
    assert command(*WILD, "resume=parts") == (0, [])
    assert saved("parts")["selection"] == saved("whole")["selection"]
    one, other = (torch.load(f"{name}/best.pt", weights_only=True) for name in ("whole", "parts"))
    assert one["step"] == other["step"]
    assert all(torch.equal(a, b) for a, b in zip(one["network"].values(), other["network"].values()))


def test_a_run_that_begins_again_forgets_the_best_of_the_last(command: Command) -> None:
    assert command(*WILD, "hydra.run.dir=run") == (0, [])
    assert command(*[word for word in WILD if "validation" not in word], "trainer.max_steps=3", "resume=false",
                   "hydra.run.dir=run") == (0, [])
    assert not Path("run/best.pt").exists() and "best/step" not in summary("run")


def test_a_rehearsal_selects_nothing() -> None:
    cfg = composed(*WILD, "trainer.patience=2")
    trainer = trainer_of(build(cfg), cfg, Job())
    assert trainer.selection == Selection(2 * 21) and not trainer.finished(0)
    assert replace(trainer, selection=Selection(5, 0.5, 10)).finished(15)
