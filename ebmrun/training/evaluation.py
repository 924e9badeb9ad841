"""Loss and accuracy over examples that nothing is learned from."""

from __future__ import annotations

import math

import torch

from ebmrun.data.sets import Split
from ebmrun.theory.algorithm import Algorithm
from ebmrun.theory.cost import Cost
from ebmrun.theory.draws import Keys
from ebmrun.theory.network import Network

BATCH = 1000  # examples, or fewer where they are large
NUMBERS = 2**22  # of the inputs of such a batch


def evaluated(
    name: str, split: Split, network: Network, algorithm: Algorithm, cost: Cost, keys: Keys | None = None
) -> dict[str, float]:
    """NAME/loss and NAME/accuracy, means over a split, with the ``keys`` of its examples to noise where there is some;
    and the share of examples in batches whose free phase converged, where one has to relax."""
    loss = torch.zeros((), dtype=torch.float64, device=split.device)
    right = torch.zeros((), dtype=torch.int64, device=split.device)
    settled: list[int] = []
    size = max(1, min(BATCH, NUMBERS // math.prod(split.inputs.shape[1:])))
    parts = [slice(start, start + size) for start in range(0, len(split), size)]
    for part, (x, y, labels) in zip(parts, split.stream(parts)):
        drawn = {} if keys is None else {"keys": keys[part].to(x.device)}
        prediction = algorithm.predict(network, x, **drawn)
        loss += cost.value(prediction.output, y).double().sum()
        right += (prediction.output.argmax(1) == labels).sum()
        if prediction.converged is not None:
            settled.append(len(x) * prediction.converged)
    measured = {f"{name}/loss": loss.item() / len(split), f"{name}/accuracy": right.item() / len(split)}
    return measured | ({"relax/free_converged": sum(settled) / len(split)} if settled else {})
