"""How a run ends when something is wrong: in one line that names the value and the mend."""

import math
import os
from pathlib import Path

import pytest
from image_files import closed_address, write_idx
from program import Command
from run_folder import rows, saved

from ebmrun.data.download import torchvision_datasets


def test_a_divergence_keeps_what_was_reached(command: Command) -> None:
    # One batch an epoch, and so large a step that the weights leave the range of float32 within a few epochs.
    status, [line] = command("trainer.batch_size=1437", "trainer.epochs=40", "optim.lr=30", "hydra.run.dir=run")
    assert status == 1
    assert "relaxation diverged at layer" in line and "smaller optim.lr or nudge.strength" in line
    table = rows("run")
    assert saved("run")["step"] == int(table[-1]["step"]) >= 1
    assert all(math.isfinite(float(value)) for row in table for value in row.values() if value)
    assert not Path("run/summary.json").exists()


def test_a_step_size_too_large_for_the_states_is_named(command: Command) -> None:
    # Overshooting every state twofold under a unit nudge grows without bound once the feedback couples the layers.
    status, [line] = command("relax.coordinates=state", "relax.step_size=2", "nudge.strength=1",
                             "relax.order=synchronous", "relax.max_steps=5000", "trainer.max_steps=5",
                             "hydra.run.dir=run")
    assert status == 2 and "diverged at layer" in line and "steps of size 2" in line
    assert "or relax=sweep relax.step_size=1" in line
    assert not Path("run").exists()


def test_backprop_diverges_as_clearly(command: Command) -> None:
    # Linear outputs of a squared error overshoot by a factor of thousands a step: some steps from float32's largest.
    settings = ("algo=bp", "arch.hidden=[]", "optim.lr=1e4", "optim.momentum=0", "trainer.log_every=1")
    status, [line] = command(*settings, "hydra.run.dir=run")
    assert status == 1 and "at step" in line and "use a smaller optim.lr" in line


@pytest.mark.parametrize(
    "arguments, named, mend",
    [
        (["algo=nosuch"], "algo=nosuch", "pc_first_step"),
        (["dataset=mnits"], "dataset=mnits", "mnist"),
        (["nosuchgroup=1"], "nosuchgroup", "keys are"),
        (["trainer.epoch=3"], "trainer.epoch", "did you mean epochs"),
        (["trainer.epochs=many"], "trainer.epochs", "many"),
        (["nudge.strength=0"], "nudge.strength=0", "must be a positive number"),
        (["nudge.strength=-1"], "nudge.strength=-1", "must be a positive number"),
        (["nudge.strength=nan"], "nudge.strength=nan", "must be a positive number"),
        (["nudge.strength=inf"], "nudge.strength=inf", "must be a positive number"),
        (["trainer.batch_size=0"], "trainer.batch_size=0", "1 or more"),
        (["trainer.batch_size=1438"], "trainer.batch_size=1438", "1..1437"),
        (["arch.hidden=[64,0]"], "arch.hidden=[64, 0]", "1 or more"),
        (["arch=cnn", "arch.channels=[]"], "arch.channels=[]", "arch=mlp"),
        (["optim.lr=-1"], "optim.lr=-1", "0 or more"),
        (["optim.lr=[1,2]"], "optim.lr=[1, 2]", "3 layers"),
        (["precision=float16"], "precision=float16", "float32"),
        (["precision=tf32", "device=cpu"], "precision=tf32", "precision=float32, or bf16"),
        (["precision=bf16", "study=benchmark"], "precision=bf16", "float32 or float64 with study=benchmark"),
        (["precision=bf16", "study=paper"], "precision=bf16", "float32 or float64 with study=paper"),
        (["precision=bf16", "study=relaxation"], "precision=bf16", "float32 or float64 with study=relaxation"),
        (["precision=bf16", "study=unification"], "precision=bf16", "float32 or float64 with study=unification"),
        (["noise.asymmetry=0.1", "study=certify"], "noise.asymmetry=0.1", "noise.asymmetry=0.0"),
        (["noise.readings=0.1", "study=paper"], "'readings': 0.1", "noise=none"),
        (["noise.reading_range=0.1"], "noise.reading_range=0.1", "noise.reading_bits=8"),
        (["algo=bp", "nudge.joint=true"], "nudge.joint=True has no use in algo=bp", "leave it out"),
        (["arch.hidden=[]", "feedback=random"], "feedback=Random", "feedback=tied"),
        (["algo=dual_propagation", "noise.states=0.1"], "nudge.joint=True is not built for noise", "nudge.joint=false"),
        (["device=tpu"], "device=tpu", "auto, cpu or cuda"),
        (["seed=-1"], "seed=-1", "0.."),
        (["relax.step_size=3"], "relax.step_size=3", "(0, 2]"),
        (["relax.tol=nan"], "relax.tol=nan", "positive"),
        (["algo=ep", "nudge=single"], "nudge.weights=[1.0]", "nudge=one_sided or centered"),
        (["alignment.reference=forward"], "alignment.reference=forward", "backprop"),
        (["dataset=mnist", "dataset.root=file"], "dataset.root=", "EBMRUN_DATA"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    command: Command, capfd: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], named: str, mend: str
) -> None:
    (tmp_path / "file").touch()
    status, [line] = command(*arguments)
    assert status == 2 and line.startswith("ebmrun: error: ")
    assert named in line and mend in line
    assert capfd.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_no_graphics_card_is_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    status, [line] = command("device=cuda")
    assert status == 2 and "device=cuda" in line and "use device=cpu" in line
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_one_line(command: Command, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    write_idx(raw)
    os.truncate(raw / "train-images-idx3-ubyte", 10_000)
    status, [line] = command("dataset=mnist", "dataset.root=data")
    assert status == 2 and str(raw / "train-images-idx3-ubyte") in line and "delete it" in line
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_no_data_and_no_network_is_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torchvision_datasets().MNIST, "mirrors", [closed_address()])
    status, [line] = command("dataset=mnist", "dataset.root=empty")
    assert status == 2 and str(tmp_path / "empty") in line and "EBMRUN_DATA" in line and 'fetch("mnist"' in line
    assert list(tmp_path.iterdir()) == []
