"""The benchmark's yardstick is backpropagation itself, its counters count, and its files agree."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir
from program import Command, call, composed

from ebmrun.command import cli
from ebmrun.data.sets import Split
from ebmrun.errors import ConfigError
from ebmrun.experiment import build
from ebmrun.studies.benchmark import plain, study, timing, whole_run
from ebmrun.theory.activations import ACTIVATIONS, Activation, Tanh, activation
from ebmrun.theory.affine import AffineMap, Map, Skip, Wrapped
from ebmrun.theory.architectures import cnn, mlp, resmlp, resnet
from ebmrun.theory.cost import Cost, CrossEntropy, SquaredError
from ebmrun.theory.initial_weights import initialise
from ebmrun.theory.network import Layer, Network
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
    shape = network.edges[0][0][1].shape
    x = torch.randn(6, *shape, generator=draw, dtype=torch.float64)
    return x, torch.eye(4, dtype=torch.float64)[torch.randint(4, (6,), generator=draw)]


NETWORKS = {
    "mlp": lambda f: mlp((2, 3, 3), 4, [7, 5], f, "identity"),
    "cnn": lambda f: cnn((2, 9, 9), 4, [3, 5], 3, 1, 2, [7], f, "identity"),
    "max": lambda f: cnn((2, 9, 9), 4, [3, 5], 3, 1, 2, [7], f, "identity", pooling="max"),
    "resmlp": lambda f: resmlp((2, 3, 3), 4, 5, 6, f, "identity", "identity"),
    "resnet": lambda f: resnet((2, 8, 8), 4, [3, 5], 1, 3, f, f, "identity"),
    "wrapped": lambda f: Network([Layer([(0, Wrapped((2, 3, 3), torch.nn.Conv2d(2, 4, 3, groups=2)))], activation(f)),
                                  Layer([(1, Wrapped((4, 1, 1), torch.nn.Flatten()))], activation("identity"))]),
}


@pytest.mark.parametrize("f", [name for name in ACTIVATIONS if name != "softmax"])
@pytest.mark.parametrize("kind", [SquaredError, CrossEntropy])
@pytest.mark.parametrize("name", NETWORKS)
def test_plain_pytorch_has_the_gradient_of_backpropagation(f: str, kind: type[Cost], name: str) -> None:
    network = initialise(NETWORKS[name](f), 0).double()
    cost = kind(network.output)
    x, y = images(network)
    model = plain.model(network)
    assert all(a is b for a, b in zip(model.parameters(), network.parameters(), strict=True))
    expected = torch.autograd.grad(cost.value(network(x), y).mean(), list(network.parameters()))
    for g, r in zip(plain.gradient(model, plain.loss(cost), x, y), expected, strict=True):
        torch.testing.assert_close(g, r)


def test_a_chain_is_a_plain_sequence() -> None:
    kinds = [type(module) for module in plain.model(mlp((2, 3), 4, [5], "relu", "identity"))]
    assert kinds == [torch.nn.Flatten, torch.nn.Linear, torch.nn.ReLU, torch.nn.Linear, torch.nn.Identity]


class Twice(AffineMap):
    """A user's own map, a = 2 x."""

    def forward(self, x):
        return 2 * x

    def linear(self, dx):
        return 2 * dx

    def adjoint(self, message, piece=None):
        return 2 * message

    def gradient(self, message, x, piece=None, constant=True):
        return []


class Steep(Tanh):
    """A user's own activation, tanh(2 a)."""

    def __call__(self, a):
        return torch.tanh(2 * a)


@pytest.mark.parametrize(("affine", "f"), [(Twice((3,), (3,)), Tanh()), (Skip((3,)), Steep())])
def test_what_torch_has_no_module_for_is_refused(affine: Map, f: Activation) -> None:
    with pytest.raises(ConfigError, match="study=benchmark knows no plain module for (Twice|Steep): use"):
        plain.model(Network([Layer([(0, affine)], f)]))


