"""What a study that measures row by row leaves behind."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebmrun import files
from ebmrun.training.summary import near

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def write(rows: Sequence[DataclassInstance], facts: Mapping[str, Any], run_dir: Path, name: str) -> None:
    """NAME.csv of the rows, and NAME.json of these with the facts; and prints where."""
    each = [asdict(row) for row in rows]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, each[0])
    writer.writeheader()
    writer.writerows(each)
    found = json.dumps({**facts, "rows": each}, allow_nan=False, indent=2)
    for ending, text in ("csv", table.getvalue()), ("json", found + "\n"):
        with files.replace(run_dir / f"{name}.{ending}") as file:
            file.write(text.encode())
    print(f"\nfiles: {near(run_dir)}")
