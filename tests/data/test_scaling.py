"""Means and deviations against those of NumPy, whatever the pieces in which examples come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from own_files import write_npz
from program import Command

from ebmrun.data.config import DatasetConfig
from ebmrun.data.scaling import statistics
from ebmrun.data.sets import load
from ebmrun.data.stores import Memory, Store


class Pieces(Memory):
    """Examples that come three at a time."""

    def chunks(self):
        return self.stream(torch.arange(len(self)).split(3))


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("store", [Memory, Pieces])
def test_they_are_those_of_each_channel(kind: str, store: type[Memory]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 7, 6)) * [[[[1]], [[0.5]], [[0.1]]]]
    images = images.astype(kind)
    mean, deviation = statistics(store(torch.from_numpy(images)))
    exact = images.astype(float)
    np.testing.assert_allclose(mean[:, 0, 0], exact.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(deviation[:, 0, 0], exact.std((0, 2, 3)), rtol=1e-10)


def test_without_channels_they_are_those_of_all_values() -> None:
    values = np.random.default_rng(0).normal(3, 2, (50, 8))
    mean, deviation = statistics(Memory(torch.from_numpy(values)))
    assert (mean.item(), deviation.item()) == (pytest.approx(values.mean()), pytest.approx(values.std()))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e3])
def test_a_channel_of_one_value_has_no_deviation(value: float) -> None:
    store: Store = Memory(torch.full((100, 1, 9, 9), value, dtype=torch.float32))
    assert statistics(store)[1].item() == 0


def test_a_channel_of_one_value_is_refused(command: Command) -> None:
    grey = np.full((60, 6, 5, 3), 7, np.uint8)
    write_npz(Path("mine.npz"), train_images=grey)
    status, [line] = command("dataset=npz", "dataset.path=mine.npz", "dataset.normalise=standard")
    assert status == 2 and "has the same value everywhere: use dataset.normalise=range" in line


def test_standard_inputs_have_mean_zero_and_deviation_one(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "mine.npz")
    inputs = load(DatasetConfig("npz", path=str(path), normalise="standard"), torch.device("cpu"),
                  torch.float64).train.inputs
    torch.testing.assert_close(inputs.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(inputs.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64))
