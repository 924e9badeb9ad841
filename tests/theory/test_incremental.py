"""Updates during relaxation: against plain loops, by the limits of a small and of no rate, and in a training."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from networks import (
    RESPONSES,
    backprop,
    batch,
    distance,
    drive,
    gradient_at,
    member,
    plain_relaxation,
    random_cnn,
    random_mlp,
    random_skip,
    slope,
    stencil,
)
from program import composed
from torch import Tensor

from ebmrun.errors import ConfigError
from ebmrun.experiment import build
from ebmrun.theory.architectures import mlp
from ebmrun.theory.cost import CrossEntropy, SquaredError
from ebmrun.theory.energies import Lifted, Predictive
from ebmrun.theory.incremental import IncrementalLearning
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.network import Network
from ebmrun.training import checkpoint
from ebmrun.training.distributed import Job
from ebmrun.training.run import trainer_of


def incremental(energy, nudge, network: Network, steps: int, order: str = "synchronous", size: float = 1.0,
                cost=SquaredError) -> IncrementalLearning:
    plain = member(energy, nudge, network, cost, coordinates="state", order=order, step_size=size, max_steps=steps)
    return IncrementalLearning(energy, nudge, plain.relaxation, plain.cost)


def descend(network: Network, gradients: list[Tensor], rate: float) -> None:
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter -= rate * gradient


def plainly(network: Network, energy, cost, x: Tensor, y: Tensor, strength: float, steps: int, size: float,
            rate: float) -> list[Tensor]:
    """States and weights side by side, all by autograd at one place: x <- x + size (respond(a, -dF/dx through the
    drives above) - x) and theta <- theta - rate dI/dtheta / lambda, the mean over the batch."""
    states, clamped = [], math.isinf(strength)
    for edges, f in zip(network.edges, network.activations):
        states.append(f(drive(edges, x, states)).detach())
    states[-1] = y if clamped else states[-1]
    for _ in range(steps):
        gradients = gradient_at(network, energy, x, states)
        aims = []
        for l, (edges, f) in enumerate(zip(network.edges, network.activations)):
            below = [s.detach().clone().requires_grad_() for s in states]
            others = sum(energy.value(states[m], drive(network.edges[m], x, below), network.activations[m]).sum()
                         for m in range(len(states)) if m != l)
            t = -torch.autograd.grad(others, below[l], allow_unused=True, materialize_grads=True)[0]
            if l == len(states) - 1 and not clamped:
                output = states[l].clone().requires_grad_()
                t = t - strength * torch.autograd.grad(cost.value(output, y).sum(), output)[0]
            aims.append(RESPONSES[type(energy)](f, drive(edges, x, states), t).detach())
        moved = [old + size * (aim - old) for aim, old in zip(aims, states)]
        states = [*moved[:-1], y] if clamped else moved
        descend(network, [g if clamped else g / strength for g in gradients], rate)
    return states


# ---- against plain loops

@pytest.mark.parametrize("net", [random_mlp, random_skip, random_cnn])
@pytest.mark.parametrize("energy, name, strength", [
    (Predictive(), "clamped", math.inf), (Predictive(), "single", 0.5), (Lifted(), "single", 0.5),
])
def test_weights_and_states_go_as_in_a_plain_loop(net, energy, name, strength):
    ours, theirs = net(), net()
    nudge = stencil(name, 1.0 if name == "clamped" else strength)
    learning = incremental(energy, nudge, ours, steps=5, size=0.3)
    for seed in (0, 1):  # two batches, each from the forward pass at the weights that the one before has left
        x, y = batch(ours, seed=seed)
        for estimate in learning.estimates(ours, x, y):
            descend(ours, estimate.gradients, 0.1)
        plainly(theirs, energy, learning.cost, x, y, strength, 5, 0.3, 0.1)
    left, begun = (list(each.parameters()) for each in (theirs, net()))
    assert distance(list(ours.parameters()), left) < 1e-12
    assert distance(begun, left) > 1e-2  # and they have moved


def test_a_nudge_of_several_nodes_is_the_weighted_sum_over_them():
    network = random_mlp()
    x, y = batch(network)
    both = list(incremental(Lifted(), stencil("centered", 0.2), network, 4, size=0.5).estimates(network, x, y))
    sides = []
    for strength in (0.2, -0.2):
        states = plain_relaxation(network, Lifted(), SquaredError(network.output), x, y, forward(network, x),
                                  strength, 3, "synchronous", 0.5)[0]
        sides.append(gradient_at(network, Lifted(), x, states))
    expected = [(up - down) / 0.4 for up, down in zip(*sides)]
    assert distance(both[-1].gradients, expected) < 1e-12


def forward(network: Network, x: Tensor) -> list[Tensor]:
    states: list[Tensor] = []
    with torch.no_grad():
        for edges, f in zip(network.edges, network.activations):
            states.append(f(drive(edges, x, states)))
    return states


# ---- limits

@pytest.mark.parametrize("net", [random_mlp, random_skip, random_cnn])
@pytest.mark.parametrize("name, strength", [("clamped", 1.0), ("single", 1e-3), ("single", 2.0)])
def test_the_first_sweep_is_backprop(net, name, strength):
    """Of a nudge, the output goes 1 / (1 + lambda) of the way: the squared error's own curvature."""
    network = net()
    x, y = batch(network)
    first = next(incremental(Predictive(), stencil(name, strength), network, 3, "sweep").estimates(network, x, y))
    share = 1.0 if name == "clamped" else 1 / (1 + strength)
    truth = [share * g for g in backprop(network, SquaredError(network.output), x, y)]
    assert distance(first.gradients, truth) < 1e-11


