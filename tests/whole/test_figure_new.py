"""What results/new and results/incremental are measured and written by."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from program import composed

from ebmrun.experiment import build
from ebmrun.theory.activations import activation
from ebmrun.theory.energies import contract

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def scripts() -> Iterator[None]:
    sys.path.insert(0, str(ROOT / "scripts"))
    yield
    sys.path.remove(str(ROOT / "scripts"))


@pytest.mark.parametrize("angle", [1e-10, 1e-3, 2.0])
def test_small_angles_are_not_rounded_away(angle: float) -> None:
    from figure_new import compared

    truth = [torch.tensor([[3.0, 0.0]], dtype=torch.float64)]
    found = [1.5 * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)]
    error, turned = compared([2 * g for g in found], truth)
    assert turned == pytest.approx(angle, rel=1e-6)
    assert error == pytest.approx(2 * math.sin(angle / 2), rel=1e-6)  # of vectors of one length


def test_a_reading_without_noise_is_the_estimate() -> None:
    import figure_new

    built = build(composed("dataset=digits", "algo=dual_propagation", "arch.hidden=[6]", "precision=float64"))
    x, y = built.dataset.train.inputs[:20], built.dataset.train.targets[:20]
    truth = built.algorithm.estimate(built.network, x, y).gradients
    far = {}
    for size, gradients in figure_new.noisy(built.algorithm, built.network, x, y):
        far.setdefault(size, []).append(figure_new.compared(gradients, truth)[0])
    assert sorted(far) == sorted(figure_new.NOISES) and {len(each) for each in far.values()} == {figure_new.DRAWS}
    small, large = (sum(far[size]) for size in (1e-4, 1e-2))
    assert large == pytest.approx(100 * small, rel=1e-6)  # the rule is linear in what is read


def test_the_energies_that_were_tried_are_energies() -> None:
    from new_energies import Mixed, Natural

    for energy in (Natural(), Mixed()):
        contract.require_consistent(energy, {"tanh": activation("tanh")})


def test_a_command_names_what_it_took_away(tmp_path: Path) -> None:
    from records import command

    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["algo=bp", "~optim.momentum"]))
    (tmp_path / "summary.json").write_text("{}")
    assert command(tmp_path) == "ebmrun algo=bp '~optim.momentum'"
