"""The benchmark's yardstick is backpropagation itself, its counters count, and its files agree."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from ebmrun.command import cli
from ebmrun.data.sets import Split
from ebmrun.experiment import build
from ebmrun.studies.benchmark.study import plain, timing, whole_run
from ebmrun.theory.cost import Cost, CrossEntropy, SquaredError
from ebmrun.theory.network import Network, cnn, initialise, mlp
from ebmrun.theory.references import Backprop
from ebmrun.training import checkpoint
from ebmrun.training.distributed import Job
from ebmrun.training.run import train, trainer_of

CPU = torch.device("cpu")
WIDE = "{name: wide, hidden: [12], activation: hard_sigmoid}"
DEEP = "{name: deep, hidden: [8], times: 3, activation: tanh}"
TINY = [
    "study=benchmark", "dataset=digits", "device=cpu", "trainer.batch_size=16", "study.seconds=0",
    "study.training_seconds=0",
    "study.presets=[bp,pc,ep_centered]",
    f"study.cases=[{WIDE}, {DEEP}]",
    'study.asked=[{case: wide, preset: pc, overrides: ["relax.tol=1e-5"], target: 1e9}]',
    'study.runs=[{case: wide, preset: bp, overrides: ["alignment.every=0"], target: 1e-9}]',
]
PARAMETERS = {"wide": 64 * 12 + 12 + 12 * 10 + 10, "deep": 64 * 8 + 8 + 2 * (64 + 8) + 8 * 10 + 10}


def images(network: Network, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shape = network.layers[0].affine.shape
    x = torch.randn(6, *shape, generator=draw, dtype=torch.float64)
    return x, torch.eye(4, dtype=torch.float64)[torch.randint(4, (6,), generator=draw)]


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "hard_sigmoid", "identity"])
@pytest.mark.parametrize("kind", [SquaredError, CrossEntropy])
@pytest.mark.parametrize("convolutional", [False, True])
def test_plain_pytorch_has_the_gradient_of_backpropagation(
    activation: str, kind: type[Cost], convolutional: bool
) -> None:
    network = (cnn((2, 9, 9), 4, [3, 5], 3, 1, 2, [7], activation, "identity") if convolutional
               else mlp((2, 3, 3), 4, [7, 5], activation, "identity"))
    network, cost = initialise(network, 0).double(), kind(network.output)
    x, y = images(network)
    model = plain.sequential(network)
    assert all(a is b for a, b in zip(model.parameters(), network.parameters(), strict=True))
    reference = Backprop(cost).estimate(network, x, y).gradients
    for g, r in zip(plain.gradient(model, plain.loss(cost), x, y), reference, strict=True):
        torch.testing.assert_close(g, r)


def test_the_bare_loop_takes_one_step_a_batch() -> None:
    network = initialise(mlp((3,), 4, [5], "tanh", "identity"), 0).double()
    x, y = images(network)
    cost, before = SquaredError(network.output), [p.detach().clone() for p in network.parameters()]
    gradients = Backprop(cost).estimate(network, x, y).gradients
    steps = torch.optim.SGD(network.parameters(), lr=0.25)
    plain.epoch(plain.sequential(network), plain.loss(cost), steps, Split(x, y, y.argmax(1)), len(x))
    for p, old, g in zip(network.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), old - 0.25 * g)


def test_peak_memory_is_the_largest_sum_of_what_lives_at_once() -> None:
    def work() -> None:
        a, b = torch.empty(1000), torch.empty(500)  # 4000 + 2000 bytes
        del a
        c = torch.empty(2000)  # 2000 + 8000, the peak
        del b, c
        torch.empty(1500)

    assert timing.peak_memory(work, CPU) == 10_000


def test_blocks_of_both_works_take_turns() -> None:
    calls: list[str] = []
    first, second, turns = timing.in_turns(lambda: calls.append("a"), lambda: calls.append("b"), 0.01, CPU)
    blocks = [name for name, _ in itertools.groupby(calls)]
    assert blocks == ["a", "b"] * (turns + 1)  # the first of each is for warming up
    assert turns >= timing.TURNS and first > 0 and second > 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the study has run once, tiny, through the command line."""
    path = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("HYDRA_FULL_ERROR", "1")
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "argv", ["ebmrun", *TINY, f"hydra.run.dir={path / 'run'}"])
        cli.main()
    return path / "run"


