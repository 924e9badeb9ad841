"""Data of a user's own, as arrays, as image files and from a function: what is read, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from own_files import arrays, write_folder, write_npz
from PIL import Image
from program import Command
from run_folder import rows, same_weights, summary, timeless

from ebmrun.data import sets
from ebmrun.data.config import DatasetConfig
from ebmrun.data.sets import Dataset, Split, load

CPU = torch.device("cpu")
SHORT = ("trainer.epochs=2", "trainer.batch_size=16", "trainer.log_every=1", "arch.hidden=[9,8]")


def read(**settings: object) -> Dataset:
    return load(DatasetConfig(**{"range": [0, 255], **settings}), CPU, torch.float64)


def pixels(split: Split) -> np.ndarray:
    return split.inputs[:].numpy()


# What is read


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (7,)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_its_arrays_channels_first(tmp_path: Path, shape: tuple[int, ...], save: Callable) -> None:
    found = arrays(shape, ("train", "test", "val"))
    save(tmp_path / "mine.npz", **found)
    dataset = read(name="npz", path=str(tmp_path / "mine.npz"))
    assert dataset.classes == 3 and dataset.val is not None
    for part in ("train", "test", "val"):
        expected = found[f"{part}_images"]
        if len(shape) == 2:
            expected = expected[:, None]
        elif len(shape) == 3:
            expected = np.moveaxis(expected, 3, 1)
        split = getattr(dataset, part)
        np.testing.assert_allclose(pixels(split), expected, rtol=1e-14)
        np.testing.assert_array_equal(split.labels, found[f"{part}_labels"][:, 0])
        np.testing.assert_array_equal(split.targets[:], np.eye(3)[found[f"{part}_labels"][:, 0]])


def test_a_folder_of_npy_files_is_an_npz(tmp_path: Path) -> None:
    for key, value in arrays().items():
        np.save(tmp_path / f"{key}.npy", value)
    one, other = read(name="npz", path=str(tmp_path)), read(name="npz", path=str(write_npz(tmp_path / "mine.npz")))
    assert torch.equal(one.train.inputs, other.train.inputs) and torch.equal(one.test.inputs, other.test.inputs)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2"])
def test_floats_of_any_kind_are_their_numbers(tmp_path: Path, dtype: str) -> None:
    images = {key: (value / 255).astype(dtype) for key, value in arrays().items() if key.endswith("images")}
    path = write_npz(tmp_path / "mine.npz", **images)
    for settings in ({"range": [0, 1]}, {"normalise": "none"}):
        found = pixels(read(name="npz", path=str(path), **settings).train)
        np.testing.assert_array_equal(found, np.moveaxis(images["train_images"].astype(float), 3, 1))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_a_folder_of_images_is_their_pixels_class_by_class(tmp_path: Path, shape: tuple[int, ...]) -> None:
    found = arrays(shape)
    dataset = read(name="folder", path=str(write_folder(tmp_path, found)), workers=0)
    for part in ("train", "test"):
        split, order = getattr(dataset, part), np.argsort(found[f"{part}_labels"][:, 0], kind="stable")
        images = found[f"{part}_images"].reshape(-1, 6, 5, len(shape) * 2 - 3)[order]
        np.testing.assert_array_equal(pixels(split), np.moveaxis(images, 3, 1))
        np.testing.assert_array_equal(split.labels, found[f"{part}_labels"][:, 0][order])


def test_images_of_several_sizes_and_kinds_become_one(tmp_path: Path) -> None:
    root = write_folder(tmp_path, arrays((6, 5)))
    Image.new("RGB", (50, 40), (9, 90, 200)).save(root / "test" / "class0" / "other.jpg", quality=100)
    dataset = read(name="folder", path=str(root), size=[4, 8], channels=3, workers=0)
    assert dataset.shape == (3, 4, 8)
    even = [split for split in pixels(dataset.test) if np.ptp(split, axis=(1, 2)).max() == 0]
    assert len(even) == 1 and np.abs(even[0][:, 0, 0] - (9, 90, 200)).max() <= 2  # JPEG rounds


OWN = """
import numpy as np
from own_files import arrays

def load(share=1.0):
    return {key: value if key.endswith("labels") else value.astype("float32") / 255 * share
            for key, value in arrays().items()}

def nothing():
    return 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "my_data", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "my_data.py").write_text(OWN)


