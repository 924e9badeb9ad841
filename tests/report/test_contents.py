"""What the page holds is what the runs have left, by setting, run and key."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_runs import leave

from ebmrun.report.contents import contents, number
from ebmrun.report.page import page
from ebmrun.report.runs import read


def held(folder: Path, baseline: str | None = "bp") -> dict[str, Any]:
    whole = contents(read(folder), "title", "counts", baseline)
    assert json.loads(json.dumps(whole, allow_nan=False)) == json.loads(json.dumps(whole))
    return whole


def test_settings_and_runs_have_their_numbers(folder: Path) -> None:
    whole = held(folder)
    assert whole["keys"] == ["algo", "nudge.strength"]
    assert [each["values"] for each in whole["settings"]] == [["bp", None], ["pc", "0.01"], ["pc", "0.1"]]
    at = whole["measures"].index("test accuracy")
    assert whole["settings"][0]["means"][at] == [0.78, "0.78 ± 0.14"]  # by hand: test_tables
    runs = {run["name"]: run for run in whole["runs"]}
    assert len(runs) == 9 and runs["pc-0.1-2"]["setting"] == 2 and runs["pc-0.1-2"]["seed"] == 2
    assert runs["pc-0.1-2"]["values"][at] == 0.52 and runs["pc-0.1-2"]["progress"] is None
    assert whole["differences"]["columns"][:3] == ["algo", "nudge.strength", "pairs"]
    assert [row[1] for row in whole["differences"]["rows"]] == ["0.01", "0.1"]


def test_curves_and_maps_are_rows_of_the_metrics(folder: Path) -> None:
    whole = held(folder)
    names = [run["name"] for run in whole["runs"]]
    curves = {each["key"]: {names[line["run"]]: line for line in each["lines"]} for each in whole["curves"]}
    assert curves.keys() == {"train/loss", "test/loss", "test/accuracy", "alignment/relative_error"}
    line = curves["train/loss"]["bp-1"]
    assert (line["steps"], line["values"]) == ([1, 2], [0.5, 0.4]) and "lows" not in line
    assert curves["test/accuracy"]["bp-1"]["steps"] == [2]  # where it was measured
    maps = {names[each["run"]]: each for each in whole["maps"]}
    assert maps.keys() == {name for name in names if name.startswith("pc")}  # backprop's own error is 0 throughout
    assert maps["pc-0.1-0"] == {"run": names.index("pc-0.1-0"), "measure": "relative_error", "steps": [1],
                                "layers": ["layer1", "layer2"], "values": [[0.2], [0.05]]}
    (strengths,) = whole["strengths"]
    assert strengths == {"name": "pc", "strengths": [0.01, 0.1], "errors": [0.01, 0.1], "spreads": [0, 0]}


def test_settings_that_differ_are_told_from_those_that_do_not(folder: Path) -> None:
    whole = held(folder)
    assert {each["key"]: each["values"] for each in whole["differing"]}["nudge.strength"] == ["0.0001", "0.01", "0.1"]
    assert ["dataset.name", "digits"] in whole["same"] and ["trainer.epochs", "4"] in whole["same"]
    keys = [each["key"] for each in whole["differing"]] + [key for key, _ in whole["same"]]
    assert not {"seed", "device", "dataset.root", "logger.wandb"} & set(keys)  # without bearing on numbers
    assert len(set(keys)) == len(keys)


def test_a_run_that_is_written_now_is_underway(folder: Path) -> None:
    run = leave(folder / "now", "pc", 7, 0.9, "nudge.strength=0.1", strength=0.1)
    (run / "summary.json").unlink()
    pd.read_csv(run / "metrics.csv").assign(epoch=[0.5, 1.0]).to_csv(run / "metrics.csv", index=False)
    with (run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        whole = held(folder)
        (now,) = [each for each in whole["runs"] if each["name"] == "now"]
        assert now["progress"] == 0.25 and whole["settings"][now["setting"]]["values"] == ["pc", "0.1"]
        assert set(now["values"]) == {None} and not whole["amiss"]
        at = whole["measures"].index("test accuracy")
        assert whole["settings"][now["setting"]]["means"][at] == held_without(folder, run)["settings"][2]["means"][at]
    (reason,) = held(folder)["amiss"]
    assert reason[0] == "now" and reason[1].startswith("not finished: its last row is of step 2")


def held_without(folder: Path, run: Path) -> dict[str, Any]:
    config = run / ".hydra/config.yaml"
    text = config.read_text()
    config.unlink()
    try:
        return held(folder)
    finally:
        config.write_text(text)


def test_numbers_have_a_few_digits_or_are_absent() -> None:
    assert [number(value) for value in (1 / 3, 12345.6, 1e-9, 0, None, float("nan"), float("inf"))] == [
        0.3333, 12350.0, 1e-9, 0, None, None, None]


def test_the_page_is_one_file_that_no_name_breaks(folder: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    leave(folder / "evil", evil, 0, 0.9)
    text = page(read(folder), f"Runs of {evil}", "counts", "bp")
    assert evil not in text and "$" not in text.partition("<style>")[0]
    inside = text.replace("http://www.w3.org/2000/svg", "")  # the name of a namespace, which nobody fetches
    assert not [word for word in ("http:", "https:", "src=", "@import", "url(") if word in inside]
    start = text.index('id="contents">') + len('id="contents">')
    whole = json.loads(text[start : text.index("</script>", start)])
    assert evil in [each["values"][0] for each in whole["settings"]] and whole["title"] == f"Runs of {evil}"


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    assert held(tmp_path, None)["runs"] == []


@pytest.mark.parametrize("rows", [2000])
def test_many_rows_are_thinned_to_what_fits(tmp_path: Path, rows: int) -> None:
    run = leave(tmp_path / "long", "pc", 0, 0.9)
    table = pd.DataFrame({"step": range(1, rows + 1), "train/loss": 1.0, "alignment/relative_error/layer1": 0.5})
    table.loc[700, ["train/loss", "alignment/relative_error/layer1"]] = 50.0  # one row stands out
    table.to_csv(run / "metrics.csv", index=False)
    summary = json.loads((run / "summary.json").read_text()) | {"steps": rows}
    (run / "summary.json").write_text(json.dumps(summary))
    whole = held(tmp_path, None)
    ((line,),) = ([each["lines"][0]] for each in whole["curves"])
    assert len(line["steps"]) == 200 and set(line["values"]) == {1.0} and max(line["highs"]) == 50
    (chart,) = whole["maps"]
    assert len(chart["steps"]) == 160 and sorted(set(chart["values"][0])) == [0.5, 50]
    assert chart["steps"][chart["values"][0].index(50)] >= 701 > chart["steps"][chart["values"][0].index(50) - 1]
