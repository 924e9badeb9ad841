"""A folder of runs whose statistics are known."""

from pathlib import Path

import pytest
from made_runs import leave


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three seeds of backpropagation, and of two strengths of another: its third seed is worse by far, as is theirs."""
    for seed, accuracy in enumerate((0.90, 0.94, 0.5)):
        leave(tmp_path / f"bp-{seed}", "bp", seed, accuracy, error=0.0)
        for strength in ("0.1", "0.01"):
            leave(tmp_path / f"pc-{strength}-{seed}", "pc", seed, accuracy + 0.01 * seed, f"nudge.strength={strength}",
                  error=float(strength), strength=float(strength))
    return tmp_path