@pytest.mark.usefixtures("own")
def test_a_function_of_ones_own_trains_as_its_arrays(command: Command, tmp_path: Path) -> None:
    write_npz(tmp_path / "mine.npz", **{key: value.astype("float32") / 255 for key, value in arrays().items()
                                        if key.endswith("images")})
    assert command("dataset=npz", "dataset.path=mine.npz", *SHORT, "hydra.run.dir=file") == (0, [])
    assert command("dataset._target_=my_data.load", *SHORT, "hydra.run.dir=own") == (0, [])
    assert same_weights("file", "own") and timeless("file") == timeless("own")
    assert summary("own")["dataset"] == "my_data.load"
    assert summary("own")["provenance/modules/my_data"]
    Path("conf/dataset").mkdir(parents=True)
    Path("conf/dataset/mine.yaml").write_text("_target_: my_data.load\narguments: {share: 0.5}\n")
    assert command("dataset=mine", *SHORT, "hydra.run.dir=half") == (0, [])
    assert rows("half")[0]["train/loss"] != rows("own")[0]["train/loss"]


# What stays on the disk


@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_what_stays_on_the_disk_trains_as_it_does_in_memory(command: Command, kind: str) -> None:
    """The same batches in the same order, bit for bit, whoever reads them."""
    source = write_npz(Path("mine.npz")) if kind == "npz" else write_folder(Path("mine"), arrays())
    settings = (f"dataset={kind}", f"dataset.path={source}", "dataset.limit=50", "dataset.validation=0.2",
                "dataset.normalise=standard", *SHORT)
    assert command(*settings, "dataset.in_memory=true", "hydra.run.dir=held") == (0, [])
    assert command(*settings, "dataset.in_memory=false", "hydra.run.dir=left") == (0, [])
    assert same_weights("held", "left") and timeless("held") == timeless("left")
    assert len(rows("left")) == 6 and rows("left")[-1]["val/loss"]  # 40 of 50 examples are 3 batches of 16


def test_only_what_is_small_is_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_npz(tmp_path / "mine.npz"))
    bytes_of_inputs = 90 * 6 * 5 * 3 * 8
    for limit, held in ((bytes_of_inputs, True), (bytes_of_inputs - 1, False)):
        monkeypatch.setattr(sets, "LARGE", limit)
        assert isinstance(read(name="npz", path=path).train.inputs, torch.Tensor) == held


# What is refused


def broken(**instead: np.ndarray) -> Callable[[], tuple[str, ...]]:
    def made() -> tuple[str, ...]:
        return ("dataset=npz", f"dataset.path={write_npz(Path('mine.npz'), **instead)}")

    return made


def labels(*first: int) -> np.ndarray:
    """The training labels, the first of them replaced."""
    found = arrays()["train_labels"]
    found[: len(first), 0] = first
    return found


NAN = (arrays()["train_images"] / 255).astype("float32")
NAN[7, 2, 3, 1] = np.nan


