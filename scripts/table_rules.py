"""The table of results/rules: python scripts/table_rules.py RESULTS SWEEP...

Each SWEEP is a folder of runs of one network; a run is known by the words that it was made with. Differences are paired
by seed with the centered nudge, the best rule of those that were published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from records import command, runs, summary, table_parser
from scipy.stats import t as student
from table_mnist import write

from ebmrun.report import markdown

WORDS = ("algo", "nudge", "nudge.random_sign")
BASELINE = "equilibrium propagation, centered"
KEYS = ("test/accuracy", "test/loss", "alignment/angle", "alignment_implicit/angle", "relax/converged")


class Rule(NamedTuple):
    """What tells a rule's runs from others, and its test error on CIFAR-10 in percent as Scellier et al. 2023 give it,
    where it is known."""

    words: tuple[str, ...]
    published: float | None = None


RULES = {
    "contrastive learning": Rule(("ep", "clamped"), 31.4),
    "equilibrium propagation, positive": Rule(("ep", "one_sided"), 72.6),
    "equilibrium propagation, negative": Rule(("ep", "negative"), 11.9),
    BASELINE: Rule(("ep", "centered"), 11.1),
    "coupled learning, positive": Rule(("ep", "coupled")),
    "coupled learning, negative": Rule(("ep", "coupled_negative")),
    "coupled learning, centered": Rule(("ep", "coupled_centered")),
    "truncated backpropagation": Rule(("tbp",)),
    "recurrent backpropagation": Rule(("rbp",)),
    "equilibrium propagation, random sign": Rule(("ep", "one_sided", "true")),
}


def row(run: Path) -> dict[str, Any]:
    """What the table needs of one run. Exits for one that no rule knows."""
    said = dict(word.split("=", 1) for word in yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text()))
    words = tuple(said[key].lower() for key in WORDS if key in said)
    rule = next((name for name, rule in RULES.items() if rule.words == words), None)
    if rule is None:
        raise SystemExit(f"{run} was made with {' '.join(words)}, which is none of the rules: see RULES")
    found = summary(run)
    return {"rule": rule, "seed": found["seed"], "epoch": found["epoch"], **{key: found.get(key, "") for key in KEYS}}


def by_rule(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """The numbers of each rule, in the order of RULES and of the seeds. Exits unless all rules have the same seeds."""
    found = {name: sorted((r for r in rows if r["rule"] == name), key=lambda r: int(r["seed"])) for name in RULES}
    found = {name: members for name, members in found.items() if members}
    seeds = {name: [int(r["seed"]) for r in members] for name, members in found.items()}
    if len({tuple(each) for each in seeds.values()}) != 1:
        raise SystemExit(f"differences are paired by seed, and the rules have {seeds}: give each the same ones once")
    return {name: {key: np.array([float(r[key]) if r[key] != "" else np.nan for r in members]) for key in KEYS}
            for name, members in found.items()}


def interval(difference: np.ndarray) -> tuple[float, float, float]:
    """The mean with its 95% t interval, which one seed does not have."""
    mean, n = float(difference.mean()), len(difference)
    if n < 2:
        return mean, float("nan"), float("nan")
    half = float(student.ppf(0.975, n - 1) * difference.std(ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each rule."""
    found, lines = by_rule(rows), []
    errors = {name: 100 * (1 - numbers["test/accuracy"]) for name, numbers in found.items()}
    for name, numbers in found.items():
        error, n, published = errors[name], len(errors[name]), RULES[name].published
        spread = f" ± {error.std(ddof=1) / n**0.5:.2f}" if n > 1 else ""
        mean, low, high = interval(error - errors[BASELINE]) if BASELINE in errors else (np.nan,) * 3
        paired = "" if name == BASELINE or np.isnan(mean) else f"{mean:+.2f}" + (
            f" ({low:+.2f} to {high:+.2f})" if n > 1 else "")
        lines.append([name, str(n), f"{error.mean():.2f}{spread}", paired, f"{numbers['test/loss'].mean():.4f}",
                      f"{np.median(numbers['alignment/angle']):.3g}°",
                      f"{np.median(numbers['alignment_implicit/angle']):.3g}°",
                      f"{error.max():.1f}", f"{numbers['relax/converged'].mean():.0%}",
                      "" if published is None else f"{published:.1f}"])
    return markdown.table(["rule", "seeds", "test error, %", "minus centered, points (95% interval)", "test loss",
                           "angle to backprop", "angle to implicit", "worst seed, %", "converged",
                           "published on CIFAR-10, %"], lines)


def ranking(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether the published order holds, pair by pair: a line each, by the sign of the paired difference where its 95%
    interval leaves out 0."""
    found = by_rule(rows)
    known = sorted((name for name in found if RULES[name].published), key=lambda name: RULES[name].published or 0)
    lines, same = [], 0
    for better, worse in combinations(known, 2):
        mean, low, high = interval(100 * (found[better]["test/accuracy"] - found[worse]["test/accuracy"]))
        verdict = "the same order" if low > 0 else "the opposite order" if high < 0 else "not told apart"
        same += verdict == "the same order"
        lines.append(f"- {better} before {worse}: {verdict} ({mean:+.2f} points).")
    return f"{same} of {len(lines)} published orders hold:\n\n" + "\n".join(lines)


def main() -> None:
    asked = table_parser(__doc__).parse_args()
    asked.results.mkdir(parents=True, exist_ok=True)
    rows = [row(run) for sweep in asked.sweeps for run in runs(sweep)]
    write(asked.results / "runs.csv", rows)
    commands = "\n".join(command(sweep) for sweep in asked.sweeps)
    (asked.results / "README.md").write_text(f"""# Nine rules on one bench

The rules that Scellier, Ernoult, Kendall & Kumar 2023 compare, and a nudge of random sign, on MNIST: 784-128-64-10
hard-sigmoid units with the Hopfield energy at full feedback, half squared error, batches of 64,
{float(rows[0]['epoch']):.3g} epochs, one learning rate for all. Of one seed, all start from the same weights and see
the same batches. Mean ± standard error over seeds; angles are medians over the compared batches: to backprop of the
forward pass, and to the gradient of the cost at the free equilibrium. Beside them stand the published errors on
CIFAR-10 of a convolutional network of 128-256-512-512 channels after 100 epochs, where they are known: another task,
whose order of rules is what compares. Where one seed is far off, the column of the worst seeds shows it. Truncated
backpropagation has converged where its last term lies below the tolerance, which 15 terms seldom reach.

{table(rows)}

{ranking(rows)}

Every run, a row each: [runs.csv](runs.csv). Made by

```
{commands}
```

Table: `python scripts/table_rules.py` with these folders.
""")


if __name__ == "__main__":
    main()
