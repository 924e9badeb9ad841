"""The tutorial runs from its first cell to its last, and shows what it is committed with."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image
from program import ROOT, environment

PATH = ROOT / "docs" / "tutorial.ipynb"


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell: Any) -> list[str]:
    return [output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {})]


def said(cell: Any) -> str:
    """What a cell printed, without the figures: times differ from run to run, and last digits between machines."""
    return re.sub(r"[\d.e+-]+", "#", "".join(output.get("text", "") for output in cell.outputs))


def test_it_is_committed_with_its_outputs_and_without_a_path_of_its_machine() -> None:
    text = PATH.read_text()
    assert len(text) < 300_000
    assert not re.search(r"/(tmp|root|home|work|Users)/", text)
    cells = code(nbformat.reads(text, 4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # in order, from a fresh start
    assert all(output.output_type != "error" and output.get("name") != "stderr"
               for cell in cells for output in cell.outputs)
    shown = [Image.open(io.BytesIO(base64.b64decode(each))) for cell in cells for each in pictures(cell)]
    assert len(shown) == 5 and all(len(set(each.convert("L").resize((60, 40)).getdata())) > 5 for each in shown)


@pytest.mark.slow
def test_it_runs_in_an_empty_folder_and_shows_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    committed = nbformat.read(PATH, 4)
    notebook = nbformat.read(PATH, 4)
    for cell in code(notebook):
        cell.outputs = []
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    for new, old in zip(code(notebook), code(committed), strict=True):
        assert len(pictures(new)) == len(pictures(old))
        assert said(new) == said(old)
    assert (tmp_path / "sweeps/nudge/report/report.html").is_file()
    assert len(list(tmp_path.glob("sweeps/nudge/*/summary.json"))) == 8
