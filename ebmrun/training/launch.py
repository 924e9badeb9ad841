"""How this process was started: known before torch is loaded, and before there is a job."""

from __future__ import annotations

import os


def launched() -> bool:
    """Whether `torchrun` started it, as torch itself tells."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def leads() -> bool:
    """Whether this process is the first of those that `torchrun` started, or the only one."""
    return not launched() or os.environ["RANK"] == "0"
