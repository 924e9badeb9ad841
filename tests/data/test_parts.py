"""Subsets and validation examples: how many of each class, which ones, and that they part the training set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from ebmrun.data.config import DatasetConfig
from ebmrun.data.parts import stratified
from ebmrun.data.sets import load

CPU = torch.device("cpu")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_each_class_has_its_share_to_the_next_integer(labels: list[int], share: float, seed: int) -> None:
    found, count = torch.tensor(labels), round(share * len(labels))
    chosen = stratified(found, count, seed)
    assert len(chosen) == len(set(chosen.tolist())) == count and chosen.tolist() == sorted(chosen.tolist())
    exact = found.bincount(minlength=6) * count / len(found)
    assert (found[chosen].bincount(minlength=6) - exact).abs().max() < 1


def test_the_shares_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 61, 50, 11])
    for count in (22, 40, 111):
        _, theirs = train_test_split(labels, test_size=count, stratify=labels, random_state=0)
        ours = labels[stratified(torch.from_numpy(labels), count, 0).numpy()]
        assert np.abs(np.bincount(ours) - np.bincount(theirs)).max() <= 1 and len(ours) == len(theirs)


def test_every_example_is_as_likely_as_its_neighbours() -> None:
    """Each of 20 examples of a class is drawn with probability 1/4: the counts over 2000 seeds are binomial, and beyond
    six deviations of 19.4 less than once in 1e7 tests."""
    labels = torch.arange(40) % 2
    counts = sum(torch.zeros(40).index_fill(0, stratified(labels, 10, seed), 1) for seed in range(2000))
    assert (counts - 500).abs().max() < 6 * 19.4


def rows(split) -> list[tuple[float, ...]]:
    return [tuple(row) for row in split.inputs.flatten(1).tolist()]


def test_validation_examples_are_taken_from_the_training_set_and_no_other() -> None:
    whole = load(DatasetConfig("digits"), CPU, torch.float64)
    found = load(DatasetConfig("digits", validation=0.1), CPU, torch.float64, seed=3)
    assert sorted(rows(found.train) + rows(found.val)) == sorted(rows(whole.train))
    assert rows(found.test) == rows(whole.test)
    assert len(found.val) == 144 and found.val.labels.bincount().min() >= 13
    again, other = (load(DatasetConfig("digits", validation=0.1), CPU, torch.float64, seed=s) for s in (3, 4))
    assert torch.equal(found.val.inputs, again.val.inputs) and not torch.equal(found.val.inputs, other.val.inputs)


def test_a_limit_comes_before_the_validation() -> None:
    found = load(DatasetConfig("digits", limit=200, validation=0.25), CPU, torch.float64)
    assert (len(found.train), len(found.val), len(found.test)) == (150, 50, 360)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_standard_is_by_the_training_examples_that_are_left(scale: float) -> None:
    settings = DatasetConfig("digits", normalise="standard", scale=scale, limit=500, validation=0.2)
    raw = load(DatasetConfig("digits", limit=500, validation=0.2, range=[0, 16]), CPU, torch.float64)
    found = load(settings, CPU, torch.float64)
    pixels = raw.train.inputs.numpy()
    mean, deviation = pixels.mean(), scale * pixels.std()
    for name in ("train", "test", "val"):
        expected = (getattr(raw, name).inputs.numpy() - mean) / deviation
        np.testing.assert_allclose(getattr(found, name).inputs.numpy(), expected, rtol=1e-12, atol=1e-13)
    assert found.black.shape == (1, 1, 1) and found.black.item() == pytest.approx(-mean / deviation, rel=1e-12)
