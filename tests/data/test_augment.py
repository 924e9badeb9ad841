"""Augmentation against torchvision's own padding and cropping, and as a function of seed, epoch and example alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_files import arrays, write_npz
from program import Command, composed
from run_folder import same_weights, timeless
from torch import Tensor
from torch.nn import functional as F

from ebmrun.data.augment import CropFlip, Unchanged, draws
from ebmrun.data.sets import batches
from ebmrun.experiment import build
from ebmrun.training.distributed import Job
from ebmrun.training.run import trainer_of

MODES = {"zeros": "constant", "edge": "replicate", "reflection": "reflect"}
IMAGES = torch.randn(40, 3, 6, 9, generator=torch.Generator().manual_seed(0))
NONE = torch.zeros(3, 1, 1)


def cropped(x: Tensor, u: Tensor, padding: int, border: str, flip: bool) -> Iterator[Tensor]:
    """One image after another, cut from a padded copy and then mirrored, as the field's recipes do it."""
    for image, numbers in zip(x, u):
        top, left = (int(number * (2 * padding + 1)) for number in numbers[:2])
        padded = F.pad(image[None], [padding] * 4, MODES[border])[0]
        cut = padded[:, top : top + x.shape[2], left : left + x.shape[3]]
        yield cut.flip(2) if flip and numbers[2] < 0.5 else cut


@pytest.mark.parametrize("border", MODES)
@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("flip", [True, False])
def test_it_is_a_crop_of_the_padded_image(border: str, padding: int, flip: bool) -> None:
    u = draws(0, 0, 40, 3)
    found = CropFlip(padding, border, flip)(IMAGES, u, NONE)
    assert torch.equal(found, torch.stack(list(cropped(IMAGES, u, padding, border, flip))))


def test_zeros_are_pixels_without_light_whatever_they_have_become() -> None:
    """Padding bytes by 0 and then scaling them is to be the same as scaling them first."""
    pixels = torch.randint(256, (40, 3, 6, 9), generator=torch.Generator().manual_seed(0)).double()
    mean, deviation, u = torch.rand(3, 1, 1).double() * 255, 1 + 100 * torch.rand(3, 1, 1).double(), draws(1, 0, 40, 3)
    augment = CropFlip(4, "zeros", True)
    scaled_last = (augment(pixels, u, NONE.double()) - mean) / deviation
    assert torch.equal(augment((pixels - mean) / deviation, u, -mean / deviation), scaled_last)


def test_the_numbers_of_an_example_are_its_own() -> None:
    """The same in every batch and whatever follows, others in every epoch and for every seed."""
    augment, u = CropFlip(2, "edge", True), draws(3, 5, 40, 3)
    whole = augment(IMAGES, u, NONE)
    for index in batches(40, 7, 0, 0):
        assert torch.equal(augment(IMAGES[index], u[index], NONE), whole[index])
    assert torch.equal(draws(3, 5, 100000, 3)[:40], u)
    for other in (draws(3, 6, 40, 3), draws(4, 5, 40, 3)):
        assert not (other == u).any()


def test_every_move_and_mirroring_is_equally_likely() -> None:
    """Of 9 x 9 x 2 ways, each comes 1000 times in 162000 on average; six binomial deviations are 189."""
    padding, count = 4, 162000
    marks = torch.zeros(count, 1, 9, 9)
    marks[:, 0, 4, 3], marks[:, 0, 4, 4] = 1, 2  # a pixel in the middle, and its left neighbour
    moved = CropFlip(padding, "edge", True)(marks, draws(0, 0, count, 3), torch.zeros(1, 1, 1)).flatten(1)
    place, neighbour = (moved == 2).double().argmax(1), (moved == 1).double().argmax(1)
    seen = (moved == 2).any(1) & (moved == 1).any(1)
    ways = torch.stack([place[seen], (neighbour < place)[seen].long()])
    counts = ways.unique(dim=1, return_counts=True)[1]
    assert len(counts) == 9 * 8 * 2  # the neighbour leaves the picture in one column of nine
    assert (counts - 1000).abs().max() < 189


