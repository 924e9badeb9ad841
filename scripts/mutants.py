"""Breaks the theory in a copy of the package, one place at a time, and says which test notices.

    python scripts/mutants.py            prints a table; exit status 1 if a mutant survives

A mutant is one exact replacement of text. It fails loudly if the text is not there exactly once, so that a change of
the package cannot silently turn a mutant into no change at all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-rfE", "-o", "addopts=", "-p", "no:cacheprovider"]


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``; ``tests`` is the module of tests that runs against it."""

    name: str
    file: str
    old: str
    new: str
    tests: str = "algorithm"


MUTANTS = [
    Mutant("predictive value without its half", "ebmrun/theory/energies/predictive.py",
           "return (x - f(a)).square() / 2", "return (x - f(a)).square()"),
    Mutant("squared error without its half", "ebmrun/theory/cost.py",
           "reduction=\"none\").sum(1) / 2", "reduction=\"none\").sum(1)"),
    Mutant("nudge with its sign flipped", "ebmrun/theory/pull.py",
           "* -self.strength", "* self.strength"),
    Mutant("estimate not divided by the strength", "ebmrun/theory/nudge.py",
           "return [w / (1 if self.clamps else self.strength) for", "return [w for"),
    Mutant("weights of the stencil without their signs", "ebmrun/theory/nudge.py",
           "return [w / (1", "return [abs(w) / (1"),
    Mutant("node at 0 forgotten", "ebmrun/theory/nudge.py",
           "return math.fsum(w / (1 if self.clamps", "return 0 * math.fsum(w / (1 if self.clamps"),
    Mutant("states nudged from zero", "ebmrun/theory/coordinates.py",
           "return self.free.states, self.free.drives,",
           "return [0 * x for x in self.free.states], self.free.drives,", "relaxation"),
    Mutant("displacements nudged from minus the equilibrium", "ebmrun/theory/coordinates.py",
           "return zeros, [torch.zeros_like(a) for a in self.free.drives]",
           "return [-x for x in self.free.states], [torch.zeros_like(a) for a in self.free.drives]", "relaxation"),
    Mutant("free phase of a settling energy skipped", "ebmrun/theory/algorithm.py",
           "if self.feedforward:\n            return forward, None", "if True:\n            return forward, None"),
    Mutant("layers not weighted by gamma^(l-L)", "ebmrun/theory/energies/energy.py",
           "return [self.feedback_gain ** (l - depth) for", "return [1.0 for"),
    Mutant("messages not weakened by gamma", "ebmrun/theory/relaxation.py",
           "received[l] = t if gain == 1 else gain * t", "received[l] = t"),
    Mutant("implicit gradient without gamma", "ebmrun/theory/references.py",
           "received = [energy.feedback_gain * layer", "received = [layer", "references"),
    Mutant("linear map for its transpose", "ebmrun/theory/affine.py",
           'torch.mm(message, self.own["weight"])',
           "message @ (self.weight.t() if self.weight.shape[0] == self.weight.shape[1] else self.weight)"),
    Mutant("convolution's adjoint with the kernel turned", "ebmrun/theory/affine.py",
           "return conv2d_input((len(message), *self.shape), self.weight,",
           "return conv2d_input((len(message), *self.shape), self.weight.flip(2, 3),"),
    Mutant("pooling's adjoint without the mean", "ebmrun/theory/affine.py",
           ".repeat_interleave(self.size, 3) / self.size**2", ".repeat_interleave(self.size, 3)"),
    Mutant("message without f'", "ebmrun/theory/energies/predictive.py",
           "return f.pullback(y, x - y)", "return x - y"),
    Mutant("message of an error without f'", "ebmrun/theory/energies/predictive.py",
           "return f.pullback(rest, e)", "return e"),
    Mutant("lifted error by subtraction", "ebmrun/theory/energies/lifted.py",
           "return f.increment(a, t)", "return f(a + t) - f(a)"),
    Mutant("hopfield displacement by subtraction", "ebmrun/theory/energies/hopfield.py",
           "return f.increment(a0 + t0, da + dt)", "return f(a0 + t0 + da + dt) - f(a0 + t0)"),
    Mutant("learning rule with its sign flipped", "ebmrun/theory/algorithm.py",
           "-gain / batch", "gain / batch"),
    Mutant("sum over the batch for its mean", "ebmrun/theory/algorithm.py",
           "-gain / batch", "-gain"),
    Mutant("free messages left out of the rule", "ebmrun/theory/algorithm.py",
           "if term is not None:", "if False:"),
    Mutant("drives read one step late", "ebmrun/theory/relaxation.py",
           'if how.reading != "frozen":\n        drives, signals = ascend(space, last.moved',
           'if False:\n        drives, signals = ascend(space, last.moved'),
    Mutant("frozen reading with a moving cost", "ebmrun/theory/relaxation.py",
           "pull = pull.held_at(", "pull.held_at("),
    Mutant("synchronous order that sweeps", "ebmrun/theory/relaxation.py",
           "moved[l] if sweeps else u[l]", "moved[l]", "relaxation"),
    Mutant("residual relative to the state", "ebmrun/theory/relaxation.py",
           "away = last.moved if start is None else", "away = last.moved if True else", "relaxation"),
    Mutant("convergence claimed in any case", "ebmrun/theory/relaxation.py",
           "step, gap, gap <= how.tol", "step, gap, True", "relaxation"),
    Mutant("acceleration that combines with the wrong sign", "ebmrun/theory/anderson.py",
           "return fixed - (weights", "return fixed + (weights", "anderson"),
    Mutant("first step read with too few steps", "ebmrun/theory/relaxation.py",
           "self.max_steps < depth", "self.max_steps < 1", "relaxation"),
    Mutant("single nudge for an energy that settles", "ebmrun/experiment.py",
           "if config.nudge.needs_no_free_gradient and not feedforward:", "if False:", "family"),
    Mutant("clamping against another cost", "ebmrun/experiment.py",
           "if config.nudge.clamps:", "if False:", "family"),
]


