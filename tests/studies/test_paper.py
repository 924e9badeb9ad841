"""The study of the paper's figures: against the energy minimised by autograd, and against the committed tables."""

import csv
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from program import composed

from ebmrun.experiment import build
from ebmrun.studies.paper.inference import Inference, Mode, Scene, distance
from ebmrun.studies.paper.study import by_strength
from ebmrun.theory.architectures import mlp
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.energies import Predictive
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.learning import EnergyLearning
from ebmrun.theory.relaxing import Relaxation
from ebmrun.theory.stencil import Nudge

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "paper"
SWEEPS = Mode(torch.float64, Relaxation(step_size=0.5, tol=1e-12, max_steps=2000))
FLOW = Mode(torch.float64, Relaxation("synchronous", "state", step_size=0.1, tol=0.0, max_steps=400))


def scene() -> Scene:
    draw = torch.Generator().manual_seed(3)
    network = initialise(mlp([6], 3, [5, 4], "tanh", "identity"), 0).double()
    x = torch.randn(1, 6, generator=draw, dtype=torch.float64)
    return Scene(network, x, torch.eye(3, dtype=torch.float64)[:1])


def learning(nudge: Nudge | None = None) -> EnergyLearning:
    nudge = nudge or Nudge()
    return EnergyLearning(Predictive(), nudge, Relaxation(), SquaredError(scene().network.output))


def minimised(of: Scene, strength: float) -> tuple[list[torch.Tensor], list[torch.Tensor], float]:
    """States that minimise F, the gradient of F there over the strength, and F, all by autograd."""
    first, second, last = (affine for ((_, affine),) in of.network.edges)
    x1 = torch.tanh(first(of.x)).detach()
    states = [x1.requires_grad_(), torch.tanh(second(x1)).detach().requires_grad_()]

    def total() -> torch.Tensor:
        x1, x2 = states
        error = (x1 - torch.tanh(first(of.x))).square().sum() + (x2 - torch.tanh(second(x1))).square().sum()
        return error / 2 + strength * (last(x2) - of.y).square().sum() / 2

    optimizer = torch.optim.LBFGS(states, max_iter=500, tolerance_grad=1e-13, tolerance_change=0, history_size=20,
                                  line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = total()
        value.backward()
        return value

    optimizer.step(closure)
    gradients = torch.autograd.grad(total(), list(of.network.parameters()))
    return [s.detach() for s in states], [g / strength for g in gradients], total().item()


@pytest.mark.parametrize("mode", [SWEEPS, FLOW], ids=["sweeps", "flow"])
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_inference_ends_where_autograd_finds_the_minimum(mode: Mode, strength: float) -> None:
    states, gradients, total = minimised(scene(), strength)
    with torch.no_grad():
        inference = Inference.of(learning(), scene(), mode, strength)
        reached, read, _ = inference.equilibrium()
        assert distance(reached, states) < 1e-14 * strength**2
        assert distance(read, gradients) < 1e-12
        assert math.isclose(inference.energies(reached)["total"], total, rel_tol=1e-9)


@pytest.mark.parametrize("nudge, published", [
    (Nudge(strength=0.25), 0.2),
    (Nudge([math.inf, 0.0], [1.0, -1.0]), 1.0),
], ids=["nudged", "clamped"])
def test_an_output_with_a_state_is_the_same_model_at_another_strength(nudge: Nudge, published: float) -> None:
    """mu = lambda / (1 - lambda), and lambda = 1 is clamping: I'(mu) is the same, divided by its own strength."""
    strength = 1.0 if nudge.clamps else nudge.strength
    own = EnergyLearning(Predictive(), nudge, SWEEPS.relaxation, SquaredError(scene().network.output))
    stated = own.estimate(scene().network, scene().x, scene().y).gradients
    with torch.no_grad():
        _, stateless, _ = Inference.of(learning(), scene(), SWEEPS, published).equilibrium()
    assert distance([g * strength for g in stated], [g * published for g in stateless]) < 1e-18


def test_gradient_flow_lowers_the_energy_at_every_step() -> None:
    with torch.no_grad():
        steps = list(Inference.of(learning(), scene(), FLOW, 1.0).trajectory([torch.zeros(1)] * 6, 30))
    totals = [row["total"] for row in steps]
    assert steps[0]["internal"] == 0.0
    assert all(after < before for before, after in pairwise(totals))
    assert all(math.isclose(row["total"], row["internal"] + row["loss"]) for row in steps)


def test_a_scene_is_drawn_from_its_seed_alone() -> None:
    parts = build(composed("trainer.batch_size=8"))
    first, again, other = (Scene.drawn(parts, seed) for seed in (1, 1, 2))
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, other.x)
    weights = [next(each.network.parameters()) for each in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_the_committed_distances_are_rebuilt(mnist_root: Path, strength: float) -> None:
    """F2 and F3 of one initialisation: converged to 1e-6 of themselves, in float32 to a hundredth."""
    overrides = yaml.safe_load((RESULTS / "overrides.yaml").read_text())
    cfg = composed(*overrides, f"dataset.root={mnist_root}")
    [row] = by_strength(cfg, build(cfg), [3], [strength])
    with (RESULTS / "strengths.csv").open(newline="") as file:
        [committed] = [r for r in csv.DictReader(file) if (r["seed"], float(r["strength"])) == ("3", strength)]
    assert float(committed["converged/residual"]) <= 1e-10
    for key in ("equilibrium", "gradient"):
        assert math.isclose(row[f"converged/{key}"], float(committed[f"converged/{key}"]), rel_tol=1e-6)
        assert math.isclose(row[f"as_published/{key}"], float(committed[f"as_published/{key}"]), rel_tol=1e-2)
