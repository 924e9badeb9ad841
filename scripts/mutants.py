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
    """``old`` becomes ``new`` in ``file``; ``tests`` is the module of tests that runs against it, one of tests/theory
    unless it names its folder."""

    name: str
    file: str
    old: str
    new: str
    tests: str = "learning"


MUTANTS = [
    Mutant("predictive value without its half", "ebmrun/theory/energies/predictive.py",
           "return (x - f(a)).square() / 2", "return (x - f(a)).square()"),
    Mutant("squared error without its half", "ebmrun/theory/cost.py",
           "reduction=\"none\").sum(1) / 2", "reduction=\"none\").sum(1)"),
    Mutant("nudge with its sign flipped", "ebmrun/theory/nudge.py",
           "* -self.strength", "* self.strength"),
    Mutant("estimate not divided by the strength", "ebmrun/theory/stencil.py",
           "weights = [w / (1 if self.infinite else self.strength) for", "weights = [w for"),
    Mutant("weights of the stencil without their signs", "ebmrun/theory/stencil.py",
           "weights = [w / (1", "weights = [abs(w) / (1"),
    Mutant("node at 0 forgotten", "ebmrun/theory/stencil.py",
           "free = math.fsum(", "free = 0 * math.fsum("),
    Mutant("held output as far from the target as it should be from the free one", "ebmrun/theory/pulling.py",
           "free.repeat(nodes, 1) + strengths * (targets - free)",
           "targets.repeat(nodes, 1) + strengths * (free - targets)", "pulling"),
    Mutant("output pulled where it should be held", "ebmrun/theory/pulling.py",
           "    if nudge.holds:", "    if False:", "pulling"),
    Mutant("signs that pull alone", "ebmrun/theory/pulling.py",
           "message=term.message * signs.repeat", "message=term.message * signs.abs().repeat", "pulling"),
    Mutant("signs left out of the pull", "ebmrun/theory/pulling.py",
           "if signs is None else signs\n", "if True else signs\n", "pulling"),
    Mutant("held output told from its free state by no digit", "ebmrun/fits.py",
           "info.eps if config.nudge.holds else floor", "floor", "family"),
    Mutant("states nudged from zero", "ebmrun/theory/coordinates.py",
           "return self.free.states, self.free.drives,",
           "return [0 * x for x in self.free.states], self.free.drives,", "relaxation"),
    Mutant("displacements nudged from minus the equilibrium", "ebmrun/theory/displacement.py",
           "return zeros, drives,", "return [-x for x in self.free.states], drives,", "coordinates"),
    Mutant("free phase of a settling energy skipped", "ebmrun/theory/learning.py",
           "return (forward, None) if self.energy.feedforward else", "return (forward, None) if True else"),
    Mutant("layers not weighted by gamma^-h", "ebmrun/theory/energies/energy.py",
           "return [self.feedback_gain**-height for", "return [1.0 for"),
    Mutant("messages not weakened by gamma", "ebmrun/theory/relaxation.py",
           "message = message if gain == 1 else gain * message", "message = 1 * message", "relaxation"),
    Mutant("messages weakened by gamma on each edge, whatever its height", "ebmrun/theory/network.py",
           "[[self.heights[source - 1] - height if source", "[[1 if source", "relaxation"),
    Mutant("height by another than the longest way", "ebmrun/theory/graph.py",
           "max(heights[source], heights[l] + 1)", "heights[l] + 1", "network"),
    Mutant("all but one message of a fan-out forgotten", "ebmrun/theory/relaxation.py",
           "message if heard is None else heard + message", "message", "relaxation"),
    Mutant("last edge of a drive left out", "ebmrun/theory/coordinates.py",
           "return sum(parts[1:], parts[0]), pieces", "return sum(parts[1:-1], parts[0]), pieces", "relaxation"),
    Mutant("last edge of a drive's increment left out", "ebmrun/theory/displacement.py",
           "return sum(parts[1:], parts[0]), tuple(pieces)", "return sum(parts[1:-1], parts[0]), tuple(pieces)",
           "coordinates"),
    Mutant("new winner of a maximum ignored going down", "ebmrun/theory/displacement.py",
           "affine.unpooled(message + switched, piece) - affine.unpooled(switched, before)",
           "affine.unpooled(message, piece)", "coordinates"),
    Mutant("new winner of a maximum ignored by the rule", "ebmrun/theory/displacement.py",
           "Term(message + switched, below, piece)", "Term(message, below, piece)", "graphs"),
    Mutant("implicit gradient without gamma", "ebmrun/theory/references.py",
           "State(network, self.learning.energy, free)", "State(network, type(self.learning.energy)(), free)",
           "references"),
    Mutant("complex nodes with weights that turn along", "ebmrun/theory/stencil.py",
           "w * turn.conjugate() * count", "w * turn * count", "holomorphic"),
    Mutant("conjugate nodes that count once", "ebmrun/theory/stencil.py",
           "1 + (0 < share < 0.5)", "1 + 0 * (0 < share < 0.5)", "holomorphic"),
    Mutant("slope of a complex unit conjugated", "ebmrun/theory/holomorphic.py",
           "return self.slope(y) * v", "return self.slope(y).conj() * v", "holomorphic"),
    Mutant("gradient at complex states with a conjugate", "ebmrun/theory/holomorphic.py",
           "[part - other for", "[part + other for", "holomorphic"),
    Mutant("complex functions that are not looked at", "ebmrun/theory/holomorphic.py",
           "if not is_holomorphic(function, a):", "if False:", "holomorphic"),
    Mutant("one step of recurrent backpropagation too few", "ebmrun/theory/recurrent.py",
           "range(self.steps)", "range(self.steps - 1)", "recurrent"),
    Mutant("only the last step of recurrent backpropagation", "ebmrun/theory/recurrent.py",
           "[total + each for total", "[0 * total + each for total", "recurrent"),
    Mutant("truncation that claims to have settled", "ebmrun/theory/recurrent.py",
           "residual, residual <= self._tolerance(states[-1])", "residual, True", "recurrent"),
    Mutant("recurrent backpropagation to another tolerance", "ebmrun/theory/recurrent.py",
           "max(self.learning.relaxation.tol, tightest(x))", "tightest(x)", "recurrent"),
    Mutant("states that begin anew after every update", "ebmrun/theory/incremental.py",
           "states = step.moved", "states = states", "incremental"),
    Mutant("drives of weights that have moved since", "ebmrun/theory/incremental.py",
           "drives = [Drive(*summed(edges, signals)) for edges in network.edges]",
           "drives = start.drives", "incremental"),
    Mutant("clamped output that begins at the forward pass", "ebmrun/theory/incremental.py",
           "pull.targets if pull.clamps else start.states[-1]]", "start.states[-1]]", "incremental"),
    Mutant("weights that move until they have settled in any case", "ebmrun/theory/incremental.py",
           "converged=left <= how.tol", "converged=True", "incremental"),
    Mutant("mean gradient of a batch by their sum", "ebmrun/training/updates.py",
           "[each / count for each in total]", "total", "incremental"),
    Mutant("joint nodes that send up a plain mean", "ebmrun/theory/joint.py",
           "[w * s for w, s in zip(weights, self.strengths)]", "[1 / len(weights) for w in weights]", "joint"),
    Mutant("joint nodes that hear one message", "ebmrun/theory/joint.py",
           "[strength * heard for strength", "[self.strengths[0] * heard for strength", "joint"),
    Mutant("joint nodes that hear their own layer above alone", "ebmrun/theory/joint.py",
           "self.weights.shift(message)", "message[: len(self.free.inputs)] / self.strengths[0]", "joint"),
    Mutant("linear map for its transpose", "ebmrun/theory/affine/dense.py",
           'torch.mm(message, self.down["weight"])',
           "message @ (self.weight.t() if self.weight.shape[0] == self.weight.shape[1] else self.weight)"),
    Mutant("convolution's adjoint with the kernel turned", "ebmrun/theory/affine/images.py",
           'conv_transpose2d(message, self.down["weight"],', "conv_transpose2d(message, self.weight.flip(2, 3),"),
    Mutant("pooling's adjoint without the mean", "ebmrun/theory/affine/images.py",
           "spread(message, self.shape, self.size) / self.size**2", "spread(message, self.shape, self.size)"),
    Mutant("bias rounded with its product", "ebmrun/theory/affine/bfloat16.py",
           "return self.linear(x) + self.bias", "return (self.linear(x) + self.bias).bfloat16().to(x.dtype)",
           "bfloat16"),
    Mutant("products below a maximum left whole", "ebmrun/theory/affine/bfloat16.py",
           "return MaxPool2d(_affine_in_bfloat16(affine.inner), affine.size)", "return affine", "bfloat16"),
    Mutant("weights that lose their gradient where they are rounded", "ebmrun/theory/products.py",
           "with torch.enable_grad():", "with torch.no_grad():", "products"),
    Mutant("TF32 left on after an estimate", "ebmrun/theory/products.py",
           "matmul.allow_tf32, cudnn.allow_tf32 = before", "pass", "products"),
    Mutant("message without f'", "ebmrun/theory/energies/predictive.py",
           "return f.pullback(y, x - y)", "return x - y"),
    Mutant("message of an error without f'", "ebmrun/theory/energies/predictive.py",
           "return f.pullback(rest, e)", "return e"),
    Mutant("lifted error by subtraction", "ebmrun/theory/energies/lifted.py",
           "return f.increment(a, t)", "return f(a + t) - f(a)", "energies"),
    Mutant("hopfield displacement by subtraction", "ebmrun/theory/energies/hopfield.py",
           "return f.increment(a0 + t0, da + dt)", "return f(a0 + t0 + da + dt) - f(a0 + t0)", "energies"),
    Mutant("learning rule with its sign flipped", "ebmrun/theory/learning.py",
           "[-gain / examples for", "[gain / examples for"),
    Mutant("sum over the batch for its mean", "ebmrun/theory/learning.py",
           "[-gain / examples for", "[-gain for"),
    Mutant("free messages left out of the rule of states", "ebmrun/theory/coordinates.py",
           "if free.feedback and weights.free:", "if False:"),
    Mutant("free messages left out of the rule of displacements", "ebmrun/theory/displacement.py",
           "Term(weights.scales[l] * m0,", "Term(0 * m0,"),
    Mutant("drives read one step late", "ebmrun/theory/solver.py",
           "return phase.last if at_hand else arrived(space, pull, phase.last)", "return phase.last"),
    Mutant("held pass with a moving cost", "ebmrun/theory/relaxation.py",
           "True, [1.0] * len(u))", "True, [1.0] * (len(u) - 1) + [pull.step])"),
    Mutant("the first layer's gradient by its own state", "ebmrun/theory/relaxation.py",
           "else space.feedback(l, u, drive)\n", "else u\n"),
    Mutant("synchronous order that sweeps", "ebmrun/theory/relaxation.py",
           "senders, feedback = moved if sweeps else u,", "senders, feedback = moved,", "relaxation"),
    Mutant("residual relative to the state", "ebmrun/theory/residual.py",
           "torch._foreach_sub(step.moved, states) if isinstance(space, State) else step.moved",
           "list(step.moved)", "solver"),
    Mutant("convergence claimed in any case", "ebmrun/theory/solver.py",
           "left.residual <= how.tol, lost", "True, lost", "solver"),
    Mutant("kink whose sides are exchanged", "ebmrun/theory/kinks.py",
           "(above < message) & (message < below)", "(below < message) & (message < above)", "kinks"),
    Mutant("rise of a state forgotten", "ebmrun/theory/error.py",
           "return drive.risen + u", "return u", "coordinates"),
    Mutant("kink left at once", "ebmrun/theory/kinks.py",
           "- (drive.a - kink) / (by_row(softness, feedback) * compliance)", "", "kinks"),
    Mutant("drives that hardly give way", "ebmrun/theory/compliance.py",
           "give = sum(parts[1:], parts[0])", "give = 1e-3 * sum(parts[1:], parts[0])", "kinks"),
    Mutant("conjugate directions without the last one", "ebmrun/theory/conjugate.py",
           "torch.addcmul(z, p, beta.masked_fill(ends, 0))", "z + 0 * p", "conjugate"),
    Mutant("curvature without the cost", "ebmrun/theory/descent.py",
           "return found + bend(", "return found + 0 * bend(", "conjugate"),
    Mutant("gap without gamma^-h", "ebmrun/theory/descent.py",
           "return vector if self.gains is None else", "return vector if True else", "conjugate"),
    Mutant("Young's formula with its sign flipped", "ebmrun/theory/over_relaxation.py",
           "2 / (1 + math.sqrt(1 - square)) if", "2 / (1 + math.sqrt(1 + square)) if", "over_relaxation"),
    Mutant("Hessian without the metric of the layers", "ebmrun/theory/probe.py",
           "dt, f)[0] / gain", "dt, f)[0]", "probe"),
    Mutant("Hessian of the energy without the cost", "ebmrun/theory/probe.py",
           "self.parts if pull.clamps else", "self.parts if True else", "probe"),
    Mutant("work left without its half", "ebmrun/theory/probe.py",
           "left += added / 2", "left += added", "probe"),
    Mutant("work of a clamp counted from the free output", "ebmrun/theory/probe.py",
           "pull.targets if pull.clamps else space.free.states[-1]]", "space.free.states[-1]]", "probe"),
    Mutant("work with kinks out of balance", "ebmrun/theory/probe.py",
           "last if last.held else None", "None", "probe"),
    Mutant("sweep to compare with as long as the relaxation", "ebmrun/theory/probe.py",
           "relax(space, pull, once, 1)", "relax(space, pull, how, how.max_steps)", "probe"),
    Mutant("Lanczos' rows without the one before", "ebmrun/theory/lanczos.py",
           "bend(way) - norm * before", "bend(way)", "lanczos"),
    Mutant("examples that left forgotten by the residual", "ebmrun/theory/narrowing.py",
           "[math.hypot(*pair) for pair in zip(norms, self.norms)] if self.norms else norms", "[]", "narrowing"),
    Mutant("examples that leave long before they have settled", "ebmrun/theory/narrowing.py",
           "[MARGIN * tol * way", "[1e3 * tol * way", "narrowing"),
    Mutant("examples that left put back as they were before", "ebmrun/theory/narrowing.py",
           "in reversed(self.left):", "in self.left[:1]:", "narrowing"),
    Mutant("examples that left while the way shrank never come back", "ebmrun/theory/narrowing.py",
           "if any(gap > tol / 2 * way", "if False and any(gap > tol / 2 * way", "narrowing"),
    Mutant("norms of what left in single precision", "ebmrun/theory/narrowing.py",
           "torch.promote_types(part.dtype, torch.float64)", "part.dtype", "narrowing"),
    Mutant("examples leave before all layers have moved", "ebmrun/theory/narrowing.py",
           " or not all(ways)", "", "narrowing"),
    Mutant("step size that never goes back", "ebmrun/theory/over_relaxation.py",
           "if self.ratio <= self.step_size - 1:", "if False:", "over_relaxation"),
    Mutant("nodes that hear each other parted", "ebmrun/theory/joint.py",
           "    independent = False\n", "", "narrowing"),
    Mutant("shares of winners lost on parting", "ebmrun/theory/affine/piece.py",
           "self.shares[row >= 0])", "self.shares[row >= 0] / 2)", "narrowing"),
    Mutant("half a digit of a state not counted", "ebmrun/theory/residual.py",
           "info.eps / 2 if blurred else 0.0", "0.0", "solver"),
    Mutant("smallest number not counted", "ebmrun/theory/residual.py",
           "info.tiny * info.eps", "0.0", "solver"),
    Mutant("a layer at rest taken for settled", "ebmrun/theory/residual.py",
           "not (pull.rests or silent(space, step, l))", "False", "solver"),
    Mutant("acceleration that combines with the wrong sign", "ebmrun/theory/anderson.py",
           "return fixed - (weights", "return fixed + (weights", "anderson"),
    Mutant("feedback by the forward weights, whatever was given", "ebmrun/theory/affine/weighted.py",
           "self.down = Down(self.own, cast(\"dict[str, Tensor]\", self._buffers), weight)", "self.down = self.own",
           "feedback"),
    Mutant("matrix that always goes down by its transpose", "ebmrun/theory/affine/dense.py",
           "torch.mm(message, self.down[", "torch.mm(message, self.own[", "feedback"),
    Mutant("convolution that always goes down by its transpose", "ebmrun/theory/affine/images.py",
           "conv_transpose2d(message, self.down[", "conv_transpose2d(message, self.own[", "feedback"),
    Mutant("feedback of a sign that weights have had", "ebmrun/theory/feedback.py",
           "return torch.copysign(own, forward)", "return own", "feedback"),
    Mutant("feedback of the same numbers for every seed", "ebmrun/theory/feedback.py",
           "default_rng([seed, 0, 3])", "default_rng([0, 0, 3])", "feedback"),
    Mutant("feedback without its layer's gain", "ebmrun/theory/feedback.py",
           "self.draw(draws, module, gain)", "self.draw(draws, module, 1.0)", "feedback"),
    Mutant("feedback for a map that sends nothing down", "ebmrun/theory/feedback.py",
           "maps = maps[1:] if from_input else maps", "maps = list(maps)", "feedback"),
    Mutant("fixed feedback that takes the weights' steps", "ebmrun/theory/network.py",
           "in self.untied[l] if affine.follows]", "in self.untied[l]]", "feedback"),
    Mutant("conjugate gradients without an energy", "ebmrun/theory/solver.py",
           "if not (space.descends or how.acceleration == \"anderson\") or", "if", "feedback"),
    Mutant("curvature without an energy", "ebmrun/theory/probe.py",
           "if not network.tied:", "if False:", "feedback"),
    Mutant("feedback alignment by the transposes", "ebmrun/theory/feedback_alignment.py",
           "if network.tied else FeedbackAlignment", "if True else FeedbackAlignment", "feedback"),
    Mutant("feedback alignment that learns from no signal", "ebmrun/theory/feedback_alignment.py",
           "gradient(message, x, ctx.piece)", "gradient(message, 0 * x, ctx.piece)", "feedback"),
    Mutant("held pass that ignores its options", "ebmrun/theory/relaxing.py",
           "if self.frozen and getattr(self, key) != needed:", "if False:", "family"),
    Mutant("single nudge for an energy that settles", "ebmrun/fits.py",
           "if config.nudge.needs_no_free_gradient and not energy.feedforward:", "if False:", "family"),
    Mutant("clamping against another cost", "ebmrun/fits.py",
           "if config.nudge.clamps:", "if False:", "family"),
    Mutant("misread states left out", "ebmrun/theory/analog.py",
           ", Term(weights.of(l, message), misread, piece, False)]", "]", "analog"),
    Mutant("misread states met by true messages alone", "ebmrun/theory/analog.py",
           "Term(wrong, below + misread, piece), Term(weights", "Term(wrong, below, piece), Term(weights", "analog"),
    Mutant("displacements read in place of messages", "ebmrun/theory/analog.py",
           "if space.relative and free.feedback:", "if False:", "analog"),
    Mutant("free node not read", "ebmrun/theory/analog.py", "if not weights.free:", "if True:", "analog"),
    Mutant("noise of states left out", "ebmrun/theory/analog.py", "self.machine.noise.states)", "0.0)", "analog"),
    Mutant("noise of messages left out", "ebmrun/theory/analog.py", "self.machine.noise.messages)", "0.0)", "analog"),
    Mutant("the same noise at each draw", "ebmrun/theory/draws.py", "mixed(self.keys) + self.count", "mixed(self.keys)",
           "draws"),
    Mutant("the same noise at each node", "ebmrun/theory/draws.py",
           "(place + 1) * GOLDEN", "(place % numbers + 1) * GOLDEN", "draws"),
    Mutant("grid of an even number of levels", "ebmrun/theory/grid.py", "(2 ** (self.bits - 1) - 1)",
           "2 ** (self.bits - 1)", "grid"),
    Mutant("the same noise in both parts of a number", "ebmrun/theory/draws.py",
           "torch.complex(self.normal(like.real), self.normal(like.imag))",
           "torch.complex(*[self.normal(like.real)] * 2)", "draws"),
    Mutant("noise in the real part alone", "ebmrun/theory/draws.py",
           "self.normal(like.imag))", "torch.zeros_like(like.imag))", "draws"),
    Mutant("devices that match", "ebmrun/theory/feedback.py",
           "return forward * (1 + own)", "return forward", "training/writing"),
    Mutant("steps up as large as steps down", "ebmrun/training/writing.py",
           "torch.where(step > 0, 1 + a, 1 - a) * step", "step", "training/writing"),
    Mutant("written weights rounded to the nearest level", "ebmrun/training/writing.py",
           "self.grid.stochastic(new, draws.uniform(new[None])[0])", "self.grid.nearest(new)", "training/writing"),
    Mutant("best strength without the order", "ebmrun/studies/certify/best_strength.py",
           "(self.noise / (self.order * self.bias))", "(self.noise / self.bias)", "studies/best_strength"),
    Mutant("best strength of a sum for that of squares", "ebmrun/studies/certify/best_strength.py",
           "self.order ** (1 / (2 * (self.order + 1)))", "1.0", "studies/best_strength"),
]


def copy_of_the_package(folder: Path) -> None:
    """What the tests need: package, configurations, tests."""
    for name in ("ebmrun", "conf", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def run_tests(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    """The fast tests of a module, one process on one core, against the copy in the folder."""
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    place, _, name = module.rpartition("/")
    command = [*PYTEST, "-m", "not slow", f"tests/{place or 'theory'}/test_{name}.py"]
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