# In a run


CROP = ("augment=crop_flip", "augment.padding=2", "trainer.log_every=1", "device=cpu", "trainer.batch_size=16")


def seen(*overrides: str, done: int = 0) -> list[Tensor]:
    """The images of the batches that a run would train on."""
    cfg = composed(*CROP, *overrides)
    return [x for x, *_ in trainer_of(build(cfg), cfg, Job()).batches_after(done)]


@pytest.fixture
def mine(tmp_path: Path) -> list[str]:
    return ["dataset=npz", f"dataset.path={write_npz(tmp_path / 'mine.npz')}", "trainer.epochs=2"]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(map(torch.equal, one, other))


def test_a_run_trains_on_the_augmented_images_of_its_batches(mine: list[str]) -> None:
    found, numbers = seen(*mine), [draws(0, epoch, 60, 3) for epoch in range(2)]
    pixels = torch.from_numpy(np.moveaxis(arrays()["train_images"], 3, 1).astype("float32"))
    order = [(epoch, index) for epoch in range(2) for index in batches(60, 16, 0, epoch)]
    assert len(found) == len(order) == 8
    for x, (epoch, index) in zip(found, order):
        expected = torch.stack(list(cropped(pixels[index], numbers[epoch][index], 2, "zeros", True)))
        torch.testing.assert_close((x + 1) * 127.5, expected, rtol=0, atol=1e-4)


def test_every_algorithm_of_a_seed_sees_the_same_images_from_any_step(mine: list[str]) -> None:
    found = seen(*mine, "algo=bp")
    for algo in ("pc", "ep_centered"):
        assert same(found, seen(*mine, f"algo={algo}"))
    assert same(found[3:], seen(*mine, "algo=bp", done=3))
    assert same(found, seen(*mine, "algo=bp", "dataset.in_memory=false"))
    assert not same(found, seen(*mine, "algo=bp", "seed=1"))
    assert not same(found[:4], found[4:])


def test_a_resumed_run_is_augmented_on(command: Command) -> None:
    settings = ("dataset.limit=100", "trainer.epochs=3", *CROP)
    assert command(*settings, "hydra.run.dir=whole") == (0, [])
    assert command(*settings, "trainer.max_steps=10", "hydra.run.dir=parts") == (0, [])
    assert command(*settings, "resume=parts") == (0, [])
    assert same_weights("whole", "parts")
    rows = [[row for row in timeless(name) if row["step"] != "10"] for name in ("whole", "parts")]
    assert rows[0] == rows[1]


def test_nothing_is_the_default() -> None:
    assert isinstance(build(composed()).augment, Unchanged)


TABULAR = """
import numpy as np
from own_files import arrays

def load():
    return arrays((7,))
"""


@pytest.mark.parametrize("overrides, words", [
    (["dataset._target_=tabular.load"], ["augment=crop_flip", "shape (7,)", "use augment=none"]),
    (["augment.padding=8"], ["augment.padding=8 moves images of 8x8 pixels out of sight: use 7 or less"]),
    (["augment.padding=-1"], ["augment.padding=-1 must be an integer of 0 or more"]),
    (["augment.border=black"], ["augment.border=black is unknown: choose one of zeros, edge, reflection"]),
    (["augment.flip=maybe"], ["augment.flip=maybe must be true or false"]),
    (["augment._target_=ebmrun.theory.energies.Predictive", "~augment.padding", "~augment.border", "~augment.flip",
      "+augment.feedback_gain=1"], ["is no Augmentation"]),
])
@pytest.mark.usefixtures("untyped")
def test_what_cannot_be_augmented_ends_in_one_line(command: Command, overrides: list[str], words: list[str]) -> None:
    Path("tabular.py").write_text(TABULAR)
    before: Any = set(Path().rglob("*"))
    status, lines = command("augment=crop_flip", *overrides)
    assert status == 2 and len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines
    assert {path for path in Path().rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"} == before
