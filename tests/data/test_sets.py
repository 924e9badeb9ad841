"""Data sets against the bytes on disk, and every way in which those bytes can be wrong."""

import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import HEADERS, IDX, complaint, read, write_cifar, write_cifar100, write_idx, write_svhn
from omegaconf import OmegaConf
from program import Command
from sklearn.datasets import load_digits

from ebmrun.data import published
from ebmrun.data import sets as data
from ebmrun.data.config import DatasetConfig
from ebmrun.data.sets import batches
from ebmrun.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"


# What is read


@pytest.mark.parametrize("name", IDX)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_idx_sets_are_the_bytes_on_disk(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    written = write_idx(tmp_path / IDX[name] / "raw")
    dataset = read(name, tmp_path, dtype)
    assert (dataset.name, dataset.shape, dataset.classes) == (name, (1, 28, 28), 10)
    for split, part, count in ((dataset.train, "train", 30), (dataset.test, "t10k", 20)):
        assert len(split) == count and split.inputs.dtype == split.targets.dtype == dtype
        pixels = (split.inputs.double() + 1) * 127.5
        np.testing.assert_allclose(
            pixels.numpy()[:, 0], written[f"{part}-images"], atol=255 * torch.finfo(dtype).eps
        )
        np.testing.assert_array_equal(split.labels.numpy(), written[f"{part}-labels"])
        np.testing.assert_array_equal(split.targets.numpy(), np.eye(10)[written[f"{part}-labels"]])


def test_black_is_minus_one_and_white_is_one(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    inputs = read("mnist", tmp_path, torch.float32).train.inputs  # 23520 random bytes hold every value
    assert inputs.min() == -1 and inputs.max() == 1 and len(inputs.unique()) == 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_to_one_is_the_share_of_the_peak_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    written = write_idx(tmp_path / "MNIST" / "raw")
    dataset = read("mnist", tmp_path, dtype, ends=(0, 1))
    for split, part in ((dataset.train, "train"), (dataset.test, "t10k")):
        assert torch.equal(split.inputs[:, 0], torch.from_numpy(written[f"{part}-images"]).to(dtype) / 255)
    assert read("digits", tmp_path, dtype, ends=(0, 1)).train.inputs.unique().tolist() == [i / 16 for i in range(17)]


@pytest.mark.parametrize("ends", [(-0.5, 0.5), (2, 2.5), (-1e6, 1e-6), (0, 1e-300), (-1e38, 1.7e38)])
def test_any_range_is_a_line_through_its_ends(ends: tuple[float, float], tmp_path: Path) -> None:
    written = write_idx(tmp_path / "MNIST" / "raw")
    low, high = ends
    share = written["train-images"] / 255
    inputs = read("mnist", tmp_path, ends=ends).train.inputs.numpy()[:, 0]
    largest = max(abs(low), abs(high))
    np.testing.assert_allclose(inputs / largest, (1 - share) * (low / largest) + share * (high / largest), atol=1e-15)


@pytest.mark.parametrize("value", [
    "1", "[]", "[1]", "[0,1,2]", "[1,1]", "[1,0]", "[nan,1]", "[0,nan]", "[0,inf]", "[-inf,0]", "[0,1e39]",
    "[-1e308,1e308]", f"[0,1{400 * '0'}]", "zebra", "'-1,1'", "[a,b]", "[0,'1']", "[0,[1]]", "[0,null]", "null", "''",
])
def test_a_range_that_is_none_ends_in_one_line(
    value: str, tmp_path: Path, command: Command
) -> None:
    status, [line] = command(f"dataset.range={value}")
    assert status == 2 and not list(tmp_path.iterdir())
    assert line.startswith("ebmrun: error: dataset.range=") and line.endswith("try [-1,1] or [0,1]")


def test_cifar10_keeps_channels_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar(tmp_path, monkeypatch)
    dataset = read("cifar10", tmp_path)
    assert (dataset.shape, dataset.classes, len(dataset.train), len(dataset.test)) == ((3, 32, 32), 10, 20, 4)
    train = np.concatenate([written[f"data_batch_{i}"] for i in range(1, 6)])
    for split, pixels in ((dataset.train, train), (dataset.test, written["test_batch"])):
        assert split.inputs.is_contiguous()
        expected = pixels.reshape(-1, 3, 32, 32) / 127.5 - 1
        np.testing.assert_allclose(split.inputs.numpy(), expected, atol=1e-15)
    assert dataset.test.labels.tolist() == [5, 4, 0, 9]


def test_cifar100_has_its_fine_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar100(tmp_path, monkeypatch)
    dataset = read("cifar100", tmp_path)
    assert (dataset.shape, dataset.classes) == ((3, 32, 32), 100)
    for split, name in ((dataset.train, "train"), (dataset.test, "test")):
        np.testing.assert_allclose(split.inputs.numpy(), written[name].reshape(-1, 3, 32, 32) / 127.5 - 1, atol=1e-15)
        assert split.labels.tolist() == list(range(99, -1, -1))


def test_svhn_has_zero_for_the_digit_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_svhn(tmp_path, monkeypatch)
    dataset = read("svhn", tmp_path)
    assert (dataset.shape, dataset.classes) == ((3, 32, 32), 10)
    for split, name in ((dataset.train, "train"), (dataset.test, "test")):
        expected = np.transpose(written[name], (3, 2, 0, 1)) / 127.5 - 1
        np.testing.assert_allclose(split.inputs.numpy(), expected, atol=1e-15)
        assert split.labels.tolist() == 2 * [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB")
    assert "test_32x32.mat is not the published file" in complaint("svhn", tmp_path)


def test_mnist_is_the_published_set(mnist_root: Path) -> None:
    dataset = read("mnist", mnist_root, torch.float32)
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.train.labels.bincount().tolist() == train
    assert dataset.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    brightness = (dataset.train.inputs.double() + 1) / 2  # its mean and deviation are quoted everywhere
    assert brightness.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert brightness.std().item() == pytest.approx(0.3081, abs=5e-5)


def test_digits_split_is_stratified_whole_and_fixed(tmp_path: Path) -> None:
    torch.manual_seed(1)
    dataset = read("digits", tmp_path / "absent")
    assert (dataset.shape, dataset.classes, len(dataset.train), len(dataset.test)) == (
        (1, 8, 8),
        10,
        1437,
        360,
    )
    fifth = np.bincount(load_digits().target) / 5
    assert np.abs(dataset.test.labels.bincount().numpy() - fifth).max() < 1
    rows = [torch.cat([s.inputs.flatten(1), s.labels[:, None]], 1) for s in (dataset.train, dataset.test)]
    source = np.column_stack([load_digits().data / 8 - 1, load_digits().target])
    assert sorted(torch.cat(rows).tolist()) == sorted(source.tolist())
    torch.manual_seed(2)
    assert torch.equal(read("digits", tmp_path / "absent").test.inputs, dataset.test.inputs)


def test_digits_without_their_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scikit-learn that comes first on the path, and has none."""
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"digits\.csv\.gz is not where it was: install scikit-learn again"):
        read("digits", tmp_path)


@pytest.mark.parametrize("name", list(published.READERS))
def test_each_config_is_a_data_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = OmegaConf.merge(OmegaConf.structured(DatasetConfig), OmegaConf.load(CONF / f"{name}.yaml"))
    monkeypatch.delenv("EBMRUN_DATA", raising=False)
    assert (config.name, config.root) == (name, "data")
    monkeypatch.setenv("EBMRUN_DATA", "/elsewhere")
    assert config.root == "/elsewhere"


def test_there_is_no_config_without_a_data_set() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(data.READERS)


# Batches


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**64), st.integers(0, 1000))
def test_batches_part_the_examples(examples: int, batch_size: int, seed: int, epoch: int) -> None:
    batch_size = min(batch_size, examples)
    parts = batches(examples, batch_size, seed, epoch)
    assert torch.cat(parts).sort().values.tolist() == list(range(examples))
    assert {len(part) for part in parts[:-1]} <= {batch_size} and 1 <= len(parts[-1]) <= batch_size


def test_batches_are_a_pure_function_of_seed_and_epoch() -> None:
    torch.manual_seed(0)
    first = {key: torch.cat(batches(1000, 64, *key)) for key in ((0, 0), (0, 1), (1, 0), (1, 1))}
    torch.manual_seed(1)
    for key, order in first.items():
        assert torch.equal(torch.cat(batches(1000, 64, *key)), order)
        assert torch.equal(torch.cat(batches(1000, 10, *key)), order)
        assert sum(torch.equal(order, other) for other in first.values()) == 1


def test_mnist_has_938_batches_of_64() -> None:
    parts = batches(60000, 64, 0, 0)
    assert len(parts) == 938 and len(parts[-1]) == 60000 - 937 * 64


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_size_must_fit(batch_size: int) -> None:
    with pytest.raises(ConfigError, match=f"trainer.batch_size={batch_size} .*10"):
        batches(10, batch_size, 0, 0)


def test_a_seed_is_not_negative() -> None:
    with pytest.raises(ConfigError, match="seed=-1"):
        batches(10, 5, -1, 0)


# Files that are wrong


def test_a_file_cut_anywhere_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder)
    rng = np.random.default_rng(20220602)
    for _ in range(50):
        path = folder / rng.choice(list(HEADERS))
        whole = path.read_bytes()
        path.write_bytes(whole[: rng.integers(len(whole))])
        assert str(path) in complaint("mnist", tmp_path)
        path.write_bytes(whole)
    read("mnist", tmp_path)


def test_a_file_with_whole_images_but_another_count_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    empty = struct.pack(">IIII", 2051, 0, 28, 28)
    for content in (whole[:16], whole[: 16 + 28 * 28], whole + bytes(28 * 28), whole + b"\0", empty):
        path.write_bytes(content)
        assert str(path) in complaint("mnist", tmp_path)


@pytest.mark.parametrize("file", HEADERS)
def test_each_flipped_header_byte_is_found(file: str, tmp_path: Path) -> None:
    path = tmp_path / "KMNIST" / "raw" / file
    write_idx(path.parent)
    whole = path.read_bytes()
    for position in range(HEADERS[file]):
        for flip in (0x01, 0x80, 0xFF):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
            assert str(path) in complaint("kmnist", tmp_path)


def test_images_need_as_many_labels(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder)
    (folder / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 19) + bytes(19))
    message = complaint("mnist", tmp_path)
    assert (
        "t10k-images-idx3-ubyte holds 20 images" in message and "t10k-labels-idx1-ubyte 19 labels" in message
    )


def test_a_label_beyond_the_classes_is_found(tmp_path: Path) -> None:
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    write_idx(path.parent)
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    message = complaint("mnist", tmp_path)
    assert str(path) in message and "label 10" in message


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_an_altered_pickle_is_named_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, monkeypatch)
    path, sprung = tmp_path / "cifar-10-batches-py" / "data_batch_3", tmp_path / "sprung"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:], pickle.dumps(Trap(sprung))):
        path.write_bytes(content)
        assert str(path) in complaint("cifar10", tmp_path)
    assert not sprung.exists()


def test_an_unknown_name_lists_the_known(tmp_path: Path) -> None:
    message = complaint("mnits", tmp_path)
    assert "dataset.name=mnits" in message and all(name in message for name in data.READERS)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_root_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root, reason in ((tmp_path / "file", "is no folder"), (tmp_path / ("long" * 100), "cannot be read")):
        message = complaint(name, root)
        assert f"dataset.root={root} {reason}" in message and "EBMRUN_DATA" in message
