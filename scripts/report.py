"""A page over any folder of runs: tables over seeds, differences from a baseline, figures, and what runs are missing.

    python scripts/report.py FOLDER [--baseline bp] [--out FOLDER/report]

Writes report.md, report.html and the figures beside them. Runs whose configurations differ in the seed alone are one
row, mean ± standard error of the mean (n runs; no error for one). A difference is paired: between runs of one seed
that otherwise differ in what the algorithm sets, or by all that the sweep moves, from the baseline. Nothing is trained.
"""

from __future__ import annotations

import argparse
import html
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from records import markdown
from report_figures import layers, learning, strengths
from report_runs import Runs, read
from report_tables import differences, means


def write(runs: Runs, title: str, baseline: str, out: Path) -> None:
    """report.md and report.html, with the same sections, and the figures that both show."""
    out.mkdir(parents=True, exist_ok=True)
    finished = len(runs.table)
    sections: list[tuple[str, str, pd.DataFrame | str]] = []
    if runs.amiss:
        sections.append(("Missing or broken", "They are in no table and no figure.",
                         pd.DataFrame(runs.amiss, columns=["run", "what is wrong"])))
    if finished:
        sections.append(("Over seeds", "Mean ± standard error of the mean; values as summary.json has them.",
                         means(runs.table)))
        paired = differences(runs.table, baseline)
        if not paired.empty:
            words = f"Paired by seed: a run minus that of {baseline}, mean ± standard error of the mean."
            sections.append((f"Differences from {baseline}", words, paired))
        figures = {"learning": ("Loss and accuracy", learning(runs)),
                   "layers": ("Alignment of each layer", layers(runs)),
                   "strengths": ("Error against nudge", strengths(runs))}
        for name, (heading, figure) in figures.items():
            if figure:
                figure.savefig(out / f"{name}.png", dpi=120)
                plt.close(figure)
                sections.append((heading, "Bands and bars are standard errors over seeds.", f"{name}.png"))
    amiss = f"{len(runs.amiss)} missing or broken" if runs.amiss else "none missing"
    text = f"{finished} finished runs, {amiss}."
    plain, page = [f"# {title}", text], [f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p>"]
    for heading, words, content in sections:
        if isinstance(content, str):
            inline, shown = f"![{heading}]({content})", f'<img src="{content}" alt="{html.escape(heading)}">'
        else:
            rows = content.astype(str).replace("[|]", r"\\|", regex=True).to_numpy().tolist()
            inline, shown = markdown(list(content.columns), rows), content.to_html(index=False, border=0)
        plain += [f"## {heading}", words, inline]
        page += [f"<h2>{html.escape(heading)}</h2><p>{html.escape(words)}</p>", shown]
    (out / "report.md").write_text("\n\n".join(plain) + "\n")
    (out / "report.html").write_text(PAGE.format(title=html.escape(title), body="\n".join(page)))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;display:block;overflow-x:auto}}
td,th{{padding:.2rem .7rem;text-align:right;white-space:nowrap}}
tr:nth-child(even){{background:#f4f4f4}}td:first-child,th:first-child{{text-align:left}}img{{max-width:100%}}</style></head>
<body>{body}</body></html>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of runs, at any depth")
    parser.add_argument("--baseline", default="bp", help="the algorithm to take differences from (default: bp)")
    parser.add_argument("--out", type=Path, help="where the report goes (default: report, in the folder of runs)")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder")
    runs = read(options.folder)
    if runs.table.empty and not runs.amiss:
        parser.error(f"{options.folder} holds no runs")
    out = options.out or options.folder / "report"
    write(runs, f"Runs of {options.folder.resolve().name}", options.baseline, out)
    print(f"{len(runs.table)} runs, {len(runs.amiss)} missing or broken: {out / 'report.md'}, {out / 'report.html'}")


if __name__ == "__main__":
    main()
