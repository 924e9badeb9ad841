"""The command `ebmrun-report`: a page over any folder of runs. Nothing is trained."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import NoReturn

from ebmrun.errors import RunError
from ebmrun.files import replace
from ebmrun.report.markdown import markdown
from ebmrun.report.page import page
from ebmrun.report.runs import Runs, read

ABOUT = """Writes report.html, one page to look at runs with: tables that sort, curves to switch on and off, maps of the
layers' alignment, settings that differ, and what is not counted; and report.md with the same tables. Runs whose
configurations differ in the seed alone are one row, mean ± standard error of the mean. A difference is paired: between
runs of one seed that otherwise differ in what the algorithm sets, or by all that the sweep moves, from the baseline."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        raise SystemExit(2)


def main() -> None:
    """Write a report, as the arguments in `sys.argv` ask. Raises SystemExit with 2 for what cannot be reported on."""
    parser = Parser(prog="ebmrun-report", description=ABOUT)
    parser.add_argument("folder", type=Path, help="a folder of runs, at any depth")
    parser.add_argument("--baseline", metavar="ALGO", help="take differences from this one (default: backpropagation)")
    parser.add_argument("--out", type=Path, help="where the report goes (default: report, in the folder of runs)")
    parser.add_argument("--watch", metavar="SECONDS", type=float, nargs="?", const=5.0,
                        help="write it anew every so many seconds (default: 5) until Ctrl-C; an open page follows")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder: name one that holds runs")
    if options.watch is not None and not (options.watch > 0 and math.isfinite(options.watch)):
        parser.error(f"--watch={options.watch:g} must be a positive number of seconds: try 5")
    try:
        while options.watch:
            print(f"\r{report(options, parser)}; Ctrl-C ends", end="", flush=True)
            time.sleep(options.watch)
    except KeyboardInterrupt:
        print()
    options.watch = None  # a last page, that waits for no other
    print(report(options, parser))


def report(options: argparse.Namespace, parser: Parser) -> str:
    """Writes the report once; what it is about, and where it is. While one watches, report.html alone, and a folder may
    hold nothing yet."""
    runs = read(options.folder)
    there = len(runs.table) or len(runs.underway) or runs.studies or runs.amiss
    if not there and not options.watch:
        parser.error(f"{options.folder} holds no runs: name a folder that ebmrun has written to")
    known = options.baseline in runs.algorithms or options.watch
    if options.baseline and not known:
        parser.error(f"--baseline={options.baseline} has no finished run in {options.folder}: "
                     f"choose one of {', '.join(runs.algorithms) or 'none'}")
    title, said = f"Runs of {options.folder.resolve().name}", counts(runs)
    baseline = options.baseline or runs.backprop
    out = options.out or options.folder / "report"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with replace(out / "report.html") as file:  # at once, for a page that is open may be read at any moment
            file.write(page(runs, title, said, baseline, options.watch).encode())
        if options.watch:
            return f"{said}: {out / 'report.html'}"
        (out / "report.md").write_text(markdown(runs, title, said, baseline, out))
    except (OSError, RunError) as error:
        reason = error.__cause__ if isinstance(error, RunError) else error
        parser.error(f"cannot write {out} ({getattr(reason, 'strerror', reason)}): choose another folder with --out")
    return f"{said}: {out / 'report.html'}, {out / 'report.md'}"


def counts(runs: Runs) -> str:
    """How many runs were found, and of which kind."""
    underway = f", {len(runs.underway)} underway" if len(runs.underway) else ""
    amiss = f"{len(runs.amiss)} not counted" if runs.amiss else "none left out"
    studies = f", {len(runs.studies)} of studies" if runs.studies else ""
    return f"{len(runs.table)} finished runs{underway}, {amiss}{studies}"