def test_the_bare_loop_takes_one_step_a_batch() -> None:
    network = initialise(mlp((3,), 4, [5], "tanh", "identity"), 0).double()
    x, y = images(network)
    cost, before = SquaredError(network.output), [p.detach().clone() for p in network.parameters()]
    gradients = Backprop(cost).estimate(network, x, y).gradients
    steps = torch.optim.SGD(network.parameters(), lr=0.25)
    plain.epoch(plain.model(network), plain.loss(cost), steps, Split(x, y, y.argmax(1)), len(x))
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


def test_a_turn_reads_the_seconds_of_a_call() -> None:
    start = time.perf_counter()
    slow, fast, turns = timing.in_turns(lambda: time.sleep(0.03), lambda: time.sleep(0.01), 0.0, CPU)
    whole = time.perf_counter() - start
    assert slow >= 0.03 and fast >= 0.01
    assert (slow + fast) * turns / 2 <= whole  # in half of the turns or more, a call takes the median or longer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the study has run once, tiny, through the command line."""
    path = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert call(*TINY, f"hydra.run.dir={path / 'run'}") == 0
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
        assert row["turns"] >= timing.TURNS
    for row in rows[:-1]:
        gradient_mb = 4e-6 * PARAMETERS[row["case"]]  # float32; all gradients live when the call ends
        assert row["peak_mb"] >= gradient_mb and row["plain_peak_mb"] >= gradient_mb
        assert row["reference"] == ("implicit" if row["preset"] == "ep_centered" else "backprop")
    wide = {row["preset"]: row for row in rows[:3]}
    assert wide["bp"]["relative_error"] == 0
    assert wide["bp"]["sweeps"] is wide["bp"]["residual"] is wide["bp"]["converged"] is None
    # The nudge of 1e-4 leaves an error of that order, and no gradient at all an error of 1.
    assert wide["pc"]["converged"] and wide["pc"]["residual"] <= 1e-5 and 1e-6 < wide["pc"]["relative_error"] < 1e-2
    # A free phase and two nudged ones, each of a pass up and down or more, where plain PyTorch takes one of each.
    assert wide["ep_centered"]["ratio"] > 2
    assert (wide["pc"]["tolerance"], wide["pc"]["target"]) == (1e-5, 1e9)
    assert wide["pc"]["overrides"] == "relax.tol=1e-5" and wide["bp"]["target"] is None
    assert rows[-1]["target"] == 1e-9 and rows[-1]["sweeps"] is rows[-1]["peak_mb"] is None


def test_the_figure_and_the_readme_show_every_row(folder: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "figure_benchmark.py"
    subprocess.run([sys.executable, script, folder], check=True)
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "README.md").read_text()
    rows = json.loads((folder / "benchmark.json").read_text())["rows"]
    for row in rows:
        assert f"| {row['preset']} | " in text and f" | {row['ratio']:.2f} | " in text
    for path in (folder / "benchmark.png", folder / "README.md"):
        path.unlink()


def test_a_timed_run_is_the_run_of_the_command(tmp_path: Path) -> None:
    cfg = composed("dataset=digits", "trainer.epochs=2", "arch.hidden=[8]", "alignment.every=5")
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
    override: str, words: list[str], tmp_path: Path, command: Command
) -> None:
    status, [line] = command("study=benchmark", "dataset=digits", override)
    assert status == 2 and all(word in line for word in words)
    assert not list(tmp_path.iterdir())


def test_each_preset_has_its_own_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equilibrium propagation brings bounded units, where a case does not say which: the plain network has them too."""
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(study, "gradient", lambda parts, cfg, asked, *_: seen.append(
        (asked.preset, [*parts.network.named_activations])))
    cases = [study.Case("own", hidden=[5]), study.Case("tanh", hidden=[5], activation="tanh")]
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        asked = study.Study("", presets=["bp", "ep", "pc"], cases=cases)
        assert len(list(study.gradients(asked, ["dataset=digits", "device=cpu"]))) == 6
    assert seen == [("bp", ["relu", "identity"]), ("ep", ["hard_sigmoid", "identity"]), ("pc", ["relu", "identity"]),
                    *((preset, ["tanh", "identity"]) for preset in ("bp", "ep", "pc"))]
