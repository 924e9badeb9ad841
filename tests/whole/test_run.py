"""A run on the bundled digits: it measures what it says, when it was asked to, and the same again."""

import subprocess
import sys

import pytest
import torch
from program import Command, environment
from run_folder import rows, same_weights, saved, summary, timeless


def test_the_error_is_that_of_the_nudge(command: Command) -> None:
    errors = {}
    for strength in ("1e-6", "1e-4", "1e-2"):
        assert command(f"nudge.strength={strength}", "trainer.max_steps=20", "alignment.every=1",
                       f"hydra.run.dir=by{strength}").status == 0
        errors[strength] = summary(f"by{strength}")["alignment/relative_error"]
    assert errors["1e-6"] <= 1e-5
    assert 1e-3 <= errors["1e-2"] <= 2e-2
    assert errors["1e-2"] / errors["1e-4"] == pytest.approx(100, rel=0.2)  # O(strength)


def test_the_published_scheme_reports_its_larger_error(command: Command) -> None:
    assert command("relax=gradient_flow", "relax.step_size=0.3", "relax.max_steps=50",
                   "trainer.max_steps=20", "alignment.every=1", "hydra.run.dir=state").status == 0
    found = summary("state")
    # A displacement of 1e-4 of the state keeps three digits of float32's seven.
    assert found["alignment/relative_error"] > 1e-3
    assert found["relax/residual"] > 1e-3 and found["relax/steps"] == 50
    assert found["relax/converged"] == 0
    assert {row["relax/converged"] for row in rows("state")} == {"0"}


SHORT = ("trainer.max_steps=40", "trainer.log_every=1", "alignment.every=1")


def test_two_runs_are_the_same_bit_for_bit(command: Command) -> None:
    assert command(*SHORT, "hydra.run.dir=here").status == 0
    elsewhere = [sys.executable, "-m", "ebmrun", "logger=csv", *SHORT, "hydra.run.dir=there"]
    subprocess.run(elsewhere, env=environment(OMP_NUM_THREADS=str(torch.get_num_threads())),
                   check=True, capture_output=True, timeout=120)
    assert same_weights("here", "there")
    assert timeless("here") == timeless("there")
    assert command(*SHORT, "seed=1", "hydra.run.dir=other").status == 0
    assert timeless("here") != timeless("other")


def test_pc_and_bp_share_their_weights_and_batches(command: Command) -> None:
    for algo in ("bp", "pc"):
        assert command(*SHORT, f"algo={algo}", "optim.lr=0", f"hydra.run.dir={algo}").status == 0
    bp, pc = saved("bp")["network"], saved("pc")["network"]
    assert all(torch.equal(bp[name], pc[name]) for name in bp)
    losses = {algo: [row["train/loss"] for row in rows(algo)] for algo in ("bp", "pc")}
    assert losses["bp"] == losses["pc"]  # with fixed weights, a batch's loss tells it from every other
    assert len(set(losses["bp"])) == 40


def test_rows_come_when_they_are_asked_for(command: Command) -> None:
    assert command("trainer.max_steps=25", "alignment.every=0", "hydra.run.dir=sparse").status == 0
    table = rows("sparse")
    assert [row["step"] for row in table] == ["10", "20", "23", "25"]  # and the end of an epoch of digits
    assert not [key for key in table[0] if key.startswith("alignment")]
    assert command("trainer.max_steps=9", "trainer.log_every=4", "alignment.every=6", "hydra.run.dir=mixed").status == 0
    assert [(row["step"], row["alignment/angle"] != "") for row in rows("mixed")] == [
        ("4", False), ("6", True), ("8", False), ("9", False)]


def test_the_probe_tells_backprop_from_what_is_not(command: Command) -> None:
    short = ("trainer.max_steps=4", "alignment.every=2", "probe.every=2", "arch.activation=tanh")
    for algo in ("pc", "pc_clamped", "pc_first_step", "bp"):
        assert command(*short, f"algo={algo}", f"hydra.run.dir={algo}").status == 0
    assert [row["probe/work_done"] != "" for row in rows("pc")] == [True, True]
    assert summary("pc")["probe/cosine_to_one_sweep"] > 1 - 1e-6 and summary("pc")["probe/work_done"] > 1 - 1e-4
    clamped = summary("pc_clamped")  # held against backprop by either key
    assert abs(clamped["probe/cosine_to_one_sweep"] - clamped["alignment/cosine"]) < 1e-3
    assert clamped["probe/cosine_to_one_sweep"] < 0.99
    for algo in ("pc_first_step", "bp"):
        assert {row[key] for row in rows(algo) for key in row if key.startswith("probe/")} == {""}
