"""The report of a folder of runs: numbers by hand, differences in pairs, and nothing dropped in silence."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))

import report_figures
import report_runs
import report_tables
from report import write


def leave(folder: Path, algo: str, seed: int, accuracy: float, *overrides: str, error: float = 0.1,
          strength: float = 1e-4) -> Path:
    """What a run leaves behind."""
    (folder / ".hydra").mkdir(parents=True)
    words = [f"algo={algo}", f"seed={seed}", "logger=csv", *overrides]
    config = {"algo": {"name": algo}, "nudge": {"strength": strength}, "energy": {"feedback_gain": 1.0}}
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.csv").write_text(
        "step,train/loss,test/loss,test/accuracy,alignment/relative_error,alignment/relative_error/layer1,"
        f"alignment/relative_error/layer2\n1,0.5,,,{error},{2 * error},{error / 2}\n2,0.4,0.3,{accuracy},,,\n")
    summary = {"algo": algo, "seed": seed, "steps": 2, "test/accuracy": accuracy, "train/loss": 0.4, "test/loss": 0.3,
               "alignment/relative_error": error}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three seeds of backpropagation, and of two strengths of another: its third seed is worse by far, as is theirs."""
    for seed, accuracy in enumerate((0.90, 0.94, 0.5)):
        leave(tmp_path / f"bp-{seed}", "bp", seed, accuracy, error=0.0)
        for strength in ("0.1", "0.01"):
            leave(tmp_path / f"pc-{strength}-{seed}", "pc", seed, accuracy + 0.01 * seed, f"nudge.strength={strength}",
                  error=float(strength), strength=float(strength))
    return tmp_path


def test_means_have_the_standard_error_of_the_mean(folder: Path) -> None:
    table = report_tables.means(report_runs.read(folder).table).set_index(["algo", "nudge.strength"])
    assert list(table.index) == [("bp", "default"), ("pc", "0.01"), ("pc", "0.1")]
    assert set(table["runs"]) == {3}
    # By hand: mean 0.78, deviations 0.12, 0.16, -0.28, variance 0.1184 / 2, standard error sqrt(0.0592 / 3) = 0.1405.
    assert table.loc[("bp", "default"), "test accuracy"] == "0.78 ± 0.14"
    assert table.loc[("pc", "0.1"), "relative error"] == "0.1"


def test_differences_are_paired_by_seed(folder: Path) -> None:
    table = report_tables.differences(report_runs.read(folder).table, "bp").set_index(["algo", "nudge.strength"])
    assert set(table["pairs"]) == {3}
    # By hand: differences 0, 0.01, 0.02: the scatter of the seeds themselves, 0.14, is gone. sqrt(1e-4 / 3) = 0.0058.
    assert table.loc[("pc", "0.1"), "Δ test accuracy"] == "0.01 ± 0.0058"


def test_differences_keep_to_settings_that_the_baseline_moves_too(tmp_path: Path) -> None:
    for rate, shift in (("0.1", 0.0), ("0.2", 0.05)):
        leave(tmp_path / f"bp{rate}", "bp", 0, 0.8 + shift, f"optim.lr={rate}")
        leave(tmp_path / f"pc{rate}", "pc", 0, 0.81 + 3 * shift, f"optim.lr={rate}")
    table = report_tables.differences(report_runs.read(tmp_path).table, "bp").set_index("optim.lr")
    assert table.loc["0.1", "Δ test accuracy"] == "0.01" and table.loc["0.2", "Δ test accuracy"] == "0.11"


def test_missing_and_broken_runs_are_listed(folder: Path) -> None:
    sweep = folder / "sweep"
    leave(sweep / "0-seed=7", "bp", 7, 0.9)
    leave(sweep / "4-seed=9", "bp", 9, 0.9)
    (sweep / "multirun.yaml").touch()
    (sweep / "1-failed").mkdir()
    (sweep / "1-failed" / "failed.json").write_text('{"exit_status": 1, "error": "train/loss=nan at step 3"}')
    (leave(sweep / "2-cut", "bp", 8, 0.9) / "summary.json").write_text('{"algo": "b')
    (leave(sweep / "3-stopped", "bp", 8, 0.9) / "summary.json").unlink()
    (leave(folder / "emptied", "bp", 8, 0.9) / "metrics.csv").write_text("")
    with (leave(folder / "continued", "bp", 8, 0.9) / "metrics.csv").open("a") as file:
        file.write("3,0.3,,,,,\n")  # it was given more to do after its summary, and has not come to that end
    runs = report_runs.read(folder)
    assert len(runs.table) == 9 + 2
    amiss = dict(runs.amiss)
    assert amiss.keys() == {"sweep/1-failed", "sweep/2-cut", "sweep/3-stopped", "emptied", "continued"}
    assert amiss["sweep/1-failed"] == "failed: train/loss=nan at step 3"
    assert "broken" in amiss["sweep/2-cut"] and "step 0" in amiss["emptied"]
    assert "not finished" in amiss["continued"] and "step 3" in amiss["continued"]
    assert "not finished" in amiss["sweep/3-stopped"] and "step 2" in amiss["sweep/3-stopped"]
    for path in sorted((sweep / "2-cut").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert ("sweep/2-...", "missing: the sweep has no such run") in report_runs.read(folder).amiss


def test_both_pages_and_all_figures(folder: Path) -> None:
    (folder / "lost" / ".hydra").mkdir(parents=True)
    (folder / "lost" / ".hydra" / "config.yaml").touch()
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "report.py"), str(folder)], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0 and not done.stderr
    plain, page = ((folder / "report" / f"report.{kind}").read_text() for kind in ("md", "html"))
    for text in (plain, page):
        assert all(name in text for name in ("learning.png", "layers.png", "strengths.png"))
        assert "lost" in text and "0.78 ± 0.14" in text and "0.01 ± 0.0058" in text
    figures = list((folder / "report").glob("*.png"))
    assert len(figures) == 3 and all(path.read_bytes().startswith(b"\x89PNG") for path in figures)


def test_the_figures_show_the_numbers(folder: Path) -> None:
    runs = report_runs.read(folder)
    lines = {line.get_label(): line for line in report_figures.strengths(runs).axes[0].containers}
    assert lines["pc"].lines[0].get_xydata() == pytest.approx(np.array([[0.01, 0.01], [0.1, 0.1]]))
    by_layer = {line.get_label(): line for line in report_figures.layers(runs).axes[0].containers}
    assert by_layer["pc strength=0.1"].lines[0].get_xydata() == pytest.approx(np.array([[1, 0.2], [2, 0.05]]))
    assert "bp" not in by_layer  # an error of zero has no place on a logarithmic axis


def test_without_several_strengths_there_is_no_such_figure(tmp_path: Path) -> None:
    leave(tmp_path / "one", "pc", 0, 0.9)
    runs = report_runs.read(tmp_path)
    assert report_figures.strengths(runs) is None
    write(runs, "One", "bp", tmp_path / "report")
    assert "strengths" not in (tmp_path / "report" / "report.md").read_text()


def test_a_folder_without_runs_is_said_to_be_one(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        done = subprocess.run([sys.executable, str(ROOT / "scripts" / "report.py"), str(place)], capture_output=True,
                              text=True, timeout=120, check=False)
        assert done.returncode == 2 and str(place) in done.stderr.splitlines()[-1]
        assert not (tmp_path / "report").exists()