def test_without_updates_the_steps_are_those_of_the_relaxation():
    network = random_mlp()
    x, y = batch(network)
    learning = incremental(Predictive(), stencil("single", 0.5), network, 6, size=0.4)
    for count, estimate in enumerate(learning.estimates(network, x, y)):
        states, _ = plain_relaxation(network, Predictive(), learning.cost, x, y, forward(network, x), 0.5, count,
                                     "synchronous", 0.4) if count else (forward(network, x), 0.0)
        expected = [g / 0.5 for g in gradient_at(network, Predictive(), x, states)]
        assert estimate.steps == count + 1
        if count:  # at the forward pass there is no gradient
            assert distance(estimate.gradients, expected) < 1e-11


@pytest.mark.parametrize("order, size", [("synchronous", 0.3), ("sweep", 1.0), ("even_odd", 1.0)])
def test_without_updates_it_ends_where_the_relaxation_does(order, size):
    network = random_mlp()
    x, y = batch(network)
    learning = incremental(Predictive(), stencil("clamped"), network, 400, order, size)
    *_, last = learning.estimates(network, x, y)
    settled = member(Predictive(), stencil("clamped"), network, acceleration="auto").estimate(network, x, y)
    assert last.converged and settled.converged
    assert distance(last.gradients, settled.gradients) < 1e-9


@pytest.mark.parametrize("count, settles", [(3, False), (60, True)])
def test_the_residual_is_of_the_last_step_and_says_whether_it_settled(count, settles):
    """One layer of identity units goes x <- x + s (f - lambda (x - y) - x) from f, which leaves q = 1 - s (1 + lambda)
    of its way at each step: the last answer is (1 + lambda) q^(n-1) of that way off, after 1 - q^n of it."""
    network = initialise(mlp((4,), 3, [], "identity", "identity").double(), 1)
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    strength, size = 0.5, 0.4
    q = 1 - size * (1 + strength)
    learning = incremental(Predictive(), stencil("single", strength), network, count, "synchronous", size)
    *others, last = learning.estimates(network, x, y)
    assert all(each.residual is None and each.converged is None for each in others)
    assert last.residual == pytest.approx((1 + strength) * q ** (count - 1) / (1 - q**count), rel=1e-6)
    assert last.converged is settles


def test_it_tends_to_that_as_the_rate_falls():
    x, y = batch(random_mlp())
    learning = incremental(Predictive(), stencil("clamped"), random_mlp(), 5, size=0.5)
    *_, still = learning.estimates(random_mlp(), x, y)
    rates, found = (1e-2, 1e-3, 1e-4), []
    for rate in rates:
        network = random_mlp()
        for estimate in learning.estimates(network, x, y):
            descend(network, estimate.gradients, rate)
        found.append(distance(estimate.gradients, still.gradients))
    assert slope(found, rates) == pytest.approx(1, abs=0.1)


# ---- in a training

SMALL = ["algo=pc_incremental", "arch.hidden=[6]", "alignment.every=1", "trainer.log_every=1"]


