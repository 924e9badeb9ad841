"""The signs of examples: a pure function of seed, epoch and example, which a resumed run draws again."""

from __future__ import annotations

import pytest
import torch
from program import composed

from ebmrun.experiment import build
from ebmrun.training.distributed import Job
from ebmrun.training.run import trainer_of
from ebmrun.training.signs import signs


def test_both_signs_are_equally_likely_and_drawn_anew_in_each_epoch():
    drawn = torch.stack([signs(seed, epoch, 10_000) for seed in (0, 1) for epoch in (0, 1)])
    assert set(drawn.flatten().tolist()) == {-1, 1}
    assert drawn.double().mean((1, 2)).abs().max() < 0.04  # four standard deviations
    agree = torch.stack([(a == b).double().mean() for i, a in enumerate(drawn) for b in drawn[:i]])
    assert (agree - 0.5).abs().max() < 0.02
    assert torch.equal(signs(0, 1, 10_000), drawn[1])


def trainer(*words: str, processes: Job | None = None):
    cfg = composed("algo=ep", "nudge.random_sign=true", "trainer.epochs=2", "arch.hidden=[4]", *words)
    return trainer_of(build(cfg), cfg, processes or Job())


def test_a_resumed_run_sees_the_signs_that_it_would_have_seen():
    made = trainer()
    whole = list(made.batches_after(0))
    for done in (1, made.steps_per_epoch, made.steps_per_epoch + 3):
        rest = list(made.batches_after(done))
        assert len(rest) == len(whole) - done
        for ours, theirs in zip(rest, whole[done:]):
            assert all(torch.equal(a, b) for a, b in zip(ours[:2], theirs[:2]))
            assert torch.equal(ours[2]["signs"], theirs[2]["signs"])
    assert all(drawn["signs"].shape == (len(x), 1) and drawn["signs"].dtype == x.dtype for x, _, drawn in whole)


def test_signs_belong_to_examples_whatever_the_batches():
    """Inputs of digits are one a kind, so that they name their example."""
    by_example = []
    for size in (64, 100):
        made = trainer(f"trainer.batch_size={size}")
        rows = list(made.batches_after(0))[: made.steps_per_epoch]
        by_example.append({tuple(image.flatten().tolist()): float(sign) for x, _, drawn in rows
                           for image, sign in zip(x, drawn["signs"])})
    common = by_example[0].keys() & by_example[1].keys()
    assert len(common) > 1000
    assert all(by_example[0][key] == by_example[1][key] for key in common)


def test_without_random_signs_a_batch_has_none():
    cfg = composed("algo=ep", "arch.hidden=[4]", "trainer.epochs=1")
    assert next(trainer_of(build(cfg), cfg, Job()).batches_after(0))[2] == {}


@pytest.mark.parametrize("study", ["certify", "paper"])
def test_studies_refuse_what_a_training_alone_draws(study, command, tmp_path):
    ended = command("algo=ep", "dataset=digits", "nudge.random_sign=true", f"study={study}")
    assert ended.status == 2 and len(ended.lines) == 1 and "nudge.random_sign=True" in ended.lines[0]
    assert not any(tmp_path.rglob("*"))


def test_a_run_by_random_signs_trains(command):
    assert command("algo=ep", "nudge.random_sign=true", "trainer.max_steps=3", "arch.hidden=[4]").status == 0
