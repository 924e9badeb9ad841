"""The view that is saved to Weights & Biases draws metrics that runs have, over the axes that they are logged with."""

import json
import sys
from pathlib import Path

import pytest
from program import composed

from ebmrun.experiment import build
from ebmrun.report.wandb_view import SECTIONS, main, workspace
from ebmrun.training.distributed import Job
from ebmrun.training.run import trainer_of


def test_it_draws_what_a_run_logs_over_its_axis() -> None:
    view = json.loads(workspace("lab", "p")._to_model().model_dump_json(by_alias=True))
    assert (view["entity"], view["project"]) == ("lab", "p")
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == list(SECTIONS)
    drawn = {panel["config"]["metrics"][0]: panel["config"] for section in sections for panel in section["panels"]}
    assert list(drawn) == [metric for metrics in SECTIONS.values() for metric in metrics]
    cfg = composed("algo=ep", "dataset.validation=0.1")
    assert set(drawn) <= set(trainer_of(build(cfg), cfg, Job()).columns)
    # What is measured at the end of an epoch over epochs, all else over steps.
    assert {metric: config["xAxis"] for metric, config in drawn.items()} == {
        metric: "epoch" if metric.startswith(("test/", "val/")) else "step" for metric in drawn}
    assert {metric for metric, config in drawn.items() if config.get("yLogScale")} == {
        "alignment/angle", "alignment/relative_error", "alignment/relative_error/worst", "relax/residual"}
    [runs] = view["spec"]["section"]["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "algo.value.name"}]


@pytest.mark.parametrize(("words", "said"), [
    (["ebmrun"], "ebmrun is no project: write ENTITY/PROJECT"),
    (["lab/p"], "cannot save to lab/p"),
])
def test_what_cannot_be_saved_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capfd: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    monkeypatch.setattr(sys, "argv", ["ebmrun-view", *words])
    for name, value in {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(SystemExit) as end:
        main()
    [line] = capfd.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith("ebmrun-view: error: ") and said in line