@pytest.mark.parametrize("made, words", [
    (broken(test_images=None), ["mine.npz lacks test_images"]),
    (broken(train_labels=None), ["mine.npz lacks train_labels"]),
    (broken(train_images=arrays()["train_images"][:-1]), ["train_images and train_labels", "lengths (59 and 60)"]),
    (broken(train_labels=labels(-1)), ["train_labels holds -1, outside 0..2"]),
    (broken(test_labels=arrays()["test_labels"] + 1), ["test_labels holds 3, outside 0..2"]),
    (broken(train_labels=labels(9)), ["train_labels holds no 3", "largest of 10 classes is 9"]),
    (broken(train_labels=labels() + 1), ["train_labels holds no 0"]),
    (broken(train_labels=labels() + 0.5), ["train_labels is float64 of shape (60,)"]),
    (broken(train_labels=np.eye(3, dtype=int)[labels()[:, 0]]), ["train_labels is int64 of shape (60, 3)"]),
    (broken(train_images=NAN, test_images=arrays()["test_images"] / np.float32(255)), ["train_images holds nan"]),
    (broken(train_images=NAN), ["test_images and train_images differ", "uint8", "float32"]),
    (broken(test_images=arrays((5, 5, 3))["test_images"]), ["test_images and train_images differ"]),
    (broken(train_images=arrays()["train_images"].astype(str)), ["train_images is <U3"]),
    (broken(**{key: value * 2.0 for key, value in arrays().items() if key.endswith("images")}),
     ["train_images holds ", "lie in [0, 1]", "dataset.normalise=standard"]),
    (lambda: (*broken()(), "dataset.classes=2"), ["train_labels holds 2, outside 0..1"]),
    (lambda: ("dataset=npz",), ["dataset.path=FILE.npz"]),
    (lambda: ("dataset=npz", "dataset.path=absent.npz"), ["absent.npz cannot be read"]),
    (lambda: ("dataset=npz", f"dataset.path={__file__}"), ["test_own_data.py cannot be read"]),
    (lambda: ("dataset=mnist", "dataset.path=mine.npz"), ["dataset.path=mine.npz is read by dataset=npz and folder"]),
    (lambda: ("dataset=digits", "dataset.in_memory=false"), ["dataset.in_memory=False", "digits"]),
    (lambda: ("dataset=digits", "dataset.in_memory=often"), ["dataset.in_memory=often must be auto, true or false"]),
    (lambda: ("dataset=folder", "dataset.path=absent"), ["absent/train is no folder"]),
    (lambda: ("dataset.limit=1438",), ["dataset.limit=1438", "1437 training examples"]),
    (lambda: ("dataset.limit=0",), ["dataset.limit=0 must be 1 or more"]),
    (lambda: ("dataset.validation=0.001",), ["dataset.validation=0.001 of 1437", "without a validation example"]),
    (lambda: ("dataset.validation=0.999",), ["dataset.validation=0.999 of 1437", "without a training example"]),
    (lambda: ("dataset.validation=1",), ["dataset.validation=1.0 must lie in [0, 1)"]),
    (lambda: ("dataset.normalise=zscore",), ["dataset.normalise=zscore is unknown: choose one of range, standard"]),
    (lambda: ("dataset.normalise=standard", "dataset.scale=0"), ["dataset.scale=0.0 must be a positive number"]),
    (lambda: ("trainer.patience=3",), ["trainer.patience=3", "set dataset.validation=0.1"]),
    (lambda: ("dataset._target_=my_data.absent",), ["dataset._target_=my_data.absent names no function"]),
    (lambda: ("dataset._target_=my_data.nothing",), ["my_data.nothing returns a int"]),
    (lambda: ("dataset._target_=my_data.load", "+dataset.arguments.sharp=1"), ["dataset.arguments={'sharp': 1}"]),
    (lambda: ("+dataset.arguments.share=1",), ["dataset.arguments are for a function of your own"]),
])
@pytest.mark.usefixtures("own")
def test_bad_input_ends_in_one_line_and_leaves_nothing(
    command: Command, made: Callable[[], tuple[str, ...]], words: list[str]
) -> None:
    arguments = made()
    before = set(Path().rglob("*"))
    status, lines = command(*arguments)
    assert status == 2 and len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines
    assert set(Path().rglob("*")) == before


def emptied(root: Path) -> None:
    for file in (root / "train" / "class1").iterdir():
        file.unlink()


def without_a_class(root: Path) -> None:
    for file in (root / "test" / "class1").iterdir():
        file.unlink()
    (root / "test" / "class1").rmdir()


def corrupt(root: Path) -> None:
    path = root / "train" / "class2" / "005.png"
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("breaks, words", [
    (emptied, ["mine/train/class1 holds no image"]),
    (without_a_class, ["mine/test and ", "different classes, such as class1"]),
    (corrupt, ["mine/train/class2/005.png cannot be decoded", "replace it, or remove it"]),
    (lambda root: (root / "train" / "class2" / "005.png").write_text("no image"), ["class2/005.png cannot be decoded"]),
    (lambda root: (root / "train" / "class0" / "000.png").write_text("no image"), ["class0/000.png cannot be decoded"]),
    (lambda root: Image.new("RGB", (7, 6)).save(root / "test" / "class2" / "005.png"),
     ["test/class2/005.png is 6x7 pixels, and the first image 6x5", "dataset.size=[6,5]"]),
    (lambda root: Image.new("I;16", (5, 6)).save(root / "test" / "class2" / "005.png"), ["mode I;16", "8 bits"]),
])
@pytest.mark.parametrize("place", ["true", "false"])
def test_a_folder_that_is_wrong_ends_in_one_line_wherever_it_stays(
    command: Command, breaks: Callable[[Path], object], words: list[str], place: str
) -> None:
    breaks(write_folder(Path("mine"), arrays()))
    status, lines = command("dataset=folder", "dataset.path=mine", f"dataset.in_memory={place}")
    assert status == 2 and len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines
    assert [path.name for path in Path().iterdir() if path.name != "my_data.py"] == ["mine"]


def test_a_compressed_file_that_is_to_stay_on_the_disk_says_how_to_save_it(command: Command) -> None:
    np.savez_compressed("mine.npz", **arrays())
    status, [line] = command("dataset=npz", "dataset.path=mine.npz", "dataset.in_memory=false")
    assert status == 2 and "numpy.savez (not savez_compressed)" in line


@pytest.mark.parametrize("cut", [10, 3000, 8000])
def test_an_npz_that_was_cut_is_named(command: Command, cut: int) -> None:
    path = write_npz(Path("mine.npz"))
    path.write_bytes(path.read_bytes()[:cut])
    status, [line] = command("dataset=npz", "dataset.path=mine.npz")
    assert status == 2 and "mine.npz cannot be read" in line
