"""Fixtures for the whole suite. Only tests that ask for ``mnist_root`` see data; they are marked so."""

import os
from pathlib import Path

import jaxtyping
import program
import pytest

DATA = Path(os.environ.get("EBMRUN_DATA") or Path(__file__).resolve().parents[1] / "data").absolute()


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "mnist_root" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder that holds the real MNIST files, in MNIST/raw."""
    if not (DATA / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.fail(f"no MNIST in {DATA}: set EBMRUN_DATA to the folder that holds MNIST/raw", pytrace=False)
    return DATA


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default folder of data is a file: nothing can be read from there, and nothing is fetched."""
    monkeypatch.setenv("EBMRUN_DATA", os.devnull)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> program.Command:
    """The command in an empty folder, in this process, with files alone."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> program.Ended:
        status = program.call("logger=csv", *arguments)
        out, err = capfd.readouterr()
        print(out, end="")  # for who asks for it
        return program.Ended(status, err.splitlines())

    return run


@pytest.fixture
def untyped():
    """Values of the wrong type, as a configuration may hold them: the package's own checks have to find these."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
