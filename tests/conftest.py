"""Fixtures for the whole suite."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder that holds the real MNIST files, in MNIST/raw."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("EBMRUN_DATA", beside)).absolute()
    if not (root / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.fail(f"no MNIST in {root}: point EBMRUN_DATA at the folder that holds MNIST/raw")
    return root
