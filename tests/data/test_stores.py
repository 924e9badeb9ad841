"""Stores: the same examples wherever they are kept, read ahead of their use."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from own_files import arrays, write_folder, write_npz
from torch import Tensor

from ebmrun.data import arrays as reader
from ebmrun.data import image_folder
from ebmrun.data.config import DatasetConfig
from ebmrun.data.stores import AHEAD, Rows, Store
from ebmrun.errors import RunError

PIXELS = torch.from_numpy(np.moveaxis(arrays()["train_images"], 3, 1))


@pytest.fixture(params=["npz", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The training images on the disk, in the order of their labels."""
    if request.param == "npz":
        order = np.argsort(arrays()["train_labels"][:, 0], kind="stable")
        path = write_npz(tmp_path / "mine.npz", train_images=arrays()["train_images"][order])
        return reader.read(DatasetConfig("npz", path=str(path))).train.store
    root = write_folder(tmp_path / "mine", arrays())
    return image_folder.read(DatasetConfig("folder", path=str(root))).train.store


def test_every_way_to_the_examples_is_the_same(store: Store) -> None:
    sorted_pixels = PIXELS[torch.arange(60).reshape(20, 3).T.flatten()]
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).split(7)
    assert (len(store), store.shape, store.dtype) == (60, (3, 6, 5), torch.uint8)
    for index, batch in zip(order, store.stream(order), strict=True):
        assert torch.equal(batch, sorted_pixels[index]) and torch.equal(store.take(index), batch)
    some = torch.tensor([50, 3, 17])
    assert torch.equal(store.subset(some).take(torch.tensor([2, 0])), sorted_pixels[[17, 50]])
    assert torch.equal(torch.cat(list(store.chunks())), sorted_pixels)


class Watched(Rows):
    """Notes what has been read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def take(self, index: Tensor) -> Tensor:
        self.read.append(int(index))
        return index


def test_the_next_batches_are_read_while_one_is_used() -> None:
    store = Watched()
    batches = store.stream(torch.arange(6).split(1))
    assert next(batches) == 0
    end = time.monotonic() + 10
    while len(store.read) < 1 + AHEAD and time.monotonic() < end:
        time.sleep(0.01)
    assert store.read == list(range(1 + AHEAD))  # no more than these wait in memory
    assert [int(each) for each in batches] == [1, 2, 3, 4, 5]


def test_a_file_that_is_cut_while_it_is_read_ends_in_its_name(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "mine.npz")
    store = reader.read(DatasetConfig("npz", path=str(path))).train.store
    with path.open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(RunError, match="mine.npz was cut while it was read"):
        list(store.chunks())
