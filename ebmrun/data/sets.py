"""Data sets as tensors on the device, and the batches of an epoch.

A whole set sits in memory, scaled once; a batch is a slice of a permutation. torchvision reads the files; what it would
read wrongly or not at all (a cut or altered file) is found before.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ebmrun.data.config import DatasetConfig
from ebmrun.data.download import SOURCES, fetch, files_of, folder_of, torchvision_datasets
from ebmrun.errors import ConfigError

CLASSES = 10  # of every data set here
AGAIN = "delete it so that it is fetched again"

Part = tuple[Tensor, Tensor]  # pixels as stored, (examples, channels, height, width), and labels


@dataclass(frozen=True, eq=False)
class Split:
    """Examples side by side: ``inputs`` in ``dataset.range``, ``targets`` one-hot, ``labels`` in 0..classes-1."""

    inputs: Float[Tensor, " examples *shape"]
    targets: Float[Tensor, "examples classes"]
    labels: Int64[Tensor, " examples"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split with inputs of one shape, such as (1, 28, 28)."""

    name: str
    train: Split
    test: Split

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.inputs.shape[1:])

    @property
    def classes(self) -> int:
        return self.train.targets.shape[1]


def load(config: DatasetConfig, device: torch.device, dtype: torch.dtype) -> Dataset:
    """The data set ``config.name`` on ``device``, its pixels mapped linearly from [0, peak] to ``config.range``.

    Files that ``config.root`` lacks are downloaded once.

    Raises:
        ConfigError: an unknown name; a root that cannot be read; a file that is cut, altered or does not fit
            its partner; data that are absent and cannot be fetched.
    """
    if config.name not in READERS:
        raise ConfigError(f"dataset.name={config.name} is unknown: choose one of {', '.join(READERS)}")
    root = folder_of(config.root)
    try:
        peak, *parts = READERS[config.name](root)
    except OSError as error:
        mend = "point it, or the variable EBMRUN_DATA, at a folder that can be"
        raise ConfigError(f"dataset.root={root} cannot be read ({error}): {mend}") from error
    low, high = config.range
    train, test = (_split(part, peak, low, high, device, dtype) for part in parts)
    return Dataset(config.name, train, test)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """The number of batches. Raises ConfigError for a batch size outside 1..examples."""
    if not 1 <= batch_size <= examples:
        raise ConfigError(
            f"trainer.batch_size={batch_size} is not in 1..{examples}, the examples: choose one there"
        )
    return -(-examples // batch_size)


def batches(examples: int, batch_size: int, seed: int, epoch: int) -> tuple[Int64[Tensor, " _"], ...]:
    """An epoch's batches: slices of a permutation of ``range(examples)``, of which the last may be shorter.

    A pure function of its arguments, on the CPU: every device sees the same batches, and a resumed run too.

    Raises:
        ConfigError: a batch size outside 1..examples, or a negative seed.
    """
    steps_per_epoch(examples, batch_size)
    if seed < 0:
        raise ConfigError(f"seed={seed} is negative: choose 0 or more")
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(examples)).split(batch_size)


def _split(part: Part, peak: int, low: float, high: float, device: torch.device, dtype: torch.dtype) -> Split:
    pixels, labels = (each.to(device) for each in part)
    inputs = pixels.to(dtype).div_(peak).mul_(high - low).add_(low)
    return Split(inputs, F.one_hot(labels, CLASSES).to(dtype), labels)


def _digits(root: Path) -> tuple[int, Part, Part]:
    rows = torch.from_numpy(np.loadtxt(_digits_file(), delimiter=","))  # 64 pixels and a label each
    pixels, labels = rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].long()
    order = labels.argsort(stable=True)  # class by class: each fifth one makes a stratified test split
    test = torch.zeros_like(labels, dtype=torch.bool).index_fill(0, order[::5], True)
    return 16, (pixels[~test], labels[~test]), (pixels[test], labels[test])


def _digits_file() -> Path:
    """scikit-learn's file of digits, without scikit-learn itself, which takes longer to load than the rest of a run."""
    found = find_spec("sklearn")
    folders = (found and found.submodule_search_locations) or []
    for path in (Path(folder, "datasets", "data", "digits.csv.gz") for folder in folders):
        if path.is_file():
            return path
    raise ConfigError("dataset.name=digits is bundled with scikit-learn, whose file digits.csv.gz is not where it was: "
                      "install scikit-learn again, or use another dataset")


def _mnist_like(name: str, root: Path) -> tuple[int, Part, Part]:
    fetch(name, root)
    folder = root / SOURCES[name] / "raw"
    train, test = (
        _pair(folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte")
        for prefix in ("train", "t10k")
    )
    return 255, train, test


def _pair(images: Path, marks: Path) -> Part:
    pixels, labels = _idx(images, (28, 28)).unsqueeze(1), _idx(marks, ())
    if len(pixels) != len(labels):
        raise ConfigError(
            f"{images} holds {len(pixels)} images, {marks.name} {len(labels)} labels: delete both"
        )
    if labels.max() >= CLASSES:
        raise ConfigError(f"{marks} holds a label {labels.max()}, and the last is {CLASSES - 1}: {AGAIN}")
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


def _cifar(name: str, root: Path) -> tuple[int, Part, Part]:
    fetch(name, root)
    source = getattr(torchvision_datasets(), SOURCES[name])
    for file, checksum in files_of(source).items():  # a pickle runs what it holds: open only the published ones
        if not torchvision_datasets().utils.check_integrity(root / file, checksum):
            raise ConfigError(f"{root / file} is not the published file: {AGAIN}")
    train, test = (_channels_first(source(root, train=train)) for train in (True, False))
    return 255, train, test


def _channels_first(images: Any) -> Part:
    return torch.from_numpy(images.data).permute(0, 3, 1, 2), torch.tensor(images.targets)


READERS: dict[str, Callable[[Path], tuple[int, Part, Part]]] = {
    "digits": _digits,
    **{name: partial(_mnist_like, name) for name in ("mnist", "fashion_mnist", "kmnist")},
    "cifar10": partial(_cifar, "cifar10"),
}
