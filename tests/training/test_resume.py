"""Runs that were ended, or killed, go on to what a run left alone comes to."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from program import ROOT, Command, environment
from run_folder import timeless

from ebmrun.training import checkpoint


@pytest.fixture
def command(command: Command) -> Command:
    """The command on the CPU, of which alone it is said that it goes on bit for bit."""
    return partial(command, "device=cpu")


def files(folder: str) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(folder).rglob("*") if path.is_file()}


def kill(*arguments: str, timeout: int) -> str:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "kill.py"), *arguments], capture_output=True,
                          text=True, env=environment(), timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_killed_runs_end_bit_identical(tmp_path: Path) -> None:
    said = kill("--kills", "5", "--seed", "1", "--folder", str(tmp_path), "trainer.epochs=10", timeout=300)
    assert "5 kills (seed 1)" in said and "bit-identical" in said
    finished = [path.parent for path in tmp_path.glob("*/summary.json")]
    assert len(finished) >= 2
    for run in finished:  # a row for each of the 23 batches of each epoch of the digits, once
        assert [row["step"] for row in timeless(run)] == [str(step) for step in range(1, 231)]
        assert not list(run.glob(".*.new"))


@pytest.mark.slow
def test_a_hundred_killed_runs_end_bit_identical() -> None:
    assert "100 kills" in kill(timeout=3600)


@pytest.mark.slow
def test_killed_runs_of_another_optimizer_and_energy_end_bit_identical() -> None:
    assert "10 kills" in kill("--kills", "10", "algo=ep_centered", "optim=adam", "optim.lr=1e-3", "trainer.epochs=3",
                              timeout=1800)


@pytest.mark.slow
def test_killed_runs_that_are_augmented_scheduled_and_validated_end_bit_identical() -> None:
    settings = ("dataset.validation=0.2", "dataset.normalise=standard", "trainer.patience=8", "augment=crop_flip",
                "augment.padding=1", "schedule=warmup_cosine", "optim=adamw")
    assert "30 kills" in kill("--kills", "30", *settings, timeout=1800)


def test_the_state_of_the_optimizer_goes_on(command: Command) -> None:
    # Digits have 23 batches an epoch: 30 steps end inside the second.
    settings = ("optim=adam", "optim.lr=1e-3", "trainer.log_every=1")
    assert command(*settings, "trainer.max_steps=40", "hydra.run.dir=whole")[0] == 0
    assert command(*settings, "trainer.max_steps=30", "hydra.run.dir=parts")[0] == 0
    assert command(*settings, "trainer.max_steps=40", "hydra.run.dir=parts", "resume=true")[0] == 0
    whole, parts = (checkpoint.load(Path(name, "checkpoint.pt")) for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 40
    for one, other in zip(whole["optimizer"]["state"].values(), parts["optimizer"]["state"].values()):
        assert one.keys() == other.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_rounded_products_go_on_bit_for_bit(command: Command) -> None:
    """With weights in float32; another precision is another run."""
    settings = ("algo=pc", "precision=bf16", "trainer.log_every=1", "alignment.every=5")
    assert command(*settings, "trainer.max_steps=40", "hydra.run.dir=whole")[0] == 0
    assert command(*settings, "trainer.max_steps=30", "hydra.run.dir=parts")[0] == 0
    assert command(*settings, "trainer.max_steps=40", "hydra.run.dir=parts", "resume=true")[0] == 0
    whole, parts = (checkpoint.load(Path(name, "checkpoint.pt")) for name in ("whole", "parts"))
    assert whole["network"].keys() == parts["network"].keys()
    assert all(value.dtype == torch.float32 and torch.equal(value, parts["network"][key])
               for key, value in whole["network"].items())
    trained = [[{key: value for key, value in row.items() if not key.startswith("test/")} for row in timeless(run)]
               for run in ("whole", "parts")]  # the first part ended in an evaluation
    assert trained[0] == trained[1] and len(trained[0]) == 40
    status, [line] = command("algo=pc", "trainer.log_every=1", "alignment.every=5", "trainer.max_steps=50",
                             "hydra.run.dir=parts", "resume=true")
    assert status == 2 and "precision: saved bf16, now float32" in line


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(command: Command) -> None:
    settings = ("trainer.max_steps=30", "trainer.log_every=1")
    assert command(*settings, "hydra.run.dir=whole")[0] == 0
    assert command(*settings, "hydra.run.dir=killed")[0] == 0
    Path("killed/checkpoint.pt").unlink()  # what is left of a run within its first epoch
    Path("killed/summary.json").unlink()
    assert command(*settings, "hydra.run.dir=killed", "resume=true")[0] == 0
    assert timeless("killed") == timeless("whole")


def test_a_finished_run_is_left_as_it_is(command: Command) -> None:
    settings = ("trainer.max_steps=5", "hydra.run.dir=run")
    assert command(*settings)[0] == 0
    before = files("run")
    assert command(*settings, "resume=true")[0] == 0
    assert files("run") == before


def test_a_run_that_ended_without_its_summary_gets_it(command: Command) -> None:
    settings = ("trainer.max_steps=5", "hydra.run.dir=run")
    assert command(*settings)[0] == 0
    summary = Path("run/summary.json")
    before = summary.read_text()
    summary.unlink()
    assert command(*settings, "resume=true")[0] == 0
    assert summary.read_text() == before


def test_a_summary_that_was_cut_is_written_anew(command: Command) -> None:
    settings = ("trainer.max_steps=5", "hydra.run.dir=run")
    assert command(*settings)[0] == 0
    before = Path("run/summary.json").read_text()
    Path("run/summary.json").write_text(before[:20])
    assert command(*settings, "resume=true")[0] == 0
    assert Path("run/summary.json").read_text() == before


def test_a_run_that_lost_its_rows_says_so(command: Command) -> None:
    assert command("trainer.max_steps=5", "hydra.run.dir=run")[0] == 0
    Path("run/metrics.csv").unlink()
    status, [line] = command("trainer.max_steps=9", "hydra.run.dir=run", "resume=true")
    assert status == 2 and "run/metrics.csv is gone" in line


@pytest.mark.parametrize("contents", [
    {}, {"config": "text"}, {"step": "5"}, {"optimizer": {}},
    {"network": {"layers.0.maps.0.weight": torch.zeros(2, 2)}},
])
def test_a_checkpoint_of_no_run_is_refused(command: Command, contents: dict) -> None:
    assert command("trainer.max_steps=5", "hydra.run.dir=run")[0] == 0
    whole = torch.load("run/checkpoint.pt", weights_only=True)
    torch.save(whole | contents if contents else {}, "run/checkpoint.pt")
    before = files("run")
    status, [line] = command("trainer.max_steps=9", "hydra.run.dir=run", "resume=true")
    assert status == 2 and "run/checkpoint.pt" in line
    assert files("run") == before


def test_a_checkpoint_of_another_network_says_what_differs(command: Command) -> None:
    assert command("trainer.max_steps=5", "hydra.run.dir=run")[0] == 0
    before = files("run")
    status, [line] = command("trainer.max_steps=9", "hydra.run.dir=run", "resume=true", "arch.hidden=[7]", "seed=3")
    assert status == 2
    assert "arch.hidden: saved [128, 64], now [7]" in line and "seed: saved 0, now 3" in line
    assert files("run") == before


def test_several_runs_cannot_go_on_from_one(command: Command) -> None:
    assert command("trainer.max_steps=5", "hydra.run.dir=run")[0] == 0
    before = files("run")
    status, lines = command("-m", "trainer.max_steps=9", "resume=run", "seed=0,1", "hydra.sweep.dir=sweep")
    assert status == 2 and "hydra.sweep.dir=PATH" in lines[0]
    assert files("run") == before