def test_the_files_agree_and_nothing_else_is_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["benchmark.csv", "benchmark.json"]
    found = json.loads((folder / "benchmark.json").read_text())
    rows = found["rows"]
    with (folder / "benchmark.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    texts = [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    assert written == texts
    assert [(row["work"], row["case"], row["preset"]) for row in rows] == [
        *(("gradient", case, preset) for case in ("wide", "deep") for preset in ("bp", "pc", "ep_centered")),
        ("training", "wide", "bp"),
    ]
    assert found["command"].startswith("ebmrun study=benchmark dataset=digits")
    assert (found["device"], found["threads"]) == ("cpu", torch.get_num_threads())
    assert found["torch"] == torch.__version__
    assert (found["precision"], found["dataset"], found["batch_size"]) == ("float32", "digits", 16)


def test_every_row_is_consistent(folder: Path) -> None:
    rows = json.loads((folder / "benchmark.json").read_text())["rows"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["ms"] / row["plain_ms"]) and row["turns"] >= timing.TURNS
    for row in rows[:-1]:
        gradient_mb = 4e-6 * PARAMETERS[row["case"]]  # float32; all gradients live when the call ends
        assert row["peak_mb"] >= gradient_mb and row["plain_peak_mb"] >= gradient_mb
        assert row["converged"] == (row["residual"] <= row["tolerance"])
        assert row["reference"] == ("implicit" if row["preset"] == "ep_centered" else "backprop")
    wide = {row["preset"]: row for row in rows[:3]}
    assert wide["bp"]["relative_error"] == wide["bp"]["sweeps"] == wide["bp"]["residual"] == 0
    # The nudge of 1e-4 leaves an error of that order, and no gradient at all an error of 1.
    assert wide["pc"]["converged"] and 1e-6 < wide["pc"]["relative_error"] < 1e-2
    assert (wide["pc"]["tolerance"], wide["pc"]["target"]) == (1e-5, 1e9)
    assert wide["pc"]["overrides"] == "relax.tol=1e-5" and wide["bp"]["target"] is None
    assert rows[-1]["target"] == 1e-9 and rows[-1]["sweeps"] is rows[-1]["peak_mb"] is None


def test_the_figure_and_the_readme_show_every_row(folder: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "figure_benchmark.py"
    subprocess.run([sys.executable, script, folder], check=True)
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "README.md").read_text()
    rows = json.loads((folder / "benchmark.json").read_text())["rows"]
    for row in rows:
        assert f"| {row['preset']} | " in text and f" | {row['ratio']:.2f} | " in text
    for path in (folder / "benchmark.png", folder / "README.md"):
        path.unlink()


def test_a_timed_run_is_the_run_of_the_command(tmp_path: Path) -> None:
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        cfg = compose("config", ["dataset=digits", "device=cpu", "logger.wandb=false", "trainer.epochs=2",
                                 "arch.hidden=[8]", "alignment.every=5"])
    (tmp_path / "timed").mkdir()
    parts = build(cfg)
    trainer = trainer_of(parts, cfg, Job())
    run = whole_run.epochs(trainer, cfg, parts, tmp_path / "timed")
    next(run), next(run)
    run.close()
    train(cfg, tmp_path / "trained", [])
    saved = [checkpoint.load(tmp_path / name / "checkpoint.pt") for name in ("timed", "trained")]
    assert saved[0]["step"] == saved[1]["step"] == 2 * trainer.steps_per_epoch
    for name, tensor in saved[0]["network"].items():
        assert torch.equal(tensor, saved[1]["network"][name])


@pytest.mark.parametrize(("override", "words"), [
    ("algo=pc", ["algo=pc", "study.presets"]),
    ("study.asked=[{case: other, preset: pc}]", ["other", "study.cases"]),
    ("study.cases=[{nome: wide}]", ["nome"]),
])
def test_what_the_study_cannot_do_ends_in_one_line(
    override: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["ebmrun", "study=benchmark", "dataset=digits", override])
    with pytest.raises(SystemExit) as end:
        cli.main()
    (line,) = capfd.readouterr().err.splitlines()
    assert end.value.code == 2 and all(word in line for word in words)
    assert not list(tmp_path.iterdir())
