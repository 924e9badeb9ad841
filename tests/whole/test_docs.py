"""What README and docs/ point to is there."""

import ast
import re
from pathlib import Path
from pydoc import locate

import pytest

from ebmrun.training.summary import near

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_the_readme_is_for_the_first_ten_minutes() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    assert {path.name for path in (ROOT / "docs").iterdir()} == set(re.findall(r"\]\(docs/(\w+\.\w+)\)", text))


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@each_page
def test_what_a_page_names_is_in_the_package_and_in_the_tests(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`(ebmrun(?:\.\w+)+)`", text)
    assert not [name for name in named if locate(name) is None]
    tests = re.findall(r"`(\w+\.py)::(\w+)`", text)
    for file, test in tests:
        tree = ast.parse((ROOT / "tests/theory" / file).read_text())
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (file, test)
    for path in re.findall(r"`((?:tests|scripts|conf|ebmrun|\.ci)/[a-z\d_./]+)`", text):
        assert (ROOT / path).exists(), path


def test_what_a_run_prints_last_is_written_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert near(tmp_path / "outputs" / "a") == "outputs/a" == near("outputs/a")  # as the README shows it
    assert near(tmp_path.parent / "b") == str(tmp_path.parent / "b")
    assert near("https://host/lab/project/runs/1") == "https://host/lab/project/runs/1"
