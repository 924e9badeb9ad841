"""Where examples are kept: in memory, or on the disk, from where each batch is read while the last is trained on.

Every store gives the same examples for the same numbers, as they are stored; ``scaling`` makes inputs of them.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ebmrun.errors import RunError

AHEAD = 2  # batches that are made ready before they are asked for

Index = Int64[Tensor, " _"]


class Store(ABC):
    """Examples of one ``shape``, (channels, height, width) for images, and of one type of number."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, index: Index) -> Tensor:
        """The examples of these numbers, as they are stored."""

    @abstractmethod
    def subset(self, index: Index) -> Store:
        """The store of these examples alone, in this order."""

    def stream(self, order: Sequence[Index]) -> Iterator[Tensor]:
        """One batch after another."""
        return map(self.take, order)

    def chunks(self) -> Iterator[Tensor]:
        """All examples in their order, some at a time."""
        some = max(1, 2**22 // max(1, prod(self.shape)))
        return self.stream(torch.arange(len(self)).split(some))


class Memory(Store):
    """Examples as one tensor."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.shape, self.dtype = values, tuple(values.shape[1:]), values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Index) -> Tensor:
        return self.values[index.to(self.values.device)]

    def subset(self, index: Index) -> Memory:
        return Memory(self.take(index))


class Rows(Store):
    """The rows of an array in a file, from a byte on, in the order of ``rows``. They are read, not mapped: pages of a
    mapped file count as memory of the process, and each costs more than to read a row. Raises RunError for a file that
    has been cut since."""

    def __init__(self, path: Path, start: int, dtype: np.dtype, stored: Sequence[int], rows: Index) -> None:
        self.path, self.start, self.rows = path, start, rows
        self._dtype, self._stored = dtype, tuple(stored)
        like = self._native(np.empty((0, *stored), dtype))
        self.shape, self.dtype = tuple(like.shape[1:]), like.dtype

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _file(self) -> BinaryIO:
        return self.path.open("rb", buffering=0)

    def take(self, index: Index) -> Tensor:
        found = np.empty((len(index), *self._stored), self._dtype)
        whole, file = found.reshape(-1).view(np.uint8).data, self._file.fileno()
        size = prod(self._stored) * self._dtype.itemsize
        for target, row in enumerate(self.rows[index].tolist()):
            place = whole[target * size : (target + 1) * size]
            if os.preadv(file, [place], self.start + row * size) != size:
                raise RunError(f"{self.path} was cut while it was read: put it back, and go on with resume=PATH")
        return self._native(found)

    def subset(self, index: Index) -> Rows:
        return Rows(self.path, self.start, self._dtype, self._stored, self.rows[index])

    def _native(self, found: np.ndarray) -> Tensor:
        return channels_first(torch.from_numpy(found.astype(self._dtype.newbyteorder("="), copy=False)))

    def stream(self, order: Sequence[Index]) -> Iterator[Tensor]:
        with ThreadPoolExecutor(1) as reader:
            ready: deque[Future[Tensor]] = deque()
            for index in order:
                ready.append(reader.submit(self.take, index))
                if len(ready) > AHEAD:
                    yield ready.popleft().result()
            while ready:
                yield ready.popleft().result()


def channels_first(images: Tensor) -> Tensor:
    """(N, height, width[, channels]) as (N, channels, height, width); anything else as it is."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    return images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images

