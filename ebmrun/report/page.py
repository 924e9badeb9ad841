"""The page of a report: one file that needs no other and no network, and sorts, switches and shows as one clicks."""

from __future__ import annotations

import html
import json
from pathlib import Path
from string import Template

from ebmrun.report.contents import contents
from ebmrun.report.runs import Runs

PARTS = Path(__file__).parent / "html"
SCRIPTS = ("state.js", "tables.js", "curves.js", "maps.js", "page.js")


def page(runs: Runs, title: str, counts: str, baseline: str | None, watch: float | None = None) -> str:
    """The whole page; with ``watch`` one that reads itself anew every so many seconds, and stays as it was left."""
    whole = contents(runs, title, counts, baseline) | {"watch": watch}
    text = json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Template((PARTS / "frame.html").read_text()).substitute(
        title=html.escape(title),
        style=(PARTS / "style.css").read_text(),
        contents=text.replace("<", "\\u003c"),  # whatever a name holds ends no element
        script="\n".join((PARTS / name).read_text() for name in SCRIPTS),
    )
