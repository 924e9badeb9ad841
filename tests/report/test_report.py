"""The command: both pages, and one line for what cannot be reported on."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import leave
from program import Command, Ended

from ebmrun.report import cli


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["ebmrun-report", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return Ended(int(end.code or 0), capfd.readouterr().err.splitlines())
        return Ended(0, capfd.readouterr().err.splitlines())

    return run


def test_both_pages_and_all_figures(report: Callable[..., Ended], folder: Path) -> None:
    (folder / "lost" / ".hydra").mkdir(parents=True)
    (folder / "lost" / ".hydra" / "config.yaml").touch()
    leave(folder / "certified", "pc", 0, 0.9, study="ebmrun.studies.certify.study.run")
    assert report(folder) == (0, [])
    plain, page = ((folder / "report" / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert all(name in plain for name in ("learning.png", "layers.png", "strengths.png")) and ".png" not in page
    for text in (plain, page):
        assert "9 finished runs, 1 not counted, 1 of studies" in text
        assert "lost" in text and "0.78 ± 0.14" in text and "0.01 ± 0.0058" in text and "certified" in text
    figures = list((folder / "report").glob("*.png"))
    assert len(figures) == 3 and all(path.read_bytes().startswith(b"\x89PNG") for path in figures)
    again = {path: path.read_bytes() for path in (folder / "report").glob("report.*")}
    assert report(folder) == (0, [])  # the report itself is no run
    assert {path: path.read_bytes() for path in again} == again


def test_what_the_command_leaves_is_read_as_it_is(
    report: Callable[..., Ended], command: Command, tmp_path: Path
) -> None:
    """A sweep, the same runs again elsewhere with one more seed, and a study: three seeds are three runs and pairs."""
    short = ("-m", "algo=bp,pc", "arch.hidden=[8]", "trainer.max_steps=3", "trainer.log_every=1")
    assert command(*short, "seed=0,1", "hydra.sweep.dir=runs/first").status == 0
    assert command(*short, "seed=0,1,2", "device=cpu", "hydra.sweep.dir=runs/more").status == 0
    assert command("study=certify", "arch.hidden=[]", "trainer.batch_size=4", "study.strengths.points=8",
                   "study.gains.points=5", "hydra.run.dir=runs/certified").status == 0
    assert report(tmp_path / "runs") == (0, [])
    text = (tmp_path / "runs" / "report" / "report.md").read_text()
    assert "6 finished runs, 4 not counted, 1 of studies." in text
    assert text.count("| more/") == text.count("the same configuration and seed") == 4
    assert "| bp | 3 | " in text and text.count("| pc | 3 | ") == 2 and "| certified | certify" in text


def test_baseline_and_place_are_the_users(report: Callable[..., Ended], tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "deep" / "page"
    for algo, accuracy in (("bp", 0.9), ("pc", 0.7), ("ep", 0.8)):
        leave(runs / algo, algo, 0, accuracy)
    assert report(runs, "--baseline", "pc", "--out", out) == (0, [])
    text = (out / "report.md").read_text()
    assert "## Differences from pc" in text and "| bp | 1 | 0.2 |" in text and "| ep | 1 | 0.1 |" in text
    assert sorted(path.name for path in runs.iterdir()) == ["bp", "ep", "pc"]


def test_without_backpropagation_there_is_no_baseline_to_guess(report: Callable[..., Ended], tmp_path: Path) -> None:
    for algo in ("pc", "ep"):
        leave(tmp_path / algo, algo, 0, 0.9)
    assert report(tmp_path) == (0, [])
    assert "Differences" not in (tmp_path / "report" / "report.md").read_text()


def test_that_nothing_pairs_with_the_baseline_is_said(report: Callable[..., Ended], tmp_path: Path) -> None:
    leave(tmp_path / "bp", "bp", 0, 0.9)
    leave(tmp_path / "pc", "pc", 1, 0.9)
    assert report(tmp_path) == (0, [])
    text = (tmp_path / "report" / "report.md").read_text()
    assert "no run has the seed and the settings of exactly one run of bp." in text


def test_what_cannot_be_reported_on_is_one_line(report: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    leave(tmp_path / "runs" / "one", "pc", 0, 0.9)
    for arguments, named in [
        ([tmp_path / "absent"], f"{tmp_path / 'absent'} is no folder: name one"),
        ([tmp_path / "empty"], f"{tmp_path / 'empty'} holds no runs: name a folder"),
        ([tmp_path / "runs", "--baseline", "chl"], "--baseline=chl has no finished run in"),
        ([tmp_path / "runs", "--out", "/proc/report"], "cannot write /proc/report"),
        ([tmp_path / "runs", "--watch", "0"], "--watch=0 must be a positive number of seconds: try 5"),
        ([tmp_path / "runs", "--watch", "nan"], "--watch=nan must be"),
        ([tmp_path / "runs", "--bogus"], "unrecognized arguments: --bogus"),
        ([], "folder"),
    ]:
        status, [line] = report(*arguments)
        assert status == 2 and line.startswith("ebmrun-report: error: ") and named in line
    assert sorted(os.listdir(tmp_path)) == ["empty", "runs"] and os.listdir(tmp_path / "runs") == ["one"]
    assert not os.listdir(tmp_path / "empty")
