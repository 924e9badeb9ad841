"""The published sets: scikit-learn's digits, and what torchvision downloads and reads.

What it would read wrongly or not at all (a cut or altered file) is found before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmrun.data.config import DatasetConfig
from ebmrun.data.download import SOURCES, fetch, files_of, folder_of, torchvision_datasets
from ebmrun.data.parts import Part, Parts
from ebmrun.data.stores import Memory
from ebmrun.errors import ConfigError

AGAIN = "delete it so that it is fetched again"

Arrays = tuple[Tensor, Tensor]  # pixels as stored, (examples, channels, height, width), and labels


def read(config: DatasetConfig) -> Parts:
    """The set ``config.name`` of ``config.root``; files that are not there are downloaded once. Raises ConfigError."""
    root = folder_of(config.root)
    name = config.name or ""
    try:
        peak, classes, *pairs = READERS[name](root)
    except OSError as error:
        mend = "point it, or the variable EBMRUN_DATA, at a folder that can be"
        raise ConfigError(f"dataset.root={root} cannot be read ({error}): {mend}") from error
    train, test = (Part(Memory(pixels), labels) for pixels, labels in pairs)
    return Parts(name, peak, classes, train, test)


def _digits(root: Path) -> tuple[int, int, Arrays, Arrays]:
    rows = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=","))  # 64 pixels and a label each
    pixels, labels = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].long()
    order = labels.argsort(stable=True)  # class by class: each fifth one makes a stratified test split
    test = torch.zeros_like(labels, dtype=torch.bool).index_fill(0, order[::5], True)
    return 16, 10, (pixels[~test], labels[~test]), (pixels[test], labels[test])


def _digits_file() -> Path:
    """scikit-learn's file of digits, without scikit-learn itself, which takes longer to load than the rest of a run."""
    found = find_spec("sklearn")
    folders = (found and found.submodule_search_locations) or []
    for path in (Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders):
        if path.is_file():
            return path
    raise ConfigError("dataset.name=digits is bundled with scikit-learn, whose file digits.csv.gz is not where it was: "
                      "install scikit-learn again, or use another dataset")


def _mnist_like(name: str, root: Path) -> tuple[int, int, Arrays, Arrays]:
    fetch(name, root)
    folder = root / SOURCES[name] / "raw"
    train, test = (
        _pair(folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte", 10)
        for prefix in ("train", "t10k")
    )
    return 255, 10, train, test


def _pair(images: Path, marks: Path, classes: int) -> Arrays:
    pixels, labels = _idx(images, (28, 28)).unsqueeze(1), _idx(marks, ())
    if len(pixels) != len(labels):
        raise ConfigError(
            f"{images} holds {len(pixels)} images, {marks.name} {len(labels)} labels: delete both"
        )
    if labels.max() >= classes:
        raise ConfigError(f"{marks} holds a label {labels.max()}, and the last is {classes - 1}: {AGAIN}")
    return pixels, labels


def _idx(path: Path, item: tuple[int, ...]) -> Tensor:
    """The items of an idx file, whose header must be the one that its length calls for.

    Source: Y. LeCun, C. Cortes & C. Burges, The MNIST database, section on file formats.
    """
    count, rest = divmod(path.stat().st_size - 4 * (2 + len(item)), prod(item))
    header = struct.pack(f">{2 + len(item)}I", 0x0801 + len(item), max(count, 0), *item)
    with path.open("rb") as file:
        if count < 1 or rest or file.read(len(header)) != header:
            kind = f"{'x'.join(map(str, item))} images" if item else "labels"
            raise ConfigError(f"{path} is not a whole idx file of {kind}: {AGAIN}")
    reader = torchvision_datasets().mnist
    return reader.read_image_file(path) if item else reader.read_label_file(path)


def _checked(name: str, root: Path) -> Any:
    """torchvision's reader of files that are the published ones: a pickle runs what it holds."""
    fetch(name, root)
    source = getattr(torchvision_datasets(), SOURCES[name])
    for file, checksum in files_of(source).items():
        if not torchvision_datasets().utils.check_integrity(root / file, checksum):
            raise ConfigError(f"{root / file} is not the published file: {AGAIN}")
    return source


def _cifar(name: str, classes: int, root: Path) -> tuple[int, int, Arrays, Arrays]:
    source = _checked(name, root)
    train, test = (_channels_first(source(root, train=train)) for train in (True, False))
    return 255, classes, train, test


def _channels_first(images: Any) -> Arrays:
    return torch.from_numpy(images.data).permute(0, 3, 1, 2), torch.tensor(images.targets)


def _svhn(root: Path) -> tuple[int, int, Arrays, Arrays]:
    source = _checked("svhn", root)
    train, test = (_as_read(source(root, split=split)) for split in ("train", "test"))
    return 255, 10, train, test


def _as_read(images: Any) -> Arrays:
    return torch.from_numpy(np.ascontiguousarray(images.data)), torch.from_numpy(images.labels)


READERS: dict[str, Callable[[Path], tuple[int, int, Arrays, Arrays]]] = {
    "digits": _digits,
    **{name: partial(_mnist_like, name) for name in ("mnist", "fashion_mnist", "kmnist")},
    "cifar10": partial(_cifar, "cifar10", 10),
    "cifar100": partial(_cifar, "cifar100", 100),
    "svhn": _svhn,
}
