"""Anderson acceleration: the same fixed point, sooner, and each example for itself."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from networks import batch, distance, member, nudged, random_mlp, settle, stencil

from ebmrun.errors import RunError
from ebmrun.theory.anderson import MEMORY, Anderson
from ebmrun.theory.architectures import mlp
from ebmrun.theory.energies import Energy, Hopfield, Lifted, Predictive
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.network import Network
from ebmrun.theory.solver import Relaxed
from ebmrun.theory.stencil import Nudge


def iterate(step, start, count):
    """Where that many accelerated steps lead."""
    u, acceleration = start, Anderson()
    for _ in range(count):
        u = acceleration.propose(u, step(u))
    return u


def contraction(seed: int, units: int = 4, radius: float = 0.8):
    """x -> M x + c for states in two parts, with its fixed point; M is symmetric of that spectral radius."""
    draw = torch.Generator().manual_seed(seed)
    m = torch.randn(units, units, generator=draw, dtype=torch.float64)
    m = m + m.T
    m = m * (radius / torch.linalg.eigvalsh(m).abs().max())
    c = torch.randn(3, units, generator=draw, dtype=torch.float64)
    split = [1, units - 1]

    def step(parts):
        return list((torch.cat(parts, 1) @ m.T + c).split(split, 1))

    fixed = torch.linalg.solve(torch.eye(units, dtype=torch.float64) - m, c.T).T
    return step, fixed, [torch.zeros(3, n, dtype=torch.float64) for n in split]


def test_linear_iterations_of_as_many_units_as_it_remembers_are_solved():
    """Anderson acceleration is GMRES (Walker & Ni 2011), which solves n equations in n steps, here after a few plain
    ones; as many plain steps leave 0.8^8 = 0.17 of the slowest error."""
    for seed in range(3):
        step, fixed, start = contraction(seed, units=MEMORY)
        found = torch.cat(iterate(step, start, 8), 1)
        assert float((found - fixed).norm() / fixed.norm()) < 1e-10
        plain = start
        for _ in range(8):
            plain = step(plain)
        assert float((torch.cat(plain, 1) - fixed).norm() / fixed.norm()) > 1e-2


def test_a_fixed_point_stays():
    step, fixed, _ = contraction(0)
    u = iterate(step, list(fixed.split([1, 3], 1)), 12)
    torch.testing.assert_close(torch.cat(u, 1), fixed, rtol=0, atol=1e-13)


def test_it_shares_its_fixed_point_with_plain_sweeps_and_arrives_sooner():
    network = random_mlp()
    x, y = batch(network)
    plain, fast = (member(Hopfield(0.5), stencil("centered", 0.1), network, tol=1e-10, acceleration=a)
                   for a in ("none", "anderson"))
    for node, other in zip(settle(plain, network, x, y), settle(fast, network, x, y)):
        for state, same in zip(node, other):
            torch.testing.assert_close(state, same, rtol=0, atol=1e-8)
    slow, quick = plain.estimate(network, x, y), fast.estimate(network, x, y)
    assert slow.converged and quick.converged and quick.steps < slow.steps
    assert distance(quick.gradients, slow.gradients) < 1e-7


def test_an_example_takes_the_same_path_in_any_company():
    network = random_mlp()
    x, y = batch(network, 5)
    learning = member(Hopfield(), stencil("centered", 0.3), network, tol=0.0, max_steps=12, acceleration="anderson")
    together = settle(learning, network, x, y)
    for i in range(5):
        for node, all_of_them in zip(settle(learning, network, x[i : i + 1], y[i : i + 1]), together):
            for state, states in zip(node, all_of_them):
                torch.testing.assert_close(state, states[i : i + 1], rtol=0, atol=1e-9)


def test_an_iteration_that_it_cannot_speed_up_is_not_made_to_diverge():
    """x -> 0.9 |x| (1, -1) style kinks break the linear model: the safeguard must still reach the fixed point 0."""
    def step(parts):
        x = parts[0]
        return [0.9 * torch.stack([x[:, 1].abs() * x[:, 0].sign(), -x[:, 0].abs()], 1)]

    draw = torch.Generator().manual_seed(3)
    start = [torch.randn(8, 2, generator=draw, dtype=torch.float64)]
    end = iterate(step, start, 250)[0]
    assert float(end.norm() / start[0].norm()) < 1e-10


def drawn(seed: int) -> tuple[Network, Energy, Nudge, dict]:
    """A network of 1 to 10 layers with its energy, nudge, coordinates and tolerance, all drawn at random."""
    draw = random.Random(seed)
    hidden = [draw.randint(2, 16) for _ in range(draw.randint(0, 9))]
    activation = draw.choice(["hard_sigmoid", "tanh", "sigmoid", "relu"])
    energy = draw.choice([Predictive, Hopfield, Lifted])(draw.choice([0.3, 0.6, 1.0]))
    if energy.jumps:  # units that kinks hold are no part of the promise
        activation = "tanh"
    nudge = stencil(draw.choice(["one_sided", "centered", "fourth_order", "clamped"]), 10 ** draw.uniform(-4, 0))
    how = {"tol": 10 ** draw.uniform(-10, -2), "coordinates": draw.choice(["error", "state"]), "max_steps": 100}
    network = mlp((6,), 3, hidden, activation, "identity", draw.choice([1.0, math.sqrt(3)]))
    return initialise(network.double(), seed), energy, nudge, how


def races(seed: int) -> Iterator[tuple[Relaxed, Relaxed]]:
    """Plain and accelerated sweeps in each phase that plain ones bring to its tolerance; with strong feedback they may
    settle nowhere."""
    network, energy, nudge, how = drawn(seed)
    x, y = batch(network, 4, seed)

    def race(phase: Callable[[EnergyLearning], Relaxed | None]) -> Iterator[tuple[Relaxed, Relaxed]]:
        plain, fast = (member(energy, nudge, network, **how, acceleration=a) for a in ("none", "anderson"))
        slow = None
        with suppress(RunError):
            slow = phase(plain)
        if slow and slow.converged:
            yield slow, phase(fast)

    yield from race(lambda way: way.free_equilibrium(network, x)[1])
    free = settled = None
    with suppress(RunError):
        free, settled = member(energy, nudge, network, tol=1e-10, max_steps=200).free_equilibrium(network, x)
    if free and (settled is None or settled.converged):
        yield from race(lambda way: nudged(way, network, x, y, free)[0])


@torch.no_grad()
def test_it_costs_one_sweep_at_most_where_it_does_not_help():
    """On random networks, shallow and deep."""
    found = [(seed, slow, quick) for seed in range(60) for slow, quick in races(seed)]
    late = [f"seed {seed}: {quick.steps} steps, plain {slow.steps}" for seed, slow, quick in found
            if not quick.converged or quick.steps > slow.steps + 1]
    assert not late, late
    assert len(found) >= 60 and sum(q.steps for _, _, q in found) < sum(s.steps for _, s, _ in found)
