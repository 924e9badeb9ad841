"""Parts of a user's own that cannot be trained end in one line that says why, before anything is written."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ebmrun.command import cli

SHORT = ["logger=csv", "device=cpu", "dataset=digits", "trainer.max_steps=30", "alignment.every=1"]
MINE = """
from torch import nn

from ebmrun.theory.activations import activation
from ebmrun.theory.affine import Linear, Wrapped
from ebmrun.theory.cost import SquaredError
from ebmrun.theory.network import Layer, Network


class Climbing(SquaredError):
    def gradient(self, x, y):
        return y - x


def tied(shape, classes, hidden, **_):
    first, middle, last = Linear(shape, hidden[0]), Linear((hidden[0],), hidden[0]), Linear((hidden[0],), classes)
    hidden_layers = [Layer([(l, each)], activation("tanh")) for l, each in enumerate((first, middle, middle))]
    return Network([*hidden_layers, Layer([(3, last)], activation("identity"))])


def tied_weight(shape, classes, hidden, **_):
    network = tied(shape, classes, hidden)
    layers = [Layer([(l, Linear((hidden[0],), hidden[0]))], activation("tanh")) for l in (1, 2)]
    layers[1].maps[0].weight = layers[0].maps[0].weight
    return Network([network.layers[0], *layers, network.layers[3]])


def dropped_out(shape, classes, hidden, **_):
    first = Wrapped(shape, nn.Sequential(nn.Flatten(), nn.Dropout(0.1)))
    return Network([Layer([(0, first)], activation("identity")),
                    Layer([(1, Linear((64,), classes))], activation("identity"))])
"""
Command = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in a folder that holds mine.py alone; gives its status and the lines it wrote to stderr."""
    (tmp_path / "mine.py").write_text(f"# {tmp_path}{MINE}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["ebmrun", *SHORT, *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), capfd.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize("arguments, words", [
    (["cost._target_=mine.Climbing"], ["Climbing.gradient", "contradicts the derivative of its value()"]),
    (["cost._target_=mine.Climbing", "algo=bp"], ["Climbing.gradient", "contradicts the derivative of its value()"]),
    (["arch._target_=mine.tied"], ["layers.2.maps.0.weight", "same parameter as layers.1.maps.0.weight"]),
    (["arch._target_=mine.tied_weight"], ["layers.2.maps.0.weight", "same parameter as layers.1.maps.0.weight"]),
    (["arch._target_=mine.tied", "algo=bp"], ["layers.2.maps.0.weight", "same parameter as layers.1.maps.0.weight"]),
    (["arch._target_=mine.dropped_out"], ["layer1 draws random numbers", "Dropout"]),
], ids=lambda value: " ".join(value) if "=" in value[0] else "")
def test_a_part_that_cannot_be_trained_ends_in_one_line(
    command: Command, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    status, lines = command(*arguments)
    assert status == 2 and len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize("reference", ["both", "implicit"])
def test_a_reference_that_diverges_says_so_and_names_no_step_size(command: Command, reference: str) -> None:
    """Rectified units with full feedback and large weights have no free equilibrium. Three small steps of the run's own
    relaxation stay finite; the reference relaxes by steps of its own until numbers overflow."""
    status, lines = command("algo=ep", "arch.activation=relu", "arch.gain=4", "relax=sweep", "relax.step_size=0.05",
                            "relax.max_steps=3", "optim.lr=1e-6", f"alignment.reference={reference}")
    assert status == 1 and len(lines) == 1, lines
    assert "the implicit reference found no free equilibrium" in lines[0] and "step_size" not in lines[0]
    assert "alignment.reference=backprop" in lines[0]
