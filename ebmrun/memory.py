"""Memory between steps. The allocator of Linux gives large blocks back to the system as soon as they are free, to clear
new ones for the next step: a fourth of the time of a step of a convolutional network on a CPU."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names for them, in malloc.h
LARGEST, BLOCK = 2**31 - 1, 2**25  # bytes: the largest number that fits, and the largest block that glibc allows


def keep_freed() -> bool:
    """Keeps freed memory for this process, and says whether the allocator is one that can be told to."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another system, or another C library
        return False
    return bool(mallopt(TRIM_THRESHOLD, LARGEST) and mallopt(MMAP_THRESHOLD, BLOCK))
