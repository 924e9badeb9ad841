"""Runs that were ended, by their own limit or by a signal, go on to what a run that never stopped comes to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from program import Command, environment
from run_folder import rows, same_weights, saved, timeless

from ebmrun.training.tracking import Tracker


def without_tests(run: str) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if not key.startswith("test/")} for row in timeless(run)]


def test_a_resumed_run_equals_one_that_never_stopped(command: Command) -> None:
    # Digits have 23 batches an epoch: 30 steps end inside the second, 60 inside the third.
    whole = ("trainer.epochs=10", "trainer.log_every=1")
    assert command(*whole, "trainer.max_steps=60", "hydra.run.dir=whole").status == 0
    assert command(*whole, "trainer.max_steps=30", "hydra.run.dir=parts").status == 0
    assert saved("parts")["step"] == 30
    assert command(*whole, "trainer.max_steps=60", "resume=true", "hydra.run.dir=parts").status == 0
    assert same_weights("whole", "parts")
    assert without_tests("whole") == without_tests("parts")
    assert timeless("whole")[-1] == timeless("parts")[-1]


def test_a_run_is_resumed_from_any_folder(command: Command, tmp_path: Path) -> None:
    assert command("trainer.epochs=2", "hydra.run.dir=whole").status == 0
    assert command("trainer.epochs=1", "hydra.run.dir=parts").status == 0
    assert command("trainer.epochs=2", "resume=parts").status == 0
    assert same_weights("whole", "parts")
    assert timeless("whole") == timeless("parts")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "parts"}


def test_what_cannot_be_resumed_is_refused(command: Command) -> None:
    status, [line] = command("resume=true", "hydra.run.dir=none")
    assert status == 2 and "cannot read the checkpoint" in line and not Path("none").exists()
    assert command("trainer.max_steps=5", "hydra.run.dir=run").status == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    status, [line] = command("trainer.max_steps=9", "resume=true", "optim.lr=0.5", "hydra.run.dir=run")
    assert status == 2 and "optim.lr: saved 0.0064, now 0.5" in line
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_can_go_on(command: Command, number: signal.Signals, status: int) -> None:
    settings = ("trainer.epochs=1000", "trainer.log_every=1", "alignment.every=0")
    process = subprocess.Popen([sys.executable, "-m", "ebmrun", "logger=csv", *settings, "hydra.run.dir=cut"],
                               env=environment(OMP_NUM_THREADS=str(torch.get_num_threads())),
                               stderr=subprocess.PIPE, text=True)
    metrics = Path("cut/metrics.csv")
    while not (metrics.exists() and metrics.read_text().count("\n") > 3):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", status)
    step = saved("cut")["step"]
    assert int(rows("cut")[-1]["step"]) == step
    assert not Path("cut/summary.json").exists()
    more = (*settings, f"trainer.max_steps={step + 10}")
    assert command(*more, "resume=true", "hydra.run.dir=cut").status == 0
    assert command(*more, "hydra.run.dir=whole").status == 0
    assert same_weights("cut", "whole")
    assert timeless("cut") == timeless("whole")


def test_a_signal_that_meets_a_failure_does_not_hide_its_message(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `torchrun` sends one to the others when a process has died, while these close their files."""
    close = Tracker.__exit__

    def terminated(self: Tracker, *error: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        close(self, *error)

    monkeypatch.setattr(Tracker, "__exit__", terminated)
    status, [line] = command("trainer.batch_size=1437", "trainer.epochs=40", "optim.lr=30", "hydra.run.dir=run")
    assert status == 1 and "diverged at layer" in line
