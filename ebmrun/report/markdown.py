"""The same tables in Markdown, with figures beside them, for a repository or a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ebmrun.report.figures import drawn
from ebmrun.report.runs import Runs
from ebmrun.report.tables import differences, means

Section = tuple[str, str, pd.DataFrame]  # its heading, a sentence, and a table
FIGURES = {"learning": "Loss and accuracy", "layers": "Alignment of each layer", "strengths": "Error against nudge"}


def markdown(runs: Runs, title: str, counts: str, baseline: str | None, out: Path) -> str:
    """The text of report.md, whose figures are written into ``out``. Raises OSError where the disk refuses."""
    lines = [f"# {title}", f"{counts}."]
    for heading, words, content in sections(runs, baseline):
        cells = content.astype(str).replace("[|]", r"\\|", regex=True).to_numpy().tolist()
        lines += [f"## {heading}", words, "" if content.empty else table(list(content.columns), cells)]
    for name, figure in drawn(runs).items() if len(runs.table) else ():
        figure.savefig(out / f"{name}.png", dpi=120)
        lines += [f"## {FIGURES[name]}", "Bands and bars are standard errors over seeds.",
                  f"![{FIGURES[name]}]({name}.png)"]
    return "\n\n".join(lines) + "\n"


def sections(runs: Runs, baseline: str | None) -> list[Section]:
    """The sections with tables."""
    found: list[Section] = []
    if runs.amiss:
        found.append(("Not counted", "They are in no table and no figure.",
                      pd.DataFrame(runs.amiss, columns=["run", "why"])))
    if len(runs.table):
        found.append(("Over seeds", "Mean ± standard error of the mean; values as summary.json has them.",
                      means(runs.table)))
        if baseline and len(runs.algorithms) > 1:
            paired = differences(runs.table, baseline)
            words = f"Paired by seed: a run minus that of {baseline}, mean ± standard error of the mean."
            if paired.empty:
                words = f"None: no run has the seed and the settings of exactly one run of {baseline}."
            found.append((f"Differences from {baseline}", words, paired))
    if runs.studies:
        found.append(("Studies", "What they found is in their own folders.",
                      pd.DataFrame(runs.studies, columns=["run", "study"])))
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
