"""Kill trainings at random moments, resume them, and compare with the training that was left alone.

    python scripts/kill.py [--kills 100] [--seed 0] [--folder FOLDER] [OVERRIDE ...]

Each life of a run is `ebmrun resume=true hydra.run.dir=RUN OVERRIDE ...` in a process that SIGKILL ends after a random
part of the time that the whole training takes. One life in four, and the first after a run has come to its end, is a
restart in the same folder (`resume=false`). After each kill, the folder must not say more than it has. A run that
outlives its part is compared, and every second time the next one begins: weights, optimizer, best.pt, summary.json and
metrics.csv (but for its clock) must be those of the run left alone, bit for bit. Prints one line for each kill; exits
with 1 at the first difference.
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
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ebmrun.command import cli
from ebmrun.training import checkpoint, folder

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
    for part in ("step", "network", "optimizer", "selection"):
        if not same(whole[part], parts[part]):
            return f"{part} in checkpoint.pt"
    kept = [each / "best.pt" for each in (alone, run)]
    if kept[0].exists() != kept[1].exists() or kept[0].exists() and not same(*(best(path) for path in kept)):
        return "best.pt"
    if rows(alone) != rows(run):
        return "metrics.csv"
    return "" if timeless(folder.summary(alone)) == timeless(folder.summary(run)) else "summary.json"


def best(path: Path) -> dict[str, Any]:
    """What best.pt holds, but for how its run was asked for."""
    return {key: value for key, value in checkpoint.load(path).items() if key != "config"}


def same(a: object, b: object) -> bool:
    """Equality, of tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.csv without its clock."""
    with (run / "metrics.csv").open(newline="") as file:
        return [timeless(row) for row in csv.DictReader(file)]


def timeless(found: dict[str, Any]) -> dict[str, Any]:
    """All but what the clock has measured."""
    return {key: value for key, value in found.items() if key != "time/step_ms"}


def truthful(run: Path) -> bool:
    """Whether a folder, whenever its run was killed, says no more than it has: a summary only with a checkpoint of as
    many steps, and a checkpoint, or the best one, only with the rows up to it."""
    kept = checkpoint.load(run / "checkpoint.pt")["step"] if (run / "checkpoint.pt").exists() else 0
    last = int(rows(run)[-1]["step"]) if (run / "metrics.csv").exists() and rows(run) else 0
    selected = checkpoint.load(run / "best.pt")["step"] if (run / "best.pt").exists() else 0
    return max(kept, selected) <= last and folder.summary(run).get("steps", kept) == kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="where the runs are left (default: nowhere)")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        compare(options.folder or Path(temporary), options.kills, options.seed, options.overrides)


def compare(place: Path, kills: int, seed: int, overrides: list[str]) -> None:
    """Kills as many times as asked, and lets every run come to its end."""
    moments = random.Random(seed)
    alone = place / "alone"
    life(alone, False, overrides)  # the first process of its kind takes longer to start
    start = time.perf_counter()
    life(alone, False, overrides)
    whole = time.perf_counter() - start
    killed = restarts = ends = 0
    with tqdm(total=kills, unit="kill", disable=None) as bar:
        while killed < kills:
            run = place / f"run{ends // 2}"  # each lives twice: the second time, in the folder of a finished run
            finished = ends % 2 == 1 and folder.summary(run) != {}
            while killed < kills:
                restart = folder.begun(run) and (finished or moments.random() < 0.25)
                seconds = moments.uniform(0, whole)
                if life(run, folder.begun(run) and not restart, overrides, seconds):
                    break
                finished = False
                killed, restarts = killed + 1, restarts + restart
                bar.update()
                kept = checkpoint.load(run / "checkpoint.pt")["step"] if (run / "checkpoint.pt").exists() else 0
                tqdm.write(f"kill {killed}: {run.name}{' restarted' * restart} after {seconds:.3f} s of {whole:.3f} s, "
                           f"step {kept} is safe")
                if not truthful(run):
                    raise SystemExit(f"{run.name} says more than it has; seed {seed}")
            else:
                life(run, folder.begun(run), overrides)
            if found := difference(alone, run):
                raise SystemExit(f"{run.name} differs from the one left alone in {found}; seed {seed}")
            ends += 1
    print(f"{killed} kills (seed {seed}), {restarts} of them of restarts, in {ends} runs of {len(rows(alone))} rows: "
          "each run ended bit-identical to the one left alone")


context = multiprocessing.get_context("forkserver")

if __name__ == "__main__":
    context.set_forkserver_preload(["ebmrun.experiment", "ebmrun.command.cli"])
    main()
