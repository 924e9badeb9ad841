"""The table of relaxations: its rows are what the solvers do, and its files agree."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from program import Command, composed

from ebmrun.experiment import build, first_batch

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "study=relaxation", "dataset=digits", "device=cpu", "trainer.batch_size=16", "study.seconds=0", "study.batches=2",
    "study.max_steps=12", "study.solvers=[conjugate,gradient_flow]",
    'study.problems=[{name: clamped, overrides: ["algo=pc_clamped"]}, {name: free, overrides: ["algo=ep_centered"]}]',
    "study.networks=[{name: deep, hidden: [8], times: 3, activation: tanh}, {name: own, hidden: [8], presets: [free]}]",
]


@pytest.fixture
def folder(command: Command) -> Path:
    assert command(*TINY, "hydra.run.dir=found").status == 0
    return Path("found")


def test_a_row_for_each_problem_network_and_solver(folder: Path) -> None:
    with (folder / "relaxation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["problem"], row["network"], row["solver"]) for row in rows] == [
        (problem, network, solver) for problem, network in (("clamped", "deep"), ("free", "deep"), ("free", "own"))
        for solver in ("conjugate", "gradient_flow")]
    facts = json.loads((folder / "relaxation.json").read_text())
    assert [row["network"] for row in facts["rows"]] == [row["network"] for row in rows]
    assert facts["max_steps"] == 12 and "study=relaxation" in facts["command"]
    for row in rows:
        assert float(row["ratio"]) == pytest.approx(float(row["ms"]) / float(row["plain_ms"]))
        assert float(row["settled"]) in (0, 0.5, 1)
        assert (float(row["residual"]) <= float(row["tolerance"])) is (float(row["settled"]) == 1)
    # A step of 0.1 leaves (1 - 0.1 mu)^12 of the slowest part of the way, and no mu exceeds 10 here.
    assert {row["settled"] for row in rows if row["solver"] == "gradient_flow"} == {"0.0"}


def test_the_first_row_is_the_relaxation_of_a_run_with_these_words(folder: Path) -> None:
    row = json.loads((folder / "relaxation.json").read_text())["rows"][0]
    parts = build(composed("algo=pc_clamped", "relax=conjugate", "relax.max_steps=12", "arch.hidden=[8,8,8]",
                           "arch.activation=tanh", "trainer.batch_size=16"))
    estimate = parts.algorithm.estimate(parts.network, *first_batch(parts))
    assert row["residual"] >= estimate.residual and abs(row["steps"] - estimate.steps) <= 3


def test_the_figure_and_the_page_show_every_row(folder: Path) -> None:
    script = ROOT / "scripts" / "figure_relaxation.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True, timeout=120)
    page = (folder / "README.md").read_text()
    assert page.count("| conjugate |") == page.count("| gradient_flow |") == 3
    assert (folder / "relaxation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("override", "says"), [
    ("relax=sweep", "relax=sweep: study=relaxation sets it in each row"),
    ("algo=pc", "algo=pc: study=relaxation sets it in each row"),
    ("study.batches=0", "study.batches=0"),
    ("study.networks=[{name: deep, presets: [slow]}]", "asks for 'slow' on deep"),
])
def test_what_makes_no_table_is_refused(command: Command, override: str, says: str) -> None:
    ended = command(*TINY, override, "hydra.run.dir=none")
    assert ended.status == 2 and says in ended.lines[-1] and not Path("none").exists()
