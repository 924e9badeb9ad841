"""The tables of results/feedback: angles are the first and the median of the last that a run measured, and what they
do not name is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from program import Command
from run_folder import rows

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("dataset=digits", "arch.hidden=[6]", "trainer.max_steps=8", "alignment.every=1", "device=cpu")


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "scripts"))
    import table_feedback

    yield table_feedback
    sys.path.remove(str(ROOT / "scripts"))


def test_a_sweep_becomes_a_table(script: ModuleType, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("-m", "algo=pc", "feedback=random,tied", *WORDS, "hydra.sweep.dir=sweep").status == 0
    monkeypatch.setattr(sys, "argv", ["table_feedback.py", "results", "sweep"])
    script.main()
    said = Path("results/README.md").read_text()
    tied, random = (line for line in said.splitlines() if line.startswith("| pc |"))
    assert tied.startswith("| pc | tied |") and random.startswith("| pc | random |")
    run = next(Path("sweep").glob("*feedback=random*"))
    for key, column in (("alignment/angle", 4), ("feedback/angle", 7)):
        angles = [float(row[key]) for row in rows(run)]
        assert len(angles) == 8
        assert random.split("|")[column].strip() == f"{angles[0]:.3g}° → {np.median(angles[-5:]):.3g}°"
    assert tied.split("|")[7].strip() == ""  # the transposes have no angle to measure
    assert Path("results/angles.png").stat().st_size > 10_000
    assert "784-6-10" in said and "feedback=random,tied" in said


def test_runs_that_it_does_not_name_are_refused(script: ModuleType, command: Command) -> None:
    assert command("-m", "algo=pc_first_step", "feedback=random,tied", *WORDS, "hydra.sweep.dir=sweep").status == 0
    with pytest.raises(SystemExit, match="pc_first_step, which the table does not name"):
        script.ordered(Path("sweep"))
