"""The training loop: gradients from an algorithm, steps of an optimizer, rows for a tracker."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from tqdm import tqdm

from ebmrun.config import TrainerConfig
from ebmrun.data.augment import Augmentation, Unchanged, draws
from ebmrun.data.sets import Dataset, batches, steps_per_epoch
from ebmrun.errors import Diverged
from ebmrun.theory.algorithm import Algorithm, Estimate
from ebmrun.theory.alignment import alignment, columns
from ebmrun.theory.cost import Cost
from ebmrun.theory.feedback import angles
from ebmrun.theory.network import Network
from ebmrun.theory.probe import KEYS
from ebmrun.training.evaluation import evaluated
from ebmrun.training.noise_keys import noise_keys
from ebmrun.training.schedule import Constant, Schedule
from ebmrun.training.selection import Selection
from ebmrun.training.signs import signs as drawn_signs
from ebmrun.training.tracking import Tracker
from ebmrun.training.updates import Updates

ALGORITHM_KEYS = ("relax/steps", "relax/residual", "relax/converged", "relax/free_converged", "time/step_ms")


@dataclass(frozen=True)
class Trainer:
    """Trains ``network`` in place. Every ``align_every`` steps (0: never) the gradient is measured against those of
    ``references``, whose names are the prefixes of the measures, and weights of the way down against those of the way
    up; every ``probe_every`` steps ``probe`` looks at the relaxation, where there is one. ``shows`` allows a progress
    bar, on a terminal; ``selection`` is told of every evaluation, and may end the training. With ``random_sign`` the
    algorithm is given a sign for each example, with ``noisy`` a key to its noise."""

    network: Network
    algorithm: Algorithm
    references: Mapping[str, Algorithm]
    cost: Cost
    optimizer: torch.optim.Optimizer
    dataset: Dataset
    config: TrainerConfig
    seed: int
    align_every: int
    shows: bool = True
    augment: Augmentation = field(default_factory=Unchanged)
    schedule: Schedule = field(default_factory=Constant)
    selection: Selection = field(default_factory=Selection)
    probe: Callable[[Network, Tensor, Tensor], dict[str, float]] | None = None
    probe_every: int = 0
    random_sign: bool = False
    noisy: bool = False

    @property
    def columns(self) -> list[str]:
        """The keys that the rows of a training may have."""
        splits = ("train", "test", "val") if self.dataset.val else ("train", "test")
        losses = [f"{split}/{key}" for split in splits for key in ("loss", "accuracy")]
        names = self.network.names
        aligned = [key for each in self.references for key in (*columns(names, each), f"{each}/reference_converged")]
        return ["epoch", *losses, *self.updates.rates(), *ALGORITHM_KEYS, *(aligned if self.align_every else []),
                *(angles(self.network) if self.align_every else []), *(KEYS if self.probe_every else [])]

    @cached_property
    def updates(self) -> Updates:
        """What moves the weights."""
        return Updates(self.network, self.optimizer, self.schedule, self.config.clip_norm)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch. Raises ConfigError for a batch larger than the training set."""
        return steps_per_epoch(len(self.dataset.train), self.config.batch_size)

    @property
    def steps(self) -> int:
        """All steps, the cap included."""
        full = self.config.epochs * self.steps_per_epoch
        return min(full, self.config.max_steps or full)

    def finished(self, done: int) -> bool:
        """Whether nothing is left to do after ``done`` steps."""
        return done >= self.steps or self.selection.exhausted(done)

    def last_row(self, done: int) -> int:
        """The last of ``done`` steps that has a row; 0 where none is due yet."""
        every = [self.config.log_every, self.steps_per_epoch, self.align_every, self.probe_every]
        return done if done == self.steps else max(done // period * period for period in every if period)

    def train(
        self, done: int, tracker: Tracker, checkpoint: Callable[[int], None], stopped: Callable[[], bool]
    ) -> None:
        """Goes on after ``done`` steps to the end, or until ``stopped``; ``checkpoint`` is called with the number of
        steps at the end of each epoch and at a stop. Raises Diverged when a number is no longer finite."""
        per_epoch, total = self.steps_per_epoch, self.steps
        learn = self.updates.of(self.algorithm, self.config.compile)
        hidden = None if self.shows else True
        with tqdm(total=total, initial=done, unit="batch", disable=hidden, dynamic_ncols=True) as bar:
            for step, (x, y, drawn) in enumerate(self.batches_after(done), done + 1):
                epoch_ends = step % per_epoch == 0 or step == total
                aligns = self.align_every > 0 and step % self.align_every == 0
                probes = self.probe_every > 0 and step % self.probe_every == 0
                logs = aligns or probes or epoch_ends or step % self.config.log_every == 0
                found = self.probe(self.network, x, y) if self.probe and probes else {}
                truth = {name: r.estimate(self.network, x, y) for name, r in self.references.items()} if aligns else {}
                found |= angles(self.network) if aligns else {}
                start = self._clock(wait=logs)
                estimate = learn(x, y, drawn, (step - 1) / per_epoch)
                if logs:
                    row = {"epoch": step / per_epoch, "time/step_ms": 1e3 * (self._clock(wait=True) - start)}
                    row |= self.updates.rates() | self._measures(estimate, y) | found
                    for name, reference in truth.items():
                        row |= self._alignment(name, estimate, reference)
                    bar.set_postfix(_shown(row), refresh=False)
                    if epoch_ends:
                        row |= self.evaluate()
                    _require_finite(row, step)
                    tracker.log(step, row)
                    self.selection.see(row, step)
                bar.update()
                stops = stopped()
                if epoch_ends or stops:
                    checkpoint(step)
                if stops or epoch_ends and self.selection.exhausted(step):
                    return

    def evaluate(self) -> dict[str, float]:
        """Mean loss and accuracy over the test set, and over validation examples where there are any; and the share of
        test examples in batches whose free phase converged, where one has to relax."""
        found: dict[str, float] = {}
        for name, split in (("val", self.dataset.val), ("test", self.dataset.test)):  # the last share is what stays
            if split is not None:
                keys = noise_keys(self.seed, 0, len(split)) if self.noisy else None
                found |= evaluated(name, split, self.network, self.algorithm, self.cost, keys)
        return found

    def batches_after(self, done: int) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
        """The batches after the first ``done``: slices of each epoch's permutation, augmented, and what their examples
        draw: ``signs``, ``keys``."""
        train, per_epoch = self.dataset.train, self.steps_per_epoch
        for epoch in range(done // per_epoch, math.ceil(self.steps / per_epoch)):
            order = batches(len(train), self.config.batch_size, self.seed, epoch)
            first = max(done - epoch * per_epoch, 0)
            order = order[first : self.steps - epoch * per_epoch]
            numbers = draws(self.seed, epoch, len(train), self.augment.numbers)
            drawn = self._drawn(epoch, len(train))
            for index, (x, y, _) in zip(order, train.stream(order)):
                x = self.augment(x, numbers[index].to(train.device, non_blocking=True), self.dataset.black)
                yield x, y, {name: each[index].to(y.device) for name, each in drawn.items()}

    def _drawn(self, epoch: int, examples: int) -> dict[str, Tensor]:
        """By name, what the examples of an epoch draw."""
        drawn = {"keys": noise_keys(self.seed, epoch + 1, examples)} if self.noisy else {}
        if self.random_sign:
            drawn["signs"] = drawn_signs(self.seed, epoch, examples).to(self.network.weights[0].dtype)
        return drawn

    def _measures(self, estimate: Estimate, y: Tensor) -> dict[str, float]:
        relaxed = {"steps": estimate.steps, "residual": estimate.residual, "converged": estimate.converged}
        return {
            "train/loss": self.cost.value(estimate.output, y).mean().item(),
            "train/accuracy": (estimate.output.argmax(1) == y.argmax(1)).double().mean().item(),
        } | {f"relax/{key}": value for key, value in relaxed.items() if value is not None}

    def _alignment(self, name: str, estimate: Estimate, reference: Estimate) -> dict[str, float]:
        by_layer, settled = self.network.by_layer, reference.converged
        found = alignment(by_layer(estimate.gradients), by_layer(reference.gradients), name, self.network.names)
        return found if settled is None else found | {f"{name}/reference_converged": settled}

    def _clock(self, wait: bool) -> float:
        """Seconds; after the device has done what it was asked, if the reading matters."""
        if wait and self.dataset.train.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def _shown(row: Mapping[str, float]) -> dict[str, str]:
    keys = {"loss": "train/loss", "accuracy": "train/accuracy", "angle": "alignment/angle"}
    return {name: f"{row[key]:.3g}" for name, key in keys.items() if key in row}


def _require_finite(row: Mapping[str, float], step: int) -> None:
    for key, value in row.items():
        if not math.isfinite(value):
            also = ", relax.step_size or nudge.strength" if row.get("relax/steps") else ""
            raise Diverged(f"{key}={value} at step {step}: the training diverged, use a smaller optim.lr{also}")
