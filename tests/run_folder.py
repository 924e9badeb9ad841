"""What a run left in its folder, read back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch


def rows(run: str | Path) -> list[dict[str, str]]:
    """The rows of metrics.csv as they are written."""
    with Path(run, "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(run: str | Path) -> list[dict[str, str]]:
    """The rows without the reading of the clock: all that a second run repeats."""
    return [{key: value for key, value in row.items() if key != "time/step_ms"} for row in rows(run)]


def summary(run: str | Path) -> dict[str, Any]:
    return json.loads(Path(run, "summary.json").read_text())


def saved(run: str | Path) -> dict[str, Any]:
    """The checkpoint."""
    return torch.load(Path(run, "checkpoint.pt"), weights_only=True)


def same_weights(one: str | Path, other: str | Path) -> bool:
    """Whether weights and momenta of two checkpoints of three layers are the same bit for bit."""
    a, b = saved(one), saved(other)
    momenta = [[state["momentum_buffer"] for state in c["optimizer"]["state"].values()] for c in (a, b)]
    assert len(momenta[0]) == len(a["network"]) == 6  # weights and biases of three layers
    pairs = [*zip(a["network"].values(), b["network"].values()), *zip(*momenta)]
    return a["step"] == b["step"] and all(torch.equal(x, y) for x, y in pairs)
