"""The figures show the numbers."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import leave

from ebmrun.report.figures import drawn, layers, strengths
from ebmrun.report.runs import read


def test_the_figures_show_the_numbers(folder: Path) -> None:
    runs = read(folder)
    lines = {line.get_label(): line for line in strengths(runs).axes[0].containers}
    assert lines["pc"].lines[0].get_xydata() == pytest.approx(np.array([[0.01, 0.01], [0.1, 0.1]]))
    by_layer = layers(runs).axes[0]
    found = {line.get_label(): line for line in by_layer.containers}
    assert found["pc strength=0.1"].lines[0].get_xydata() == pytest.approx(np.array([[0, 0.2], [1, 0.05]]))
    assert [label.get_text() for label in by_layer.get_xticklabels()] == ["layer1", "layer2"]
    assert "bp" not in found  # an error of zero has no place on a logarithmic axis


def test_without_several_strengths_there_is_no_such_figure(tmp_path: Path) -> None:
    leave(tmp_path / "one", "pc", 0, 0.9)
    assert set(drawn(read(tmp_path))) == {"learning", "layers"}
