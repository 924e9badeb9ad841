"""Augmentation: what becomes of a batch of images, whole and on their device, from a few random numbers for each.

The numbers are a pure function of seed, epoch and example: a resumed run, every process of a job and every algorithm of
a seed see the same images, bit for bit, in whatever batches they come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ebmrun.errors import ConfigError

PADDINGS = ("zeros", "edge", "reflection")

Images = Float[Tensor, "batch channels height width"]
Numbers = Float[Tensor, "batch numbers"]  # in [0, 1)


class Augmentation(ABC):
    """A function of images and of ``numbers`` random numbers for each of them."""

    numbers: int

    @abstractmethod
    def __call__(self, x: Float[Tensor, "batch *shape"], u: Numbers, black: Tensor) -> Float[Tensor, "batch *shape"]:
        """The images to train on. ``black`` is the input that a pixel without light becomes, (channels, 1, 1)."""

    def require_fit(self, shape: tuple[int, ...]) -> None:
        """Raises ConfigError for examples of a shape that it cannot take."""


class Unchanged(Augmentation):
    """Images as they are."""

    numbers = 0

    def __call__(self, x: Float[Tensor, "batch *shape"], u: Numbers, black: Tensor) -> Float[Tensor, "batch *shape"]:
        return x


class CropFlip(Augmentation):
    """Each image moved by up to ``padding`` pixels up or down and left or right, all moves being equally likely, and
    with ``flip`` mirrored half of the time: a crop of the image with a border as wide around it. ``border`` fills it by
    ``zeros`` (pixels without light), the ``edge`` or its ``reflection``."""

    numbers = 3

    def __init__(self, padding: int, border: str, flip: bool) -> None:
        if not isinstance(padding, int) or isinstance(padding, bool) or padding < 0:
            raise ConfigError(f"augment.padding={padding} must be an integer of 0 or more: 4 is usual for 32x32 pixels")
        if border not in PADDINGS:
            raise ConfigError(f"augment.border={border} is unknown: choose one of {', '.join(PADDINGS)}")
        if not isinstance(flip, bool):
            raise ConfigError(f"augment.flip={flip} must be true or false")
        self.padding, self.border, self.flip = padding, border, flip

    def __call__(self, x: Images, u: Numbers, black: Tensor) -> Images:
        top, rows_inside = self._taken(u[:, 0], x.shape[2])
        left, columns_inside = self._taken(u[:, 1], x.shape[3])
        if self.flip:
            mirrored = u[:, 2:] < 0.5
            left = torch.where(mirrored, left.flip(1), left)
            columns_inside = torch.where(mirrored, columns_inside.flip(1), columns_inside)
        n, c = (torch.arange(size, device=x.device) for size in x.shape[:2])
        moved = x[n[:, None, None, None], c[:, None, None], top[:, None, :, None], left[:, None, None, :]]
        if self.border != "zeros":
            return moved
        return torch.where((rows_inside[:, :, None] & columns_inside[:, None, :])[:, None], moved, black)

    def require_fit(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3:
            raise ConfigError(f"augment=crop_flip moves images (channels, height, width), and the data have shape "
                              f"{shape}: use augment=none")
        if self.padding >= min(shape[1:]):
            raise ConfigError(f"augment.padding={self.padding} moves images of {shape[1]}x{shape[2]} pixels out of "
                              f"sight: use {min(shape[1:]) - 1} or less")

    def _taken(self, u: Float[Tensor, " batch"], size: int) -> tuple[Int64[Tensor, "batch size"], Tensor]:
        """The rows, or columns, of the image that are taken for each example; and which of them lie inside it."""
        start = (u * (2 * self.padding + 1)).long() - self.padding
        taken = start[:, None] + torch.arange(size, device=u.device)
        inside = (taken >= 0) & (taken < size)
        if self.border == "reflection":  # the edge itself is not repeated
            return size - 1 - (size - 1 - taken.abs()).abs(), inside
        return taken.clamp(0, size - 1), inside


def draws(seed: int, epoch: int, examples: int, numbers: int) -> Numbers:
    """The random numbers of an epoch, a row for each example of the training set, on the CPU. A row is the same however
    many follow it."""
    return torch.from_numpy(np.random.default_rng([seed, epoch, 1]).random((examples, numbers)))
