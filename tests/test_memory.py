"""Memory that is free again stays with the process, where its C library is glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

CODE = """
import os, torch
from ebmrun.memory import keep_freed

told = keep_freed()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") if told else 0

torch.ones(10)
before = resident()
torch.ones(3 * 2**21)
print(told, resident() - before)
"""


def test_a_large_block_stays_with_the_process() -> None:
    """24 MiB that were written and are free again, as the kernel counts what the process has in memory."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120)
    told, kept = done.stdout.split()
    assert told == str(platform.libc_ver()[0] == "glibc")
    assert told == "False" or int(kept) > 20 * 2**20
