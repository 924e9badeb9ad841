"""The training loop: gradients from an algorithm, steps of an optimizer, rows for a tracker."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from tqdm import tqdm

from ebmrun.config import TrainerConfig
from ebmrun.data.augment import Augmentation, Unchanged, draws
from ebmrun.data.sets import Dataset, Split, batches, steps_per_epoch
from ebmrun.errors import Diverged
from ebmrun.theory.algorithm import Algorithm, Estimate, Stepwise
from ebmrun.theory.alignment import alignment, columns
from ebmrun.theory.cost import Cost
from ebmrun.theory.feedback import angles
from ebmrun.theory.network import Network
from ebmrun.theory.probe import KEYS
from ebmrun.training.noise_keys import noise_keys
from ebmrun.training.schedule import Constant, Schedule
from ebmrun.training.selection import Selection
from ebmrun.training.signs import signs as drawn_signs
from ebmrun.training.tracking import Tracker

EVALUATION_BATCH = 1000  # examples, or fewer where they are large
EVALUATION_NUMBERS = 2**22  # of the inputs of such a batch
Learn = Callable[[Tensor, Tensor, Mapping[str, Tensor], float], Estimate]  # of x, y, what these draw, and the epoch
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
        return ["epoch", *losses, *self._rates(), *ALGORITHM_KEYS, *(aligned if self.align_every else []),
                *(angles(self.network) if self.align_every else []), *(KEYS if self.probe_every else [])]

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
        learn = self._each_step(self.algorithm) if isinstance(self.algorithm, Stepwise) else self._at_equilibrium()
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
                    row |= self._rates() | self._measures(estimate, y) | found
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
        found = self._evaluated("test", self.dataset.test)
        if self.dataset.val:
            val = self._evaluated("val", self.dataset.val)
            found |= {key: value for key, value in val.items() if key.startswith("val/")}
        return found

    def _evaluated(self, name: str, split: Split) -> dict[str, float]:
        loss = torch.zeros((), dtype=torch.float64, device=split.device)
        right = torch.zeros((), dtype=torch.int64, device=split.device)
        settled: list[int] = []
        size = max(1, min(EVALUATION_BATCH, EVALUATION_NUMBERS // math.prod(self.dataset.shape)))
        parts = [slice(start, start + size) for start in range(0, len(split), size)]
        keys = noise_keys(self.seed, 0, len(split)) if self.noisy else None
        for part, (x, y, labels) in zip(parts, split.stream(parts)):
            drawn = {} if keys is None else {"keys": keys[part].to(x.device)}
            prediction = self.algorithm.predict(self.network, x, **drawn)
            loss += self.cost.value(prediction.output, y).double().sum()
            right += (prediction.output.argmax(1) == labels).sum()
            if prediction.converged is not None:
                settled.append(len(x) * prediction.converged)
        measured = {f"{name}/loss": loss.item() / len(split), f"{name}/accuracy": right.item() / len(split)}
        return measured | ({"relax/free_converged": sum(settled) / len(split)} if settled else {})

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

    def _at_equilibrium(self) -> Learn:
        """One update a batch, by what its relaxation has come to."""
        gradient = torch.compile(self.algorithm.estimate) if self.config.compile else self.algorithm.estimate

        def learn(x: Tensor, y: Tensor, drawn: Mapping[str, Tensor], epoch: float) -> Estimate:
            estimate = gradient(self.network, x, y, **drawn)
            self._update(estimate, epoch)
            return estimate

        return learn

    def _each_step(self, algorithm: Stepwise) -> Learn:
        """An update after every step of a batch's relaxation: the last estimate, with the mean gradient of them all."""
        def learn(x: Tensor, y: Tensor, drawn: Mapping[str, Tensor], epoch: float) -> Estimate:
            total: list[Tensor] = []
            for count, estimate in enumerate(algorithm.estimates(self.network, x, y, **drawn), 1):
                total = [a + b for a, b in zip(total or map(torch.zeros_like, estimate.gradients), estimate.gradients)]
                self._update(estimate, epoch)
            return replace(estimate, gradients=[each / count for each in total])

        return learn

    def _update(self, estimate: Estimate, epoch: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(group.setdefault("initial_lr", group["lr"]), epoch)
        limit = self.config.clip_norm
        gradients = estimate.gradients if limit is None else clipped(estimate.gradients, limit)
        for parameter, gradient in zip(self.network.weights, gradients):
            parameter.grad = gradient
        for l in range(self.network.depth):
            for weight, feedback in self.network.followers(l):
                assert weight.grad is not None
                feedback.grad = weight.grad.clone()  # an optimizer may write into it
        self.optimizer.step()

    def _rates(self) -> dict[str, float]:
        """The learning rate, or one for each layer that has its own."""
        groups = self.optimizer.param_groups
        learned = [name for name, layer in zip(self.network.names, self.network.layers) if list(layer.parameters())]
        names = ["optim/lr"] if len(groups) == 1 else [f"optim/lr/{name}" for name in learned]
        return {name: group["lr"] for name, group in zip(names, groups)}

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


def clipped(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """The gradient of all parameters, shortened to a norm of ``limit`` where it is longer."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in gradients]))
    share = (limit / norm).clamp(max=1)
    return [share * each for each in gradients]


def _shown(row: Mapping[str, float]) -> dict[str, str]:
    keys = {"loss": "train/loss", "accuracy": "train/accuracy", "angle": "alignment/angle"}
    return {name: f"{row[key]:.3g}" for name, key in keys.items() if key in row}


def _require_finite(row: Mapping[str, float], step: int) -> None:
    for key, value in row.items():
        if not math.isfinite(value):
            also = ", relax.step_size or nudge.strength" if row.get("relax/steps") else ""
            raise Diverged(f"{key}={value} at step {step}: the training diverged, use a smaller optim.lr{also}")
