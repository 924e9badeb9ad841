"""Kill trainings at random moments, resume them, and compare with the training that was left alone.

    python scripts/kill.py [--kills 100] [--seed 0] [--folder FOLDER] [OVERRIDE ...]

Each life of a run is `ebmrun resume=true hydra.run.dir=RUN OVERRIDE ...` in a process that SIGKILL ends after a random
part of the time that the whole training takes; a run that outlives its part is compared, and the next one begins.
Weights, optimizer and metrics.csv (but for its clock) must be those of the run left alone, bit for bit. Prints one line
for each kill; exits with 1 at the first difference.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path

import torch
from tqdm import tqdm

from ebmrun.command import cli
from ebmrun.training import checkpoint

# Some hundred steps between twenty checkpoints, and a row for each step.
SMALL = ["algo=pc", "dataset=digits", "device=cpu", "logger=csv", "trainer.epochs=20", "trainer.log_every=1"]


def train(run: Path, resume: bool, overrides: list[str]) -> None:
    """One life of a run; the body of a process."""
    torch.set_num_threads(1)
    sys.argv = ["ebmrun", f"hydra.run.dir={run}", f"resume={str(resume).lower()}", *SMALL, *overrides]
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        cli.main()


def life(run: Path, resume: bool, overrides: list[str], seconds: float | None = None) -> bool:
    """Whether a life of a run came to its own end, rather than to that of its seconds."""
    # Processes of this kind have all modules at hand: what is killed is the run, and not the start of Python.
    process = context.Process(target=train, args=(run, resume, overrides))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise SystemExit(f"{run} ended with status {process.exitcode}")
    return process.exitcode == 0


def difference(alone: Path, run: Path) -> str:
    """What tells a run from the one left alone; empty for nothing."""
    whole, parts = (checkpoint.load(each / "checkpoint.pt") for each in (alone, run))
    for part in ("step", "network", "optimizer"):
        if not same(whole[part], parts[part]):
            return f"{part} in checkpoint.pt"
    return "" if rows(alone) == rows(run) else "metrics.csv"


def same(a: object, b: object) -> bool:
    """Equality, of tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without its clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "time/step_ms"} for row in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="where the runs are left (default: nowhere)")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(options.folder or Path(temporary), options.kills, options.seed, options.overrides)


def compare(folder: Path, kills: int, seed: int, overrides: list[str]) -> None:
    """Kills as many times as asked, and lets every run come to its end."""
    moments = random.Random(seed)
    alone = folder / "alone"
    life(alone, False, overrides)  # the first process of its kind takes longer to start
    start = time.perf_counter()
    life(alone, False, overrides)
    whole = time.perf_counter() - start
    killed = 0
    with tqdm(total=kills, unit="kill", disable=None) as bar:
        for number in count():
            run = folder / f"run{number}"
            begun = False
            while killed < kills:
                seconds = moments.uniform(0, whole)
                if life(run, begun, overrides, seconds):
                    break
                begun = (run / ".hydra" / "config.yaml").is_file()
                killed += 1
                bar.update()
                kept = checkpoint.load(run / "checkpoint.pt")["step"] if (run / "checkpoint.pt").exists() else 0
                tqdm.write(f"kill {killed}: run {number} after {seconds:.3f} s of {whole:.3f} s, step {kept} is safe")
            else:
                life(run, begun, overrides)
            if found := difference(alone, run):
                raise SystemExit(f"run {number} differs from the one left alone in {found}; seed {seed}")
            if killed == kills:
                break
    print(f"{killed} kills (seed {seed}) in {number + 1} runs of {len(rows(alone))} rows: each run ended bit-identical "
          "to the one left alone")


context = multiprocessing.get_context("forkserver")

if __name__ == "__main__":
    context.set_forkserver_preload(["ebmrun.experiment", "ebmrun.command.cli", "sklearn.datasets", "torch._dynamo"])
    main()
