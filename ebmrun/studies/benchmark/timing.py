"""Honest measurements of a call: time against another one in turns, and peak memory."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from itertools import accumulate
from statistics import median
from typing import Any

import torch
from torch.autograd.profiler import profile

BLOCK = 5e-3  # seconds: short calls are repeated that long, so that neither the clock nor a cold cache counts
TURNS = 3  # at least

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would print lines of its own

Work = Callable[[], Any]


def clock(device: torch.device) -> float:
    """Seconds, after the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(work: Work, calls: int, device: torch.device) -> float:
    """The mean over that many calls."""
    start = clock(device)
    for _ in range(calls):
        work()
    return (clock(device) - start) / calls


def in_turns(first: Work, second: Work, budget: float, device: torch.device) -> tuple[float, float, int]:
    """Medians of the seconds that a call of each takes, a block of one after a block of the other, for
    ``budget`` seconds; and the number of turns. Both are warmed up before."""
    blocks = [(work, _calls(work, device)) for work in (first, second)]
    taken: list[list[float]] = []
    end = time.perf_counter() + budget
    while len(taken) < TURNS or time.perf_counter() < end:
        taken.append([seconds(work, calls, device) for work, calls in blocks])
    ours, theirs = (median(times) for times in zip(*taken, strict=True))
    return ours, theirs, len(taken)


def _calls(work: Work, device: torch.device) -> int:
    """Calls that fill a block, after a first one for warming up."""
    if seconds(work, 1, device) > 100 * BLOCK:
        return 1
    return max(1, int(BLOCK / seconds(work, 1, device)))


def peak_memory(work: Work, device: torch.device) -> int:
    """Bytes of tensors that a call holds at once beyond those held before it.

    Counted by CUDA's allocator, or on a CPU from the allocations and releases that torch's profiler sees;
    what libraries allocate by themselves is left out.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(profile_memory=True) as seen:
        work()
    events = [event for event in seen.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())), default=0)
