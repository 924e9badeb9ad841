"""Fixtures for the whole suite."""

import os
from pathlib import Path

import jaxtyping
import pytest


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder that holds the real MNIST files, in MNIST/raw."""
    root = Path(os.environ.get("EBMRUN_DATA", Path(__file__).resolve().parents[1] / "data")).absolute()
    if not (root / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.fail(f"no MNIST in {root}: point EBMRUN_DATA at the folder that holds MNIST/raw")
    return root


@pytest.fixture
def untyped():
    """Values of the wrong type, as a configuration may hold them: the package's own checks have to find these."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
