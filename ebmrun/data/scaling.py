"""From stored values to inputs: one line through two points, or zero mean and unit deviation of each channel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ebmrun.data.config import DatasetConfig
from ebmrun.data.parts import Parts
from ebmrun.data.stores import Store
from ebmrun.errors import ConfigError


@dataclass(frozen=True)
class Scaling:
    """inputs = ((stored - minus) / by) * times + plus, in this order, each in the precision of the inputs; None leaves
    a step out. ``minus`` and ``by`` may be of one number a channel, (channels, 1, 1)."""

    dtype: torch.dtype
    minus: Tensor | None = None
    by: Tensor | float | None = None
    times: float | None = None
    plus: float | None = None

    def __call__(self, stored: Tensor) -> Tensor:
        inputs = stored.to(self.dtype, copy=True)
        if self.minus is not None:
            inputs.sub_(self.minus.to(inputs))
        if self.by is not None:
            inputs.div_(self.by.to(inputs) if isinstance(self.by, Tensor) else self.by)
        if self.times is not None and self.plus is not None:
            inputs.mul_(self.times).add_(self.plus)
        return inputs

    def black(self, shape: tuple[int, ...]) -> Tensor:
        """What a stored 0 becomes, one number a channel; a number where there are no channels."""
        return self(torch.zeros((shape[0], 1, 1) if len(shape) == 3 else ()))


def scaling(parts: Parts, config: DatasetConfig, dtype: torch.dtype) -> Scaling:
    """The scaling that a configuration asks for, ``standard`` by the statistics of the training examples.

    Raises ConfigError for values that are not finite, floats outside [0, 1] that are to be mapped to a range, and
    channels of one value alone.
    """
    if parts.peak is None:
        for name, part in (("train", parts.train), ("test", parts.test), ("val", parts.val)):
            if part:
                _require_fit(f"{parts.name}: {name}_images", part.store, config.normalise, dtype)
    if config.normalise == "none":
        return Scaling(dtype)
    if config.normalise == "range":
        low, high = config.range
        return Scaling(dtype, by=parts.peak or 1, times=high - low, plus=low)
    mean, deviation = statistics(parts.train.store)
    if not deviation.all():
        raise ConfigError(f"dataset.normalise=standard divides by the deviation of each channel, and one of "
                          f"{parts.name} has the same value everywhere: use dataset.normalise=range")
    return Scaling(dtype, minus=mean, by=deviation * config.scale)


def statistics(store: Store) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Mean and deviation of each channel over all examples, (channels, 1, 1); without channels, of all values. Of
    bytes, they are sums of integers, and exact."""
    image = len(store.shape) == 3
    dims = (0, 2, 3) if image else None
    kind = torch.float64 if store.dtype.is_floating_point else torch.int64
    first = second = torch.zeros((), dtype=kind)
    for values in (chunk.to("cpu", kind) for chunk in store.chunks()):
        first = first + (values.sum(dims) if image else values.sum())
        second = second + (values.square().sum(dims) if image else values.square().sum())
    count = len(store) * math.prod(store.shape[1:] if image else store.shape)
    mean = first.double() / count
    variance = (second.double() / count - mean.square()).clamp(min=0)
    deviation = torch.where(variance > 1e-14 * second.double() / count, variance, 0).sqrt()
    return (mean[:, None, None], deviation[:, None, None]) if image else (mean, deviation)


def _require_fit(name: str, store: Store, normalise: str, dtype: torch.dtype) -> None:
    for chunk in store.chunks():
        values = chunk.to(dtype)
        if not values.isfinite().all():
            raise ConfigError(f"{name} holds {values[~values.isfinite()][0]}: use finite numbers")
        if normalise == "range" and (values.min() < 0 or values.max() > 1):
            raise ConfigError(f"{name} holds {values[(values < 0) | (values > 1)][0]}, and floats that are mapped to "
                              "dataset.range lie in [0, 1]: set dataset.normalise=standard, or none")
