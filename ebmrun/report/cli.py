"""The command `ebmrun-report`: a page over any folder of runs. Nothing is trained."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from ebmrun.report.page import counts, write
from ebmrun.report.runs import read

ABOUT = """Writes report.md, report.html and the figures beside them: tables over seeds, differences from a baseline,
and what is not counted. Runs whose configurations differ in the seed alone are one row, mean ± standard error of the
mean. A difference is paired: between runs of one seed that otherwise differ in what the algorithm sets, or by all that
the sweep moves, from the baseline."""


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
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is no folder: name one that holds runs")
    runs = read(options.folder)
    if not (len(runs.table) or runs.studies or runs.amiss):
        parser.error(f"{options.folder} holds no runs: name a folder that ebmrun has written to")
    if options.baseline and options.baseline not in runs.algorithms:
        parser.error(f"--baseline={options.baseline} has no finished run in {options.folder}: "
                     f"choose one of {', '.join(runs.algorithms) or 'none'}")
    out = options.out or options.folder / "report"
    try:
        write(runs, f"Runs of {options.folder.resolve().name}", options.baseline or runs.backprop, out)
    except OSError as error:
        parser.error(f"cannot write {error.filename or out} ({error.strerror}): choose another folder with --out")
    print(f"{counts(runs)}: {out / 'report.md'}, {out / 'report.html'}")
