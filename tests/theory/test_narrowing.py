"""Examples that leave a relaxation early: each has an equilibrium of its own, which the others do not move."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from networks import NETWORKS, batch, distance, member, random_cnn, random_diamond, random_mlp, stencil
from torch import Tensor

from ebmrun.theory import narrowing
from ebmrun.theory.affine import Linear, Winners
from ebmrun.theory.analog import AnalogLearning
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.energies import Hopfield, Lifted, Predictive
from ebmrun.theory.joint import JointLearning
from ebmrun.theory.network import Network
from ebmrun.theory.noise import Noise
from ebmrun.theory.relaxation import steps
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.residual import residual
from ebmrun.theory.solver import Relaxed, relax

ENERGIES = {"predictive": Predictive, "hopfield": Hopfield, "lifted": Lifted}
WAYS = {
    "sweeps": {},
    "states": {"coordinates": "state", "tol": 1e-6},  # which leave a displacement fewer digits
    "synchronous": {"order": "synchronous", "step_size": 0.5},
    "two colours": {"order": "even_odd"},
    "adaptive": {"acceleration": "adaptive", "step_size": 1.1},
    "conjugate": {"acceleration": "conjugate"},
    "auto": {"acceleration": "auto"},
    "anderson": {"acceleration": "anderson"},
}


@pytest.fixture
def partings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows went on, each time that others left: here it is always worth it."""
    met: list[int] = []
    taken = narrowing.free_of

    def noted(rows, free):
        met.append(len(rows))
        return taken(rows, free)

    monkeypatch.setattr(narrowing, "WORTH", 1)
    monkeypatch.setattr(narrowing, "free_of", noted)
    return met


