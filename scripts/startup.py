"""How long the command takes to answer, as ratios to `import torch`: medians of five, in turns. Exit status 1 where one
is above its limit.

    python scripts/startup.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from statistics import median

TURNS = 5
EBMRUN = [sys.executable, "-m", "ebmrun"]
RUN = [*EBMRUN, "trainer.max_steps=1", "resume=false", "hydra.run.dir=run"]
CASES: dict[str, tuple[list[str], int, float | None]] = {  # words, exit status, limit
    "import torch": ([sys.executable, "-c", "import torch"], 0, None),
    "--help": ([*EBMRUN, "--help"], 0, 0.35),
    "--cfg job": ([*EBMRUN, "algo=ep", "--cfg", "job"], 0, 0.35),
    "a misspelt key": ([*EBMRUN, "sead=1"], 2, 0.35),
    "a value out of range": ([*EBMRUN, "nudge.strength=-1"], 2, 0.35),
    "TAB after algo=": ([*EBMRUN, "--completion", "query", "ebmrun algo="], 0, 0.35),
    "TAB after nothing": ([*EBMRUN, "--completion", "query", "ebmrun "], 0, 0.35),
    "one step on digits, logger=csv": ([*RUN, "logger=csv"], 0, 2.0),
    "one step on digits, with Weights & Biases": (RUN, 0, None),
}


def seconds(words: list[str], status: int, folder: str) -> float:
    """The time of one call, which has to end as it should."""
    variables = {"WANDB_MODE": "offline", "EBMRUN_DATA": os.devnull}
    if "query" in words:
        *words, variables["COMP_LINE"] = words
    start = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - start
    if done.returncode != status:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return taken


def main() -> None:
    """Measure and print."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS + 1):
            for name, (words, status, _) in CASES.items():
                taken = seconds(words, status, folder)
                if turn:  # the first one reads files that the others find in memory
                    times[name].append(taken)
    unit = median(times["import torch"])
    slow = []
    print(f"{'':42} {'s':>6}  ratio  limit")
    for name, (_, _, limit) in CASES.items():
        ratio = median(times[name]) / unit
        print(f"{name:42} {ratio * unit:6.2f}  {ratio:5.2f}  {limit or '':5}")
        if limit and ratio > limit:
            slow.append(name)
    if slow:
        raise SystemExit(f"too slow: {', '.join(slow)}")


if __name__ == "__main__":
    main()
