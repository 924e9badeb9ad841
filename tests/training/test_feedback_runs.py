"""Runs whose way down has weights of its own: what becomes of these, what is logged, resumed and refused."""

from functools import partial
from pathlib import Path

import pytest
import torch
from program import Command, composed
from run_folder import rows, saved, summary, timeless
from torch import Tensor

from ebmrun.experiment import build
from ebmrun.theory.feedback_alignment import FeedbackAlignment
from ebmrun.theory.references import Backprop

SMALL = ("arch.hidden=[12,8]", "arch.activation=tanh")


@pytest.fixture
def command(command: Command) -> Command:
    return partial(command, "device=cpu")


def started(*words: str) -> dict[str, Tensor]:
    """The state of the network at the first step."""
    return build(composed(*words, *SMALL)).network.state_dict()


def gaps(state: dict[str, Tensor]) -> list[Tensor]:
    """W - B, map by map."""
    return [state[key.replace("feedback", "weight")] - state[key] for key in state if key.endswith("feedback")]


# Of D = W - B a step leaves 1 - eta d, by plain descent and by decoupled decay; with momentum m it takes eta v from D,
# v <- m v + d D.
@pytest.mark.parametrize("optimizer, momentum", [
    (("optim=sgd", "optim.momentum=0"), 0.0),
    (("optim=sgd", "optim.momentum=0.9"), 0.9),
    (("optim=adamw",), 0.0),
], ids=["sgd", "momentum", "adamw"])
def test_both_ways_become_one_as_they_decay(command: Command, optimizer: tuple[str, ...], momentum: float) -> None:
    words = ("algo=pc", "feedback=kolen_pollack", "precision=float64", *optimizer, "optim.lr=0.01",
             "optim.weight_decay=0.5")
    steps = 60
    assert command(*words, *SMALL, f"trainer.max_steps={steps}", "hydra.run.dir=run").status == 0
    left, pace = 1.0, 0.0
    for _ in range(steps):
        pace = momentum * pace + 0.5 * left
        left -= 0.01 * pace
    assert abs(left) < 0.8
    before, after = started(*words), saved("run")["network"]
    assert len(gaps(before)) == 2
    for first, last in zip(gaps(before), gaps(after)):
        torch.testing.assert_close(last, left * first)
    assert not torch.allclose(before["layers.1.maps.0.weight"], after["layers.1.maps.0.weight"], rtol=0.1)


@pytest.mark.parametrize("rule", ["random", "sign"])
def test_other_numbers_of_the_way_down_stay_as_they_were_drawn(command: Command, rule: str) -> None:
    words = ("algo=lifted", f"feedback={rule}")
    assert command(*words, *SMALL, "trainer.max_steps=30", "hydra.run.dir=run").status == 0
    before, after = started(*words), saved("run")["network"]
    numbers = [key for key in after if key.endswith("feedback")]
    assert len(numbers) == 2 and all(torch.equal(before[key], after[key]) for key in numbers)
    tied = started("algo=lifted")
    assert tied.keys() == {key for key in before if key not in numbers}
    assert all(torch.equal(tied[key], before[key]) for key in tied)


@pytest.mark.parametrize("rule", ["sign", "kolen_pollack"])
def test_a_resumed_run_goes_on_bit_for_bit(command: Command, rule: str) -> None:
    words = ("algo=pc", f"feedback={rule}", "optim.weight_decay=0.01", "optim.lr=0.01", "alignment.every=5")
    assert command(*words, *SMALL, "trainer.max_steps=40", "hydra.run.dir=whole").status == 0
    assert command(*words, *SMALL, "trainer.max_steps=30", "hydra.run.dir=parts").status == 0
    assert command(*words, *SMALL, "trainer.max_steps=40", "hydra.run.dir=parts", "resume=true").status == 0
    whole, parts = saved("whole"), saved("parts")
    assert timeless("whole")[-1] == timeless("parts")[-1]
    assert whole["network"].keys() == parts["network"].keys()
    assert all(torch.equal(whole["network"][key], parts["network"][key]) for key in whole["network"])
    states = [list(each["optimizer"]["state"].values()) for each in (whole, parts)]
    assert len(states[0]) == (8 if rule == "kolen_pollack" else 6)
    assert all(torch.equal(one["momentum_buffer"], other["momentum_buffer"]) for one, other in zip(*states))


