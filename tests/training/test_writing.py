"""Weights as a machine writes them."""

import math
from pathlib import Path

import pytest
import torch
from program import Command, composed
from torch import Tensor, nn

from ebmrun.experiment import build
from ebmrun.theory.noise import Noise
from ebmrun.training import checkpoint
from ebmrun.training.optimizers import optimizer
from ebmrun.training.writing import Writing


def written(weights: Tensor, gradient: Tensor, steps: int = 1, seed: int = 0, **noise: float) -> Tensor:
    """Weights after steps of gradient descent at a rate of 0.1."""
    parameter = nn.Parameter(weights.clone())
    descent = torch.optim.SGD([parameter], lr=0.1)
    Writing(Noise(**noise), seed).watch(descent)
    for _ in range(steps):
        parameter.grad = gradient.clone()
        descent.step()
    return parameter.detach()


def test_steps_up_and_down_are_of_two_sizes() -> None:
    w, g = torch.zeros(3, dtype=torch.float64), torch.tensor([2.0, -2.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(written(w, g, asymmetry=0.1), torch.tensor([-0.18, 0.22, 0.0], dtype=torch.float64))
    torch.testing.assert_close(written(w, g, asymmetry=-0.5), torch.tensor([-0.3, 0.1, 0.0], dtype=torch.float64))


def test_written_weights_lie_on_levels_and_move_by_the_mean_of_their_steps() -> None:
    """A step of 0.01 is 0.07 of one of the grid of 4 bits, 1/7: of 20000 weights so many go on, give or take."""
    n, step = 20_000, 1 / 7
    found = written(torch.zeros(n, dtype=torch.float64), torch.full((n,), -0.1, dtype=torch.float64), weight_bits=4)
    assert set((found / step).tolist()) == {0.0, 1.0}
    assert float(found.mean()) == pytest.approx(0.01, abs=4.5 * step * math.sqrt(0.07 * 0.93 / n))
    assert torch.equal(written(found, torch.zeros_like(found), weight_bits=4), found)
    assert written(found, torch.full_like(found, -100), weight_bits=4).unique().tolist() == [1.0]  # saturated


def test_what_is_drawn_is_a_function_of_seed_and_step() -> None:
    w, g = torch.zeros(1000), torch.full((1000,), -0.1)
    assert torch.equal(written(w, g, 3, weight_bits=4), written(w, g, 3, weight_bits=4))
    assert not torch.equal(written(w, g, seed=1, weight_bits=4), written(w, g, weight_bits=4))
    one = written(w, g, weight_bits=4)
    assert not torch.equal(one > 0, (written(w, g, 2, weight_bits=4) - one) > 0)


def test_every_weight_of_a_run_is_one_that_the_machine_holds(command: Command) -> None:
    settings = ("algo=bp", "arch.hidden=[6]", "trainer.max_steps=3", "noise.weight_bits=6", "alignment.every=0")
    assert command(*settings, "hydra.run.dir=run").status == 0
    first, last = build(composed(*settings)).network.state_dict(), checkpoint.load(Path("run/checkpoint.pt"))["network"]
    for weights in (first, last):
        for weight in weights.values():
            assert torch.equal((weight * 31).round() / 31, weight)


@pytest.mark.parametrize("words", [
    ("algo=ep_centered", "noise=analog", "relax.max_steps=4"),
    ("algo=lifted", "noise=analog", "relax.max_steps=3", "optim=adam"),
], ids=lambda words: words[0])
def test_a_run_that_was_stopped_goes_on_as_it_would_have(command: Command, words: tuple[str, ...]) -> None:
    settings = (*words, "arch.hidden=[6]", "alignment.every=0", "device=cpu", "trainer.batch_size=400")
    for last, more in ((6, ["hydra.run.dir=whole"]), (3, ["hydra.run.dir=parted"]), (6, ["resume=parted"])):
        assert command(*settings, f"trainer.max_steps={last}", *more).status == 0
    whole, parted = (checkpoint.load(Path(name, "checkpoint.pt"))["network"] for name in ("whole", "parted"))
    assert all(torch.equal(whole[key], parted[key]) for key in whole)


def test_the_mismatch_of_the_two_directions_stays_through_training(command: Command) -> None:
    settings = ("algo=pc", "arch.hidden=[30]", "trainer.max_steps=20", "noise.mismatch=0.2", "alignment.every=0")
    assert command(*settings, "hydra.run.dir=run").status == 0
    network = build(composed(*settings)).network
    [output] = network.untied[1]  # the only map that messages pass
    begin = output.weight.detach().clone()
    ratio = output.down["weight"] / begin
    assert float((ratio - 1).std()) == pytest.approx(0.2, rel=4.5 / math.sqrt(2 * 300))
    network.load_state_dict(checkpoint.load(Path("run/checkpoint.pt"))["network"])
    assert float((output.weight - begin).abs().max()) > 1e-3
    torch.testing.assert_close(output.down["weight"], ratio * output.weight)


def test_an_optimizer_without_faults_is_left_alone() -> None:
    cfg = composed("algo=pc", "arch.hidden=[4]", "noise.readings=0.1")
    plain = optimizer(cfg, build(cfg).network)
    assert not plain._optimizer_step_pre_hooks and not plain._optimizer_step_post_hooks


def test_weights_of_which_no_bit_is_left_are_warned_of(command: Command) -> None:
    """Of 64 inputs, weights lie within 1/8; the levels of two bits are -1, 0 and 1."""
    ended = command("arch.hidden=[4]", "noise.weight_bits=2", "trainer.max_steps=1", "hydra.run.dir=run")
    assert ended.status == 0
    assert any("noise.weight_bits=2" in line and "noise.weight_range" in line for line in ended.lines), ended.lines


@pytest.mark.parametrize("words, said", [
    (["noise.readings=-1"], ["noise.readings=-1", "0 or more"]),
    (["noise.states=inf"], ["noise.states=inf", "1e-3"]),
    (["noise.mismatch=-0.1"], ["noise.mismatch=-0.1"]),
    (["noise.reading_bits=1"], ["noise.reading_bits=1", "2..24", "null"]),
    (["noise.weight_bits=30"], ["noise.weight_bits=30", "2..24"]),
    (["noise.reading_range=0"], ["noise.reading_range=0"]),
    (["noise.asymmetry=1"], ["noise.asymmetry=1", "between -1 and 1"]),
    (["noise.weight_bits=8", "noise.weight_range=0.01"], ["noise.weight_range=0.01", "largest initial weight"]),
    (["algo=bp", "noise=analog"], ["noise.states=0.001", "algo=bp", "weight_bits"]),
    (["algo=rbp", "noise.reading_bits=8"], ["noise.reading_bits=8", "algo=rbp"]),
    (["noise=analog", "relax=conjugate"], ["noise.states=0.001", "relax.acceleration=conjugate"]),
    (["algo=ep", "noise.messages=0.1", "relax=anderson"], ["noise.messages=0.1", "relax.acceleration=anderson"]),
    (["feedback=random", "noise.mismatch=0.1"], ["noise.mismatch=0.1", "feedback=tied"]),
])
def test_noise_that_cannot_be_is_refused_in_one_line(command: Command, words: list[str], said: list[str]) -> None:
    ended = command("arch.hidden=[4]", *words)
    assert ended.status == 2 and len(ended.lines) == 1 and all(word in ended.lines[0] for word in said), ended.lines
    assert not list(Path().iterdir())
