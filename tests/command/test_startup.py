"""What only composes or complains is answered without torch; a run loads no more than it needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from program import ROOT, environment

LOADED = """
import sys
from ebmrun.command import cli
sys.argv[0] = "ebmrun"
try:
    cli.main()
    status = 0
except SystemExit as end:
    status = end.code
import json
print()
print(json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules}), "torch._dynamo" in sys.modules
                  and type(sys.modules["torch._dynamo"]).__name__]))
"""


def loaded(folder: Path, *words: str, **variables: str) -> tuple[int, set[str], str]:
    """The exit status of a command, the packages that it has loaded at its end, and what is in the place of the
    compiler."""
    done = subprocess.run([sys.executable, "-c", LOADED, *words], cwd=folder, env=environment(**variables),
                          capture_output=True, text=True, check=True)
    status, packages, compiler = json.loads(done.stdout.splitlines()[-1])
    return status or 0, set(packages), compiler


@pytest.mark.parametrize(("words", "expected"), [
    (["--help"], 0), (["algo=ep", "--cfg", "job"], 0), (["--completion", "bash"], 0), (["--completion", "query"], 0),
    (["sead=1"], 2), (["algo=nope"], 2), (["+trainer.zzz=1"], 2), (["nudge.strength=-1"], 2), (["relax.tol=-1"], 2),
    (["dataset.range=[1,0]"], 2), (["precision=float16"], 2), (["-m", "seed=0,-1", "nudge.strength=0"], 2),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_what_only_composes_or_complains_loads_no_torch(tmp_path: Path, words: list[str], expected: int) -> None:
    status, packages, _ = loaded(tmp_path, *words, COMP_LINE="ebmrun algo=ep relax.")
    assert status == expected
    assert "hydra" in packages and not packages & {"torch", "numpy", "pandas", "sklearn", "wandb", "matplotlib"}


def test_a_run_loads_neither_the_compiler_nor_what_others_need(tmp_path: Path) -> None:
    status, packages, compiler = loaded(tmp_path, "logger=csv", "trainer.max_steps=1", "hydra.run.dir=run")
    assert status == 0 and (tmp_path / "run/summary.json").is_file()
    assert "torch" in packages and compiler == "StandIn"
    assert not packages & {"sklearn", "scipy", "sympy", "pandas", "wandb", "matplotlib", "torchvision"}


@pytest.mark.slow
def test_times_are_within_their_limits() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts/startup.py")], env=environment(), capture_output=True,
                          text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