def uneven(learning, network: Network, examples: int = 6) -> tuple[Tensor, Tensor]:
    """A batch most of whose targets are next to the free outputs: those examples have little to move."""
    x, y = batch(network, examples)
    near = torch.tensor([1e-5, 1.0, 1e-4, 1e-5, 1e-3, 1e-5], dtype=x.dtype).repeat(examples // 6)[:, None]
    return x, torch.lerp(learning.predict(network, x).output, y, near)


def alone(learning, network: Network, x: Tensor, y: Tensor) -> list[Tensor]:
    """The mean of the gradients of each example as a batch of its own, of which nobody can leave."""
    each = [learning.estimate(network, a, b).gradients for a, b in zip(x.split(1), y.split(1))]
    return [torch.stack(parts).mean(0) for parts in zip(*each)]


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("name, way", [*(("mlp", way) for way in WAYS),
                                       *((name, way) for name in NETWORKS for way in ("auto",))])
def test_a_batch_is_the_mean_of_its_examples(name, way, energy, partings):
    network = NETWORKS[name](activation="sigmoid")
    nudge = stencil("centered" if energy == "hopfield" else "single", 0.05)
    learning = member(ENERGIES[energy](), nudge, network, **{"tol": 1e-9} | WAYS[way])
    x, y = uneven(learning, network)
    found = learning.estimate(network, x, y)
    assert found.converged
    # What is left of the displacements, and of a free phase beside them, over the nudge.
    near = learning.relaxation.tol / 0.05 * 50
    assert distance(found.gradients, alone(learning, network, x, y)) < near
    # From sweeps examples leave, and from conjugate directions of an energy that has to settle.
    if way in ("sweeps", "states", "adaptive") or (way in ("conjugate", "auto") and energy == "hopfield"):
        assert partings
    if way in ("synchronous", "two colours", "anderson"):
        assert not partings


@pytest.mark.parametrize("activation", ["relu", "hard_sigmoid"])
@pytest.mark.parametrize("energy", [Predictive, Lifted])
@pytest.mark.parametrize("draw", [random_mlp, random_cnn, random_diamond])
def test_units_on_kinks_and_winners_that_tie(draw, energy, activation, partings):
    """They go on from the feedback and the shares that they had."""
    network = draw(activation=activation)
    learning = member(energy(), stencil("single", 0.1), network, tol=1e-8, max_steps=3000)
    x, y = uneven(learning, network)
    found = learning.estimate(network, x, y)
    assert found.converged and partings
    assert distance(found.gradients, alone(learning, network, x, y)) < 1e-6


def said_and_measured(learning, network: Network, x: Tensor, y: Tensor) -> tuple[Relaxed, float]:
    """How a nudged phase ends, and what its last step has to go, measured as if nobody had left."""
    with torch.no_grad():
        space, pull = learning.around(network, learning.free_equilibrium(network, x)[0], y)
        phase = relax(space, pull, learning.relaxation, learning.relaxation.max_steps)
        return phase, residual(space, phase.last, pull).residual


@pytest.mark.parametrize("energy", ENERGIES)
def test_the_residual_is_that_of_all_examples(energy, partings):
    network = random_mlp()
    learning = member(ENERGIES[energy](), stencil("centered", 0.05), network, tol=1e-6)
    phase, measured = said_and_measured(learning, network, *uneven(learning, network))
    assert partings and phase.converged
    assert phase.residual == pytest.approx(measured, rel=1e-6)


def test_squares_that_float32_has_no_place_for(partings):
    """Displacements of 1e-20, whose squares are 0 there."""
    network = random_mlp().float()
    learning = member(Hopfield(), stencil("centered", 1e-20), network, tol=1e-5)
    x, y = (part.float() for part in batch(network.double(), 6))
    network.float()
    near = torch.tensor([1e-3, 1.0, 1e-2, 1e-3, 1e-2, 1e-3])[:, None]
    phase, measured = said_and_measured(learning, network, x, torch.lerp(learning.predict(network, x).output, y, near))
    assert partings and phase.converged
    assert phase.residual == pytest.approx(measured, rel=1e-3)


@pytest.mark.parametrize("max_steps", range(5, 15))
def test_a_relaxation_may_end_at_any_step(max_steps, partings):
    """Also on the one with which conjugate gradients begin, at which no unit is asked whether a kink holds it."""
    network = random_mlp(activation="relu")
    x, y = batch(network)
    learning = member(Predictive(), stencil("single", 0.5), network, tol=1e-9, max_steps=max_steps,
                      acceleration="adaptive", step_size=1.1)
    near = torch.tensor([1e-7, 1e-6, 1e-6, 1e-7, 3, 1], dtype=x.dtype)[:, None]
    phase, measured = said_and_measured(learning, network, x, torch.lerp(learning.predict(network, x).output, y, near))
    assert phase.residual == pytest.approx(measured, rel=1e-6)


def test_who_left_comes_back_where_the_way_shrinks_and_nobody_leaves_before_all_layers_move(partings):
    network = random_mlp()
    learning = member(Hopfield(), stencil("centered", 0.05), network)
    x, y = uneven(learning, network)
    with torch.no_grad():
        space, pull = learning.around(network, learning.free_equilibrium(network, x)[0], y)
        step = list(islice(steps(space, pull, "sweep", 1.0), 8))[-1]
        left, crowd, depth = residual(space, step, pull), narrowing.Narrowing(space, pull), network.depth
        tol = 100 * left.residual  # which all have met, by far
        unmoved = left._replace(norms=[0.0 if i == depth else norm for i, norm in enumerate(left.norms)],
                                parts=[torch.zeros_like(left.parts[0]), *left.parts[1:]])
        assert crowd.parted(space, pull, step, unmoved, left.residual) is None
        there, pulled, few = crowd.parted(space, pull, step, left, left.residual)
        assert len(few.moved[0]) < len(step.moved[0])
        left = residual(there, few, pulled, crowd.norms)
        assert crowd.parted(there, pulled, few, left, tol) is None
        shrunk = left._replace(norms=[*left.norms[:depth], *(gap for gap in crowd.norms[:depth])])
        again, everyone, whole = crowd.parted(there, pulled, few, shrunk, left.residual)
    assert again is space and everyone is pull
    torch.testing.assert_close(whole.moved, step.moved)
    assert crowd.parted(space, pull, step, residual(space, step, pull), left.residual) is None


def test_steps_are_of_those_that_have_not_settled(partings, monkeypatch):
    """The products of a relaxation grow with the examples that are there: half of 12 rows, and then fewer, leave."""
    network = random_mlp()
    learning = member(Hopfield(), stencil("centered", 0.05), network, tol=1e-9)
    x, y = uneven(learning, network, 12)
    rows = [0]
    linear = Linear.linear

    def counted(self, dx):
        rows[0] += len(dx)
        return linear(self, dx)

    monkeypatch.setattr(Linear, "linear", counted)
    learning.estimate(network, x, y)
    few, rows[0] = rows[0], 0
    monkeypatch.setattr(narrowing, "WORTH", math.inf)
    learning.estimate(network, x, y)
    assert 0 < few < 0.8 * rows[0]


@pytest.mark.parametrize("which", ["joint", "noisy"])
def test_rows_that_are_not_alone_stay(which, partings):
    """Joint nodes hear each other, and noise is drawn for the batch as a whole."""
    network, nudge = random_mlp(), stencil("centered", 0.8)
    cost = SquaredError(network.output)
    if which == "joint":
        learning = JointLearning(Lifted(), nudge, Relaxation(tol=1e-9, max_steps=60), cost)
    else:
        how = Relaxation(tol=1e-9, max_steps=60, coordinates="state")
        learning = AnalogLearning(Predictive(), nudge, how, cost, noise=Noise(states=1e-12))
    learning.estimate(network, *uneven(learning, network))
    assert not partings


def pieces(draw: torch.Generator) -> Winners:
    """Random winners of 2 by 2 squares in 5 images of 2 channels and 4 by 4 numbers, some of which share."""
    places = torch.randint(16, (5, 2, 2, 2), generator=draw)
    ties = torch.randperm(places.numel(), generator=draw)[:13].sort().values
    return Winners(places, torch.randn(5, 2, 4, 4, generator=draw), ties, torch.rand(13, 4, generator=draw))


def same(a: Winners, b: Winners) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_some_rows(seed):
    draw = torch.Generator().manual_seed(seed)
    piece, other = pieces(draw), pieces(draw)
    rows = torch.randperm(5, generator=draw)[:3].sort().values
    some = piece.take(rows)
    for place, row in enumerate(rows):
        assert same(some.take(torch.tensor([place])), piece.take(row[None]))
        shares = dict(zip(piece.ties.tolist(), piece.shares.tolist()))
        mine = {tie - 8 * int(row): share for tie, share in shares.items() if tie // 8 == row}  # 8 squares an image
        assert dict(zip(piece.take(row[None]).ties.tolist(), piece.take(row[None]).shares.tolist())) == mine
    assert same(piece.put(rows, some), piece)
    others = torch.tensor([row for row in range(5) if row not in rows])
    both = piece.put(rows, other.take(rows))
    assert same(both.take(rows), other.take(rows))
    assert same(both.take(others), piece.take(others))
    untied = replaced_ties(piece)
    assert untied.put(rows, replaced_ties(other).take(rows)).ties is None
    assert same(untied.put(rows, other.take(rows)).take(rows), other.take(rows))


def replaced_ties(piece: Winners) -> Winners:
    return Winners(piece.places, piece.image)
