"""Learning rates against torch's own schedulers, and as a function of the step alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from program import Command, composed
from run_folder import rows, same_weights, timeless
from test_trainer import LR, outputs, train, trainer, weights
from torch import nn
from torch.optim import lr_scheduler

from ebmrun.command import cli
from ebmrun.config import forget_inherited
from ebmrun.data.sets import batches
from ebmrun.errors import ConfigError
from ebmrun.experiment import build
from ebmrun.training.optimizers import optimizer
from ebmrun.training.schedule import Constant, Cosine, Schedule, Step, WarmupCosine
from ebmrun.training.updates import clipped

EPOCHS, PER_EPOCH = 10, 7
STEPS = EPOCHS * PER_EPOCH
BASES = [0.3, 0.02]


def theirs(make: Any) -> list[list[float]]:
    """The rates of two groups at each step by a scheduler of torch."""
    groups = [{"params": [nn.Parameter(torch.zeros(()))], "lr": base} for base in BASES]
    steps = torch.optim.SGD(groups)
    scheduler, found = make(steps), []
    for _ in range(STEPS):
        found.append([group["lr"] for group in steps.param_groups])
        steps.step()
        scheduler.step()
    return found


def ours(schedule: Schedule) -> list[list[float]]:
    return [[schedule.rate(base, step / PER_EPOCH) for base in BASES] for step in range(STEPS)]


def warmed(steps: torch.optim.Optimizer) -> lr_scheduler.SequentialLR:
    warmup = lr_scheduler.LinearLR(steps, 0.25, 1.0, STEPS // 5)
    rest = lr_scheduler.CosineAnnealingLR(steps, STEPS - STEPS // 5, 1e-3)
    return lr_scheduler.SequentialLR(steps, [warmup, rest], [STEPS // 5])


@pytest.mark.parametrize("schedule, make", [
    (Constant(), lambda steps: lr_scheduler.ConstantLR(steps, 1.0)),
    (Cosine(EPOCHS, 0.0), lambda steps: lr_scheduler.CosineAnnealingLR(steps, STEPS)),
    (Cosine(EPOCHS, 1e-3), lambda steps: lr_scheduler.CosineAnnealingLR(steps, STEPS, 1e-3)),
    (WarmupCosine(EPOCHS, 1e-3, 0.2, 0.25), warmed),
    (Step([3, 8], 0.1), lambda steps: lr_scheduler.MultiStepLR(steps, [3 * PER_EPOCH, 8 * PER_EPOCH], 0.1)),
], ids=["constant", "cosine", "cosine with a floor", "warmup_cosine", "step"])
def test_they_are_those_of_torch(schedule: Schedule, make: Any) -> None:
    schedule.require_fit(EPOCHS, BASES)
    torch.testing.assert_close(torch.tensor(ours(schedule), dtype=torch.float64),
                               torch.tensor(theirs(make), dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_an_update_has_the_rate_of_its_step(tmp_path: Path) -> None:
    """Gradient descent by hand, on the mean of half the squared error."""
    subject = trainer()
    object.__setattr__(subject, "schedule", Cosine(2, 0.0))
    w, b = weights(subject.network)
    found, _ = train(subject, tmp_path)
    data, step = subject.dataset.train, 0
    for epoch in range(2):
        for index in batches(22, 5, 3, epoch):
            rate = LR * (1 + math.cos(math.pi * step / 10)) / 2
            step += 1
            assert found[step]["optim/lr"] == pytest.approx(rate, rel=1e-12)
            error = outputs(w, b, data, index) - data.targets[index]
            w, b = w - rate * error.T @ data.inputs[index] / len(index), b - rate * error.mean(0)
    torch.testing.assert_close(weights(subject.network), (w, b), rtol=1e-12, atol=1e-14)


SCHEDULED = ("schedule=cosine", "optim.lr=[0.02,0.01,0.005]", "trainer.epochs=3", "trainer.log_every=1", "device=cpu",
             "dataset.limit=200")


def test_each_layer_has_its_rate_and_a_resumed_run_goes_on_with_it(command: Command) -> None:
    assert command(*SCHEDULED, "hydra.run.dir=whole") == (0, [])
    assert command(*SCHEDULED, "trainer.max_steps=5", "hydra.run.dir=parts") == (0, [])
    assert command(*SCHEDULED, "resume=parts") == (0, [])
    assert same_weights("whole", "parts")
    whole, parts = ([row for row in timeless(name) if row["step"] != "5"] for name in ("whole", "parts"))
    assert whole == parts
    for step, row in enumerate(rows("whole")):  # four batches an epoch
        share = (1 + math.cos(math.pi * step / 12)) / 2
        for layer, base in enumerate((0.02, 0.01, 0.005), 1):
            assert float(row[f"optim/lr/layer{layer}"]) == pytest.approx(base * share, rel=1e-12)
    status, [line] = command(*SCHEDULED, "trainer.epochs=4", "resume=whole")
    assert status == 2 and "schedule.epochs: saved 3, now 4" in line


@pytest.mark.parametrize("overrides, words", [
    (["schedule=cosine", "schedule.epochs=5"], "schedule.epochs=5 is shorter than the run of trainer.epochs=10"),
    (["schedule=cosine", "schedule.epochs=50"], "schedule.epochs=50 is longer than the run of trainer.epochs=10"),
    (["schedule=warmup_cosine", "schedule.epochs=5"], "schedule.epochs=5 is shorter"),
    (["schedule=cosine", "schedule.floor=0.1"], "schedule.floor=0.1 is above optim.lr=0.0064"),
    (["schedule=cosine", "schedule.floor=-1"], "schedule.floor=-1 must be a number of 0 or more"),
    (["schedule=cosine", "schedule.epochs=2.5"], "schedule.epochs=2.5 must be an integer"),
    (["schedule=warmup_cosine", "schedule.warmup=5"], "schedule.warmup=5 is a share of the run"),
    (["schedule=warmup_cosine", "schedule.start=2"], "schedule.start=2 is a share of optim.lr"),
    (["schedule=step"], "schedule.milestones=[] must be a list of epochs: write [30,60]"),
    (["schedule=step", "schedule.milestones=[5,20]"], "schedule.milestones=[5, 20] is longer than the run of trainer"),
    (["schedule=step", "schedule.milestones=[5,5]"], "schedule.milestones=[5, 5] must ascend"),
    (["schedule=step", "schedule.milestones=[5]", "schedule.factor=2"], "schedule.factor=2 must lie between 0 and 1"),
    (["trainer.clip_norm=0"], "trainer.clip_norm=0.0 must be a positive number"),
    (["optim=torch"], "optim._target_ has no value: write optim._target_=VALUE"),
    (["optim=sgd", "optim.nesterov=true", "optim.momentum=0"], "Nesterov momentum requires a momentum"),
])
@pytest.mark.usefixtures("untyped")
def test_what_does_not_fit_ends_in_one_line(command: Command, overrides: list[str], words: str) -> None:
    status, lines = command(*overrides)
    assert status == 2 and len(lines) == 1 and words in lines[0], lines
    assert not list(Path().iterdir())


# Optimizers


@pytest.mark.parametrize("overrides, kind, keys", [
    (["optim=sgd", "optim.nesterov=true"], torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (["optim=adamw"], torch.optim.AdamW, {"weight_decay": 1e-2, "betas": (0.9, 0.999)}),
    (["optim._target_=torch.optim.RMSprop"], torch.optim.RMSprop, {"momentum": 0, "alpha": 0.99}),
    (["optim._target_=torch.optim.Adagrad"], torch.optim.Adagrad, {"lr_decay": 0}),
    (["optim._target_=torch.optim.RMSprop", "optim.momentum=0.5"], torch.optim.RMSprop, {"momentum": 0.5}),
    (["optim=torch", "optim._target_=torch.optim.RMSprop", "+optim.alpha=0.5"], torch.optim.RMSprop, {"alpha": 0.5}),
])
def test_optimizers_take_no_keys_of_another(overrides: list[str], kind: type, keys: dict[str, Any]) -> None:
    cfg = composed(*overrides)
    forget_inherited(cfg, overrides)
    made = optimizer(cfg, build(cfg).network)
    assert type(made) is kind and {key: made.param_groups[0][key] for key in keys} == keys


def test_the_command_forgets_them_too(command: Command) -> None:
    assert command("optim._target_=torch.optim.Adagrad", "trainer.max_steps=2", "hydra.run.dir=run") == (0, [])
    assert "momentum" not in Path("run/.hydra/config.yaml").read_text()


def test_a_gradient_is_as_long_as_the_limit_at_most() -> None:
    gradients = [torch.randn(5, 4), torch.randn(4)]
    norm = float(torch.cat([each.flatten() for each in gradients]).norm())
    for limit in (norm / 3, norm * 3):
        found = clipped(gradients, limit)
        share = min(1, limit / norm)
        torch.testing.assert_close(found, [share * each for each in gradients])
        parameters = [nn.Parameter(torch.zeros_like(each)) for each in gradients]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient.clone()
        nn.utils.clip_grad_norm_(parameters, limit)
        torch.testing.assert_close(found, [parameter.grad for parameter in parameters], rtol=1e-5, atol=1e-6)
    assert all(torch.equal(each, torch.zeros(3)) for each in clipped([torch.zeros(3)], 1.0))


def test_the_clipped_gradient_moves_the_weights_and_the_whole_one_is_measured(tmp_path: Path) -> None:
    subject = trainer(clip_norm=1e-3)
    w, b = weights(subject.network)
    found, _ = train(subject, tmp_path, stop=1)
    moved = [new - old for new, old in zip(weights(subject.network), (w, b))]
    assert float(torch.cat([each.flatten() for each in moved]).norm()) == pytest.approx(LR * 1e-3, rel=1e-9)
    assert found[1]["alignment/norm_ratio"] == 1


def test_a_schedule_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="schedule=.* is no Schedule"):
        cfg = composed("+schedule.feedback_gain=1", "schedule._target_=ebmrun.theory.energies.Predictive")
        from ebmrun.experiment import schedule

        parts = build(cfg)
        schedule(cfg, parts.config, optimizer(cfg, parts.network))
    assert "schedule" in cli.GROUPS
