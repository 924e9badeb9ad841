"""What a folder holds: each configuration and seed once, studies by themselves, and nothing dropped in silence."""

from pathlib import Path

import pytest
import yaml
from made_runs import leave

from ebmrun.report.runs import read


def test_missing_and_broken_runs_are_listed(folder: Path) -> None:
    sweep = folder / "sweep"
    leave(sweep / "seed=7", "bp", 7, 0.9)
    leave(sweep / "seed=9", "bp", 9, 0.9)
    (sweep / "failed").mkdir()
    (sweep / "failed" / "failed.json").write_text('{"exit_status": 1, "error": "train/loss=nan at step 3"}')
    (leave(sweep / "cut", "bp", 8, 0.9) / "summary.json").write_text('{"algo": "b')
    (leave(sweep / "stopped", "bp", 8, 0.9) / "summary.json").unlink()
    (leave(folder / "emptied", "bp", 8, 0.9) / "metrics.csv").write_text("")
    (leave(folder / "begun", "bp", 8, 0.9) / "metrics.csv").unlink()
    with (leave(folder / "continued", "bp", 8, 0.9) / "metrics.csv").open("a") as file:
        file.write("3,0.3,,,,,,,\n")  # it was given more to do after its summary, and has not come to that end
    (leave(folder / "half", "bp", 8, 0.9) / "failed.json").write_text("{")
    runs = read(folder)
    assert len(runs.table) == 9 + 2
    amiss = dict(runs.amiss)
    assert amiss.keys() == {"sweep/failed", "sweep/cut", "sweep/stopped", "emptied", "begun", "continued", "half"}
    assert amiss["sweep/failed"] == "failed: train/loss=nan at step 3"
    assert "broken" in amiss["sweep/cut"] and "broken" in amiss["half"]
    assert "not finished" in amiss["emptied"] and "step 0" in amiss["emptied"] and "step 0" in amiss["begun"]
    assert "not finished" in amiss["continued"] and "step 3" in amiss["continued"]
    assert "not finished" in amiss["sweep/stopped"] and "step 2" in amiss["sweep/stopped"]


def test_one_run_counts_for_each_configuration_and_seed(folder: Path) -> None:
    """A second run elsewhere, on another device, with another copy of the data, logged elsewhere, is the same run."""
    for number, seed in enumerate((0, 0, 1)):
        leave(folder / f"repeat-{number}", "bp", seed, 0.1, device="cpu", logger={"wandb": True}, resume=True,
              dataset={"name": "digits", "root": f"/copy/{number}"})
    runs = read(folder)
    assert sorted(runs.table["run"]) == sorted(f"{name}-{seed}" for name in ("bp", "pc-0.1", "pc-0.01")
                                               for seed in range(3))
    assert set(runs.metrics) == set(runs.table["run"])
    assert dict(runs.amiss).keys() == {"repeat-0", "repeat-1", "repeat-2"}
    assert all("same configuration and seed" in reason for _, reason in runs.amiss)
    assert [dict(runs.amiss)[f"repeat-{number}"].split(":")[0] for number in range(3)] == [
        "repeats bp-0", "repeats bp-0", "repeats bp-1"]


def test_a_repeat_counts_where_the_first_did_not_finish(tmp_path: Path) -> None:
    (leave(tmp_path / "a", "bp", 0, 0.9) / "summary.json").unlink()
    leave(tmp_path / "b", "bp", 0, 0.8)
    runs = read(tmp_path)
    assert list(runs.table["run"]) == ["b"] and [name for name, _ in runs.amiss] == ["a"]


@pytest.mark.parametrize("other", [
    {"dataset": {"name": "mnist", "root": "data"}}, {"devices": "auto"}, {"trainer": {"epochs": 3}}, {"asked": {}},
])
def test_another_configuration_is_no_repeat(tmp_path: Path, other: dict) -> None:
    leave(tmp_path / "a", "bp", 0, 0.9)
    leave(tmp_path / "b", "bp", 0, 0.8, **other)
    assert len(read(tmp_path).table) == 2


def test_studies_are_told_from_broken_runs(folder: Path) -> None:
    """A study's summary has neither steps nor a seed."""
    study = leave(folder / "certified", "pc", 0, 0.9, study="ebmrun.studies.certify.study.run")
    (study / "summary.json").write_text('{"verdict": "backprop"}')
    own = leave(folder / "own", "pc", 0, 0.9, study="my_study.run")
    (own / "metrics.csv").unlink()
    runs = read(folder)
    assert runs.studies == [("certified", "certify.study.run"), ("own", "my_study.run")]
    assert len(runs.table) == 9 and not runs.amiss


def test_a_number_is_one_setting_however_it_is_written(tmp_path: Path) -> None:
    for seed, word in enumerate(("1e-2", "0.01", "1.0E-2")):
        leave(tmp_path / str(seed), "pc", seed, 0.9, f"nudge.strength={word}", "arch.hidden=[8,8]", asked=0)
    table = read(tmp_path).table
    assert set(table["nudge.strength"]) == {"0.01"} and set(table["arch.hidden"]) == {"[8,8]"}


def test_a_configuration_without_a_study_is_a_training(tmp_path: Path) -> None:
    path = leave(tmp_path / "old", "bp", 0, 0.9) / ".hydra" / "config.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in yaml.safe_load(path.read_text()).items()
                                    if key != "study"}))
    assert len(read(tmp_path).table) == 1
