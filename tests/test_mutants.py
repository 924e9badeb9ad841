"""The suite bites: every mutant of the theory is noticed by some test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_mutant_survives():
    script = Path(__file__).resolve().parents[1] / "scripts" / "mutants.py"
    outcome = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "SURVIVES" not in outcome.stdout and "mutants killed" in outcome.stdout
