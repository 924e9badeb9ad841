"""The pages of a report: the same sections in Markdown and in HTML, with the figures that both show."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ebmrun.report.figures import drawn
from ebmrun.report.runs import Runs
from ebmrun.report.tables import differences, means

Section = tuple[str, str, "pd.DataFrame | str"]  # its heading, a sentence, and a table or the file of a figure
FIGURES = {"learning": "Loss and accuracy", "layers": "Alignment of each layer", "strengths": "Error against nudge"}


def write(runs: Runs, title: str, baseline: str | None, out: Path) -> None:
    """Writes report.md, report.html and their figures. Raises OSError where the disk refuses."""
    out.mkdir(parents=True, exist_ok=True)
    sections = tables(runs, baseline)
    for name, figure in drawn(runs).items() if len(runs.table) else ():
        figure.savefig(out / f"{name}.png", dpi=120)
        sections.append((FIGURES[name], "Bands and bars are standard errors over seeds.", f"{name}.png"))
    plain, page = [f"# {title}", f"{counts(runs)}."], [f"<h1>{html.escape(title)}</h1><p>{counts(runs)}.</p>"]
    for heading, words, content in sections:
        if isinstance(content, str):
            inline, shown = f"![{heading}]({content})", f'<img src="{content}" alt="{html.escape(heading)}">'
        elif content.empty:
            inline = shown = ""
        else:
            rows = content.astype(str).replace("[|]", r"\\|", regex=True).to_numpy().tolist()
            inline, shown = markdown(list(content.columns), rows), content.to_html(index=False, border=0)
        plain += [f"## {heading}", words, inline]
        page += [f"<h2>{html.escape(heading)}</h2><p>{html.escape(words)}</p>", shown]
    (out / "report.md").write_text("\n\n".join(plain) + "\n")
    (out / "report.html").write_text(PAGE.format(title=html.escape(title), body="\n".join(page)))


def counts(runs: Runs) -> str:
    """How many runs were found, and of which kind."""
    amiss = f"{len(runs.amiss)} not counted" if runs.amiss else "none left out"
    studies = f", {len(runs.studies)} of studies" if runs.studies else ""
    return f"{len(runs.table)} finished runs, {amiss}{studies}"


def tables(runs: Runs, baseline: str | None) -> list[Section]:
    """The sections before the figures."""
    sections: list[Section] = []
    if runs.amiss:
        sections.append(("Not counted", "They are in no table and no figure.",
                         pd.DataFrame(runs.amiss, columns=["run", "why"])))
    if len(runs.table):
        sections.append(("Over seeds", "Mean ± standard error of the mean; values as summary.json has them.",
                         means(runs.table)))
        if baseline and len(runs.algorithms) > 1:
            paired = differences(runs.table, baseline)
            words = f"Paired by seed: a run minus that of {baseline}, mean ± standard error of the mean."
            if paired.empty:
                words = f"None: no run has the seed and the settings of exactly one run of {baseline}."
            sections.append((f"Differences from {baseline}", words, paired))
    if runs.studies:
        sections.append(("Studies", "What they found is in their own folders.",
                         pd.DataFrame(runs.studies, columns=["run", "study"])))
    return sections


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;display:block;overflow-x:auto}}
td,th{{padding:.2rem .7rem;text-align:right;white-space:nowrap}}
tr:nth-child(even){{background:#f4f4f4}}td:first-child,th:first-child{{text-align:left}}img{{max-width:100%}}</style></head>
<body>{body}</body></html>
"""
