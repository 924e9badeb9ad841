"""Images in folders, one for each class: torchvision's ImageFolder, decoded by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ebmrun.data.config import DatasetConfig
from ebmrun.data.download import torchvision_datasets
from ebmrun.data.parts import Part, Parts
from ebmrun.data.stores import Index, Store
from ebmrun.errors import ConfigError, RunError

GREY = ("1", "L")
SOME = 100  # files that a worker looks at in one go


class Images(Store):
    """Files with pictures of one size, as bytes of 1 channel or of 3. ``size`` (height, width) resizes them.

    Reading raises RunError for a file that cannot be decoded, or is of another size where none is given.
    """

    dtype = torch.uint8

    def __init__(self, files: Sequence[str], shape: Sequence[int], resizes: bool, workers: int) -> None:
        self.files, self.shape, self.resizes, self.workers = list(files), tuple(shape), resizes, workers

    def __len__(self) -> int:
        return len(self.files)

    def take(self, index: Index) -> Tensor:
        return next(self._worked(self._decoded, [index.tolist()], 0))

    def subset(self, index: Index) -> Images:
        return Images([self.files[i] for i in index.tolist()], self.shape, self.resizes, self.workers)

    def stream(self, order: Sequence[Index]) -> Iterator[Tensor]:
        return self._worked(self._decoded, [index.tolist() for index in order], self.workers)

    def look(self) -> None:
        """Looks at every file without decoding it. Raises RunError for the first that is no image, or does not fit."""
        numbers = torch.arange(len(self)).split(SOME)
        for _ in self._worked(self._looked_at, [index.tolist() for index in numbers], self.workers):
            pass

    def _worked(self, work: Callable[[int], Any], order: Sequence[list[int]], workers: int) -> Iterator[Tensor]:
        loader = DataLoader(_Numbered(work, len(self)), batch_sampler=order, num_workers=min(workers, len(order)),
                            collate_fn=_together)
        for found in loader:
            if isinstance(found, str):
                raise RunError(found)
            yield found

    def _decoded(self, number: int) -> Tensor:
        with self._opened(number) as image:
            picture = image.convert("L" if self.shape[0] == 1 else "RGB")
            if self.resizes:
                picture = picture.resize((self.shape[2], self.shape[1]), Image.Resampling.BILINEAR)
            pixels = torch.from_numpy(np.array(picture))
            return pixels.unsqueeze(0) if self.shape[0] == 1 else pixels.permute(2, 0, 1)

    def _looked_at(self, number: int) -> Tensor:
        with self._opened(number) as image:
            image.verify()
        return torch.zeros(())

    def _opened(self, number: int) -> Image.Image:
        image = Image.open(self.files[number])
        _, height, width = self.shape
        if not self.resizes and image.size != (width, height):
            found = f"{image.size[1]}x{image.size[0]}"
            raise ValueError(f"is {found} pixels, and the first image {height}x{width}: use images of one size, or "
                             f"dataset.size=[{height},{width}]")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"has pixels of mode {image.mode}: save it with 8 bits a channel")
        if self.shape[0] == 1 and image.mode not in GREY:
            raise ValueError("is in colour, and the first image is grey: set dataset.channels to 1 or 3")
        return image


class _Numbered(Dataset[Any]):
    """What becomes of each file; in the place of one that cannot be read, a line that says so."""

    def __init__(self, work: Callable[[int], Any], count: int) -> None:
        self.work, self.count = work, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Tensor | str:
        images: Images = self.work.__self__  # type: ignore[attr-defined]
        try:
            return self.work(number)
        except ValueError as error:
            return f"{images.files[number]} {error}"
        except Exception as error:  # noqa: BLE001 - a damaged file can fail anywhere in its decoder
            return (f"{images.files[number]} cannot be decoded ({' '.join(str(error).split())}): replace it, or remove "
                    "it")


def _together(found: Sequence[Tensor | str]) -> Tensor | str:
    """The tensors as one; or the first line about one that is none, which would lose its form as an exception."""
    return next((each for each in found if isinstance(each, str)), None) or torch.stack(list(found))  # type: ignore


def read(config: DatasetConfig) -> Parts:
    """The parts ``train``, ``test`` and perhaps ``val`` of a folder, each with a folder for each class.

    Raises ConfigError for folders that are absent, classes that are empty or differ, and images that cannot be read.
    """
    root = Path(config.path or "").expanduser().absolute()
    found = {name: _listed(root / name) for name in ("train", "test", "val")
             if name != "val" or (root / name).is_dir()}
    classes = found["train"].classes
    for name, listed in found.items():
        if listed.classes != classes:
            odd = min(set(listed.classes) ^ set(classes))
            raise ConfigError(f"{root / name} and {root / 'train'} have different classes, such as {odd}: give both a "
                              "folder for each")
    first = found["train"].samples[0][0]
    try:
        with Image.open(first) as image:
            height, width = config.size or (image.size[1], image.size[0])
            channels = config.channels or (1 if image.mode in GREY else 3)
    except Exception as error:
        raise ConfigError(f"{first} cannot be decoded ({' '.join(str(error).split())}): replace it, or remove "
                          "it") from error
    made = partial(Images, shape=(channels, height, width), resizes=config.size is not None, workers=config.workers)
    return Parts("folder", 255, len(classes), **{
        name: Part(made([file for file, _ in listed.samples]), torch.tensor(listed.targets))
        for name, listed in found.items()})


def _listed(folder: Path) -> Any:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: dataset=folder reads dataset.path=FOLDER with FOLDER/train and "
                          "FOLDER/test, and in each a folder for each class")
    try:
        listed = torchvision_datasets().ImageFolder(str(folder), allow_empty=True)
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} holds no folder of a class: give it one for each, with images") from error
    counts = np.bincount(listed.targets, minlength=len(listed.classes)) if listed.targets else [0]
    for name, count in zip(listed.classes, counts):
        if not count:
            raise ConfigError(f"{folder / name} holds no image: put some there, or remove it")
    return listed