def copy_of_the_package(folder: Path) -> None:
    """What the tests need: package, configurations, tests."""
    for name in ("ebmrun", "conf", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def run_tests(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    """The fast tests of a module, one process on one core, against the copy in the folder."""
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*PYTEST, "-m", "not slow", f"tests/test_{module}.py"]
    return subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)


def apply(mutant: Mutant, folder: Path) -> None:
    """Raises SystemExit unless the text is there exactly once."""
    path = folder / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise SystemExit(f"mutant '{mutant.name}': {mutant.old!r} is in {mutant.file} {text.count(mutant.old)} times, "
                         "not once: mend scripts/mutants.py")
    path.write_text(text.replace(mutant.old, mutant.new))


def killer(mutant: Mutant) -> str | None:
    """The test that fails for a mutant; None if it survives."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        copy_of_the_package(folder)
        apply(mutant, folder)
        outcome = run_tests(folder, mutant.tests)
        failed = re.search(r"^FAILED (\S+)", outcome.stdout, re.MULTILINE)
        if outcome.returncode == 0:
            return None
        if outcome.returncode != 1 or not failed:
            raise SystemExit(f"mutant '{mutant.name}': the tests did not run:\n{outcome.stdout}{outcome.stderr}")
        return failed[1].removeprefix("tests/")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        copy_of_the_package(folder)
        for mutant in MUTANTS:  # all texts are looked for before the first test runs
            kept = (folder / mutant.file).read_text()
            apply(mutant, folder)
            (folder / mutant.file).write_text(kept)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            modules = sorted({mutant.tests for mutant in MUTANTS})
            for healthy in pool.map(lambda module: run_tests(folder, module), modules):
                if healthy.returncode:
                    print(f"tests fail without any mutant:\n{healthy.stdout}{healthy.stderr}", file=sys.stderr)
                    return 1
    width = max(len(mutant.name) for mutant in MUTANTS)
    survivors = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, test in zip(MUTANTS, pool.map(killer, MUTANTS)):
            survivors += test is None
            print(f"{mutant.name:<{width}}  {test or 'SURVIVES'}", flush=True)
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