def test_the_optimizer_moves_after_every_step_and_a_resumed_run_goes_on_bit_for_bit(command):
    settings = [*SMALL, "optim=adam", "optim.lr=1e-3", "relax.max_steps=3"]
    assert command(*settings, "trainer.max_steps=40", "hydra.run.dir=whole").status == 0
    assert command(*settings, "trainer.max_steps=30", "hydra.run.dir=parts").status == 0  # within the second epoch
    assert command(*settings, "trainer.max_steps=40", "hydra.run.dir=parts", "resume=true").status == 0
    whole, parts = (checkpoint.load(Path(name, "checkpoint.pt")) for name in ("whole", "parts"))
    assert all(torch.equal(whole["network"][key], parts["network"][key]) for key in whole["network"])
    assert {int(each["step"]) for each in whole["optimizer"]["state"].values()} == {3 * 40}


def test_what_is_compared_with_backprop_is_what_the_weights_moved_by(command):
    """By plain descent at one rate they move by -rate * steps * the mean gradient."""
    assert command(*SMALL, "optim.momentum=0", "optim.lr=0.05", "trainer.max_steps=1", "precision=float64",
                   "hydra.run.dir=run").status == 0
    cfg = composed(*SMALL, "precision=float64")
    parts = build(cfg)
    x, y, _ = next(iter(trainer_of(parts, cfg, Job()).batches_after(0)))
    truth = backprop(parts.network, parts.cost, x, y)
    after = checkpoint.load(Path("run/checkpoint.pt"))["network"]
    moved = math.sqrt(sum(float((p - after[name]).detach().square().sum())
                          for name, p in parts.network.named_parameters()))
    with open("run/metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    size = math.sqrt(sum(float(g.square().sum()) for g in truth))
    assert float(row["alignment/norm_ratio"]) == pytest.approx(moved / (0.05 * 8 * size), rel=1e-9)
    assert int(row["relax/steps"]) == 8


@pytest.mark.parametrize("overrides, said", [
    (["energy=hopfield"], ["trainer.update=each_step", "Hopfield", "energy=predictive"]),
    (["relax=frozen", "relax.step_size=1"], ["relax.frozen=True", "relax.frozen=False"]),
    (["relax.coordinates=error"], ["relax.coordinates=error", "relax.coordinates=state"]),
    (["relax.order=sweep", "relax.acceleration=anderson"], ["relax.acceleration=anderson"]),
    (["nudge=holomorphic", "arch.activation=tanh"], ["trainer.update=each_step", "nudge.points=4"]),
    (["algo=bp", "trainer.update=each_step"], ["trainer.update=each_step", "algo=bp"]),
    (["algo=rbp", "trainer.update=each_step"], ["trainer.update=each_step", "algo=rbp"]),
    (["trainer.update=now"], ["trainer.update=now", "at_equilibrium, each_step"]),
    (["trainer.compile=true"], ["trainer.compile=True", "trainer.compile=false"]),
])
def test_what_takes_no_steps_is_refused_in_one_line(overrides, said, monkeypatch):
    monkeypatch.setenv("CXX", "true")  # any program that is there
    with pytest.raises(Exception) as caught:
        build(composed("dataset=digits", "algo=pc_incremental", *overrides))
    error = caught.value if isinstance(caught.value, ConfigError) else caught.value.__cause__
    assert isinstance(error, ConfigError), caught.value
    assert all(word in str(error) for word in said) and "\n" not in str(error), error


def test_a_certificate_of_weights_that_stay_is_not_given_for_those_that_move(command, tmp_path):
    ended = command("algo=pc_incremental", "study=certify")
    assert ended.status == 2 and len(ended.lines) == 1 and "trainer.update=each_step" in ended.lines[0]
    assert not any(tmp_path.rglob("*"))


def test_it_takes_another_cost():
    """Cross-entropy on softmax units, nudged: the first sweep is backprop by a share that the cost's curvature of its
    own has none of."""
    network = random_mlp(output="softmax")
    x, y = batch(network)
    first = next(incremental(Predictive(), stencil("single", 1e-3), network, 2, "sweep", cost=CrossEntropy)
                 .estimates(network, x, y))
    assert distance(first.gradients, backprop(network, CrossEntropy(network.output), x, y)) < 1e-11
