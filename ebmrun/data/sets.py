"""Data sets as inputs and targets on the device, and the batches of an epoch.

A set that is not large sits in memory, scaled once; a batch is a slice of a permutation. A large one stays where it is
stored, and each batch is read and scaled while the one before it is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional as F

from ebmrun.data import arrays, image_folder, published
from ebmrun.data.config import DatasetConfig
from ebmrun.data.parts import Part, Parts, limited, parted
from ebmrun.data.scaling import Scaling, scaling
from ebmrun.data.stores import Index, Memory, Store
from ebmrun.errors import ConfigError, RunError

LARGE = 2**30  # bytes of inputs, above which a set is left where it is stored

READERS = {**dict.fromkeys(published.READERS, published.read), "npz": arrays.read, "folder": image_folder.read}


class Stored:
    """Stands for a tensor of inputs: what is taken from it is read and scaled."""

    def __init__(self, store: Store, scale: Scaling, device: torch.device) -> None:
        self.store, self.scale, self.device = store, scale, device
        self.shape = torch.Size([len(store), *store.shape])

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: Index | slice) -> Tensor:
        return next(self.stream([index]))

    def stream(self, order: Sequence[Index | slice]) -> Iterator[Tensor]:
        """One batch after another, each on its way to the device while the one before it is used."""
        stored = self.store.stream([_numbers(index, len(self)) for index in order])
        ahead: list[Tensor] = []
        for batch in stored:
            pinned = batch.pin_memory() if self.device.type == "cuda" and not batch.is_cuda else batch
            ahead.append(self.scale(pinned.to(self.device, non_blocking=True)))
            if len(ahead) > 1:
                yield ahead.pop(0)
        yield from ahead


class OneHot:
    """Stands for a tensor of one-hot targets, which would be as large as the inputs where there are many classes."""

    def __init__(self, labels: Int64[Tensor, " examples"], classes: int, dtype: torch.dtype) -> None:
        self.labels, self.dtype, self.shape = labels, dtype, torch.Size([len(labels), classes])

    def __getitem__(self, index: Index | slice | int) -> Tensor:
        return F.one_hot(self.labels[index], self.shape[1]).to(self.dtype)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples side by side: ``inputs``, (examples, *shape), ``targets`` one-hot, ``labels`` in 0..classes-1."""

    inputs: Tensor | Stored
    targets: Tensor | OneHot
    labels: Int64[Tensor, " examples"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def stream(self, order: Sequence[Index | slice]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Inputs, targets and labels of one batch after another."""
        where = [each if isinstance(each, slice) else each.to(self.device, non_blocking=True) for each in order]
        batches = self.inputs.stream(order) if isinstance(self.inputs, Stored) else (self.inputs[i] for i in where)
        for index, x in zip(where, batches):
            yield x, self.targets[index], self.labels[index]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, and perhaps one for validation, with inputs of one shape, such as (1, 28, 28).
    ``black`` is the input that a pixel without light becomes, one number a channel."""

    name: str
    train: Split
    test: Split
    val: Split | None = None
    black: Tensor = field(default_factory=lambda: torch.zeros(()))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.inputs.shape[1:])

    @property
    def classes(self) -> int:
        return self.train.targets.shape[1]


def load(config: DatasetConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Dataset:
    """The data set of a configuration on ``device``; ``seed`` draws the subset and the validation examples.

    Raises:
        ConfigError: an unknown name; files that cannot be read, are cut, altered or do not fit each other; data that
            are absent and cannot be fetched; what does not fit the configuration.
    """
    if not config._target_ and config.name not in READERS:
        raise ConfigError(f"dataset.name={config.name} is unknown: choose one of {', '.join(READERS)}")
    try:
        parts = chosen(arrays.call(config) if config._target_ else READERS[config.name or ""](config), config, seed)
        parts = placed(parts, config, dtype)
        scale = scaling(parts, config, dtype)
    except RunError as error:  # nothing runs yet
        raise ConfigError(str(error)) from error
    splits = {name: _split(part, parts.classes, scale, device)
              for name, part in (("train", parts.train), ("test", parts.test), ("val", parts.val)) if part}
    return Dataset(parts.name, **splits, black=scale.black(parts.train.store.shape).to(device))


def chosen(parts: Parts, config: DatasetConfig, seed: int) -> Parts:
    """The parts with as many training and validation examples as asked for. Raises ConfigError."""
    if config.limit is not None:
        parts = replace(parts, train=limited(parts.train, config.limit, seed))
    if config.validation:
        if parts.val:
            raise ConfigError(f"dataset.validation={config.validation} sets training examples aside, and {parts.name} "
                              "has validation examples of its own: leave it out")
        train, val = parted(parts.train, config.validation, seed, parts.classes)
        parts = replace(parts, train=train, val=val)
    return parts


def placed(parts: Parts, config: DatasetConfig, dtype: torch.dtype) -> Parts:
    """The parts in memory, unless they are to stay on the disk. Raises ConfigError where they cannot."""
    found = [part for part in (parts.train, parts.test, parts.val) if part]
    if config.in_memory is False and all(isinstance(part.store, Memory) for part in found):
        raise ConfigError(f"dataset.in_memory=False: {parts.name} is read into memory as a whole; leave it out, or "
                          "give images in folders, an .npz file of numpy.savez (not savez_compressed), or .npy files")
    large = sum(_bytes(part, dtype) for part in found) > LARGE
    if config.in_memory is True or config.in_memory == "auto" and not large:
        return replace(parts, train=_held(parts.train), test=_held(parts.test), val=parts.val and _held(parts.val))
    for part in found:
        if isinstance(part.store, image_folder.Images):
            part.store.look()
    return parts


def _held(part: Part) -> Part:
    return part if isinstance(part.store, Memory) else replace(part, store=Memory(torch.cat(list(part.store.chunks()))))


def _bytes(part: Part, dtype: torch.dtype) -> int:
    return len(part) * prod(part.store.shape) * dtype.itemsize


def _split(part: Part, classes: int, scale: Scaling, device: torch.device) -> Split:
    labels, store = part.labels.to(device), part.store
    if isinstance(store, Memory):
        store = Memory(store.values.to(device))
        if _bytes(part, scale.dtype) <= LARGE:
            return Split(scale(store.values), F.one_hot(labels, classes).to(scale.dtype), labels)
    return Split(Stored(store, scale, device), OneHot(labels, classes, scale.dtype), labels)


def _numbers(index: Index | slice, examples: int) -> Index:
    return torch.arange(*index.indices(examples)) if isinstance(index, slice) else index.cpu()


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
