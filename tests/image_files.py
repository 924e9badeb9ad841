"""Small random data sets as the files that torchvision reads, and what the package makes of them."""

import hashlib
import pickle
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from ebmrun.data.config import DatasetConfig
from ebmrun.data.download import torchvision_datasets
from ebmrun.data.sets import Dataset, load
from ebmrun.errors import ConfigError

CPU = torch.device("cpu")
IDX = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
HEADERS = {
    f"{part}-{kind}": size
    for part in ("train", "t10k")
    for kind, size in (("images-idx3-ubyte", 16), ("labels-idx1-ubyte", 8))
}


def read(name: str, root: Path, dtype: torch.dtype = torch.float64, ends: tuple[float, float] = (-1, 1)) -> Dataset:
    return load(DatasetConfig(name, str(root), range=list(ends)), CPU, dtype)


def complaint(name: str, root: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_idx(folder: Path, train: int = 30, test: int = 20) -> dict[str, np.ndarray]:
    """Random images, with labels that go round the ten classes, as idx files; returns what was written."""
    folder.mkdir(parents=True)
    written = {}
    for seed, (part, count) in enumerate((("train", train), ("t10k", test))):
        images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        header = struct.pack(">IIII", 2051, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
        written |= {f"{part}-images": images, f"{part}-labels": labels}
    return written


def closed_address() -> str:
    """Where no server listens: whatever is asked for there is refused."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """CIFAR-10's pickles with 4 random images each, made the published ones; returns the pixels by file."""
    source = torchvision_datasets().CIFAR10
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    written = {}
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        written[name] = np.random.default_rng(seed).integers(0, 256, (4, 3072), dtype=np.uint8)
        entry = {"data": written[name], "labels": [seed, 9 - seed, 0, 9]}
        (folder / name).write_bytes(pickle.dumps(entry))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    for attribute in ("train_list", "test_list"):
        listed = [[name, md5(folder / name)] for name, _ in getattr(source, attribute)]
        monkeypatch.setattr(source, attribute, listed)
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(folder / "batches.meta")})
    return written


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """CIFAR-100's pickles with random images of all classes, made the published ones; returns the pixels by file."""
    source = torchvision_datasets().CIFAR100
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    written = {}
    for seed, name in enumerate(("train", "test")):
        written[name] = np.random.default_rng(seed).integers(0, 256, (100, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": written[name], "fine_labels": [*range(99, -1, -1)]}))
        monkeypatch.setattr(source, f"{name}_list", [[name, md5(folder / name)]])
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(folder / "meta")})
    return written


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """SVHN's files with 20 random images each, (height, width, channels, N), made the published ones. Its labels are
    1 to 10, of which 10 stands for the digit 0."""
    source, written = torchvision_datasets().SVHN, {}
    listed = dict(source.split_list)
    for seed, name in enumerate(("train", "test")):
        written[name] = np.random.default_rng(seed).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
        path = root / f"{name}_32x32.mat"
        savemat(path, {"X": written[name], "y": np.arange(20)[:, None] % 10 + 1})
        listed[name] = [source.split_list[name][0], path.name, md5(path)]
    monkeypatch.setattr(source, "split_list", listed)
    return written
