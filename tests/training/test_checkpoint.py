"""A checkpoint reads back bit for bit or is refused with a reason; it is never half of itself."""

import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ebmrun.errors import ConfigError, RunError
from ebmrun.training import checkpoint


def contents() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(16, 9, generator=generator).requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.grad = torch.randn(16, 9, generator=generator)
    optimizer.step()
    return {"weights": [weight.detach().clone()], "optimizer": optimizer.state_dict(), "step": 7,
            "generator": generator.get_state(), "config": {"optim": {"lr": 1e-4}, "arch": {"hidden": [128, 64]}}}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "checkpoint.pt", contents())
    assert same(checkpoint.load(tmp_path / "checkpoint.pt"), contents())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_loaded_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    torch.randperm(100, generator=generator)
    checkpoint.save(tmp_path / "checkpoint.pt", {"generator": generator.get_state()})
    expected = torch.randperm(100, generator=generator)
    resumed = torch.Generator()
    resumed.set_state(checkpoint.load(tmp_path / "checkpoint.pt")["generator"])
    assert torch.equal(torch.randperm(100, generator=resumed), expected)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, contents())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RunError) as error:
            checkpoint.save(path, {"weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert same(checkpoint.load(path), contents())
    assert list(tmp_path.iterdir()) == [path]


def test_kill_9_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    program = ("import sys, torch; from pathlib import Path; from ebmrun.training import checkpoint\n"
               "step = 0\n"
               "while True:\n"
               "    step += 1\n"
               "    checkpoint.save(Path(sys.argv[1]), {'step': step, 'weights': torch.full((300_000,), step)})\n")
    pauses = random.Random(0)
    for _ in range(3):
        path.unlink(missing_ok=True)
        saving = subprocess.Popen([sys.executable, "-c", program, path])
        while not path.exists():
            assert saving.poll() is None
            time.sleep(0.01)
        time.sleep(pauses.uniform(0, 0.1))
        os.kill(saving.pid, signal.SIGKILL)
        saving.wait()
        saved = checkpoint.load(path)
        assert torch.equal(saved["weights"], torch.full((300_000,), saved["step"]))


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        checkpoint.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent.pt")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    refused(tmp_path)


def test_a_checkpoint_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, contents())
    whole = path.read_bytes()
    for length in (0, 1, *random.Random(0).sample(range(2, len(whole)), 30), len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path)


def test_a_flipped_byte_is_found_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, contents())
    whole = path.read_bytes()
    for place in random.Random(1).sample(range(len(whole)), 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1:])
        try:
            loaded = checkpoint.load(path)
        except ConfigError:
            continue
        assert same(loaded, contents())


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))],
                         ids=["archive", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, write: Any) -> None:
    write({"weights": Payload(tmp_path / "ran")}, tmp_path / "checkpoint.pt")
    assert "refused" in refused(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "ran").exists()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    assert "Tensor" in refused(tmp_path / "tensor.pt")
