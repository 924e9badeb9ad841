"""What a reader finds: training, test and perhaps validation examples with their labels, before they are inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from ebmrun.data.stores import Index, Store
from ebmrun.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Part:
    """Examples as they are stored, and the class of each."""

    store: Store
    labels: Int64[Tensor, " examples"]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Index) -> Part:
        """These examples alone."""
        return Part(self.store.subset(index), self.labels[index])


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a data set, the value of its brightest pixel (None: numbers without a bound), its classes."""

    name: str
    peak: float | None
    classes: int
    train: Part
    test: Part
    val: Part | None = None


def limited(train: Part, limit: int, seed: int) -> Part:
    """So many examples, each class with its share of them. Raises ConfigError for more than there are."""
    if limit > len(train):
        raise ConfigError(f"dataset.limit={limit} is more than the {len(train)} training examples: use one of these")
    return train.subset(stratified(train.labels, limit, seed))


def parted(train: Part, share: float, seed: int, classes: int) -> tuple[Part, Part]:
    """Training and validation examples, each class in both. Raises ConfigError for a share that leaves one empty."""
    chosen = stratified(train.labels, round(share * len(train)), seed)
    kept = torch.ones(len(train), dtype=torch.bool).index_fill(0, chosen, False)
    for name, labels in (("validation", train.labels[chosen]), ("training", train.labels[kept])):
        counts = labels.bincount(minlength=classes)
        if not counts.all():
            empty = int((counts == 0).nonzero()[0])
            raise ConfigError(f"dataset.validation={share} of {len(train)} examples leaves class {empty} without a "
                              f"{name} example: use another share, or more examples")
    return train.subset(kept.nonzero().flatten()), train.subset(chosen)


def stratified(labels: Int64[Tensor, " examples"], count: int, seed: int) -> Index:
    """The numbers of ``count`` examples in ascending order, drawn by the seed; of each class its share, rounded so that
    they add up (to the largest remainders)."""
    sizes = labels.bincount()
    exact = sizes.double() * count / len(labels)
    each = exact.floor().long()
    each[(exact - each).argsort(descending=True, stable=True)[: count - int(each.sum())]] += 1
    draws = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order = draws.argsort(stable=True)
    chosen = [order[labels[order] == label][:size] for label, size in enumerate(each.tolist())]
    return torch.cat(chosen).sort().values