def test_rows_have_the_angle_to_backprop_and_that_between_both_ways(command: Command) -> None:
    assert command(*SMALL, "algo=pc", "feedback=random", "trainer.max_steps=1", "alignment.every=1",
                   "hydra.run.dir=run").status == 0
    row, parts = rows("run")[0], build(composed("algo=pc", "feedback=random", *SMALL))
    weight, feedback = (torch.cat([getattr(maps[0], key).detach().flatten() for maps in parts.network.untied[1:]])
                        for key in ("weight", "feedback"))
    cosine = torch.nn.functional.cosine_similarity(weight.double(), feedback.double(), dim=0)
    assert float(row["feedback/angle"]) == pytest.approx(float(cosine.acos().rad2deg()), rel=1e-5)
    assert "feedback/angle/layer1" not in row and float(row["feedback/angle/layer3"]) > 0
    # Against backprop by the transposes; against that by the way down the angle is nearly none.
    assert float(row["alignment/angle"]) > 20
    assert float(row["alignment/angle/layer3"]) < 0.1
    assert summary("run")["relax/converged"] == 1


def test_backprop_goes_by_the_way_down_that_there_is_and_is_measured_against_its_own(command: Command) -> None:
    words = ("algo=bp", "feedback=random", "trainer.max_steps=3", "alignment.every=1", "optim.lr=0.05")
    assert command(*words, *SMALL, "hydra.run.dir=run").status == 0
    assert min(float(row["alignment/angle"]) for row in rows("run")) > 20
    assert type(build(composed("algo=bp", "feedback=random")).algorithm) is FeedbackAlignment
    assert type(build(composed("algo=bp")).algorithm) is Backprop


@pytest.mark.parametrize("words", [("algo=pc_clamped", "relax.step_size=0.7"), ("algo=ep_centered",), ("algo=chl",),
                                   ("algo=lifted",), ("algo=rbp",), ("algo=pc_first_step",),
                                   ("algo=pc", "nudge=holomorphic"),
                                   ("algo=pc", "arch=cnn", "arch.channels=[4]", "arch.pooling=max"),
                                   ("algo=lifted", "arch.stream=identity", "arch=resmlp")],
                         ids=lambda words: "-".join(words))
def test_presets_run_as_they_are(command: Command, words: tuple[str, ...]) -> None:
    small = SMALL[:2] if "arch=resmlp" not in words else ("arch.width=8", "arch.depth=4")
    assert command(*words, *small, "feedback=sign", "trainer.max_steps=2", "hydra.run.dir=run").status == 0
    found = summary("run")
    assert found.get("relax/converged", 1) == 1 and found["steps"] == 2


@pytest.mark.parametrize("relax", ["conjugate", "adaptive"])
def test_what_descends_an_energy_is_refused(command: Command, relax: str) -> None:
    status, lines = command(*SMALL, "algo=pc", "feedback=random", f"relax={relax}")
    assert status == 2 and len(lines) == 1 and not list(Path().iterdir())
    assert f"relax.acceleration={relax}" in lines[0] and "use relax.acceleration=auto" in lines[0]


def test_without_decay_they_never_meet(command: Command) -> None:
    status, lines = command(*SMALL, "algo=pc", "feedback=kolen_pollack", "trainer.max_steps=1")
    assert status == 0 and len(lines) == 1 and "set optim.weight_decay" in lines[0]
    assert command(*SMALL, "algo=pc", "feedback=kolen_pollack", "trainer.max_steps=1", "optim.weight_decay=0.1",
                   "hydra.run.dir=run") == (0, [])


def test_a_run_of_another_feedback_is_not_gone_on_with(command: Command) -> None:
    assert command(*SMALL, "algo=pc", "feedback=random", "trainer.max_steps=1", "hydra.run.dir=run").status == 0
    status, lines = command(*SMALL, "algo=pc", "feedback=sign", "trainer.max_steps=2", "hydra.run.dir=run",
                            "resume=true")
    assert status == 2 and "feedback._target_" in lines[0]


def test_each_layer_has_one_rate_for_both_ways(command: Command) -> None:
    words = ("algo=pc", "feedback=kolen_pollack", "optim.lr=[0.01,0.02,0]", "optim.weight_decay=0.5",
             "optim.momentum=0", "precision=float64")
    assert command(*words, *SMALL, "trainer.max_steps=1", "hydra.run.dir=run").status == 0
    shares = [float((after / before).mean()) for before, after in zip(gaps(started(*words)),
                                                                     gaps(saved("run")["network"]))]
    assert shares == pytest.approx([1 - 0.02 * 0.5, 1], abs=1e-12)
