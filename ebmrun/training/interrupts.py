"""SIGINT and SIGTERM: requests to stop after the batch at hand while a run trains, otherwise an orderly end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass
class Interrupt:
    """The number of the signal that has come; 0 for none."""

    number: int = 0

    def stops(self, agree: Callable[[int], int]) -> bool:
        """Whether to stop, once ``agree`` has made one number of those of all processes that train together."""
        self.number = agree(self.number)
        return self.number > 0

    @property
    def exit_status(self) -> int:
        """128 + the signal's number: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


@contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Within the block, the first SIGINT or SIGTERM is only noted; a second one acts as usual."""
    interrupt = Interrupt()
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.number = number
        restore()

    def restore() -> None:
        for each, handler in previous.items():
            signal.signal(each, handler)

    for each in (signal.SIGINT, signal.SIGTERM):
        previous[each] = signal.signal(each, note)
    try:
        yield interrupt
    finally:
        restore()


@contextmanager
def termination() -> Iterator[None]:
    """Within the block, SIGTERM raises SystemExit(143), so that whatever was begun is tidied up on the way out."""
    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
