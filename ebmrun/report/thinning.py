"""Fewer numbers for a page: nothing is averaged, no outlier is lost, and every number shown was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd


def thinned(series: pd.Series, points: int) -> pd.DataFrame:
    """A curve of no more than so many points, in even stretches of its rows: under the step of the row with the
    ``middle`` value of a stretch (its lower median) also its ``low`` and its ``high``. A curve without that many rows
    stays as it is."""
    values = series.to_numpy(float)
    found = []
    for stretch in np.array_split(np.arange(len(values)), min(points, len(values))):
        ordered = stretch[np.argsort(values[stretch], kind="stable")]
        middle = ordered[(len(ordered) - 1) // 2]
        found.append((series.index[middle], values[middle], values[ordered[0]], values[ordered[-1]]))
    return pd.DataFrame(found, columns=["step", "middle", "low", "high"]).set_index("step")


def largest(table: pd.DataFrame, columns: int) -> pd.DataFrame:
    """A table with no more than so many rows: of each stretch of rows the largest value of each column, under the index
    of its last row."""
    if len(table) <= columns:
        return table
    stretches = np.array_split(np.arange(len(table)), columns)
    return pd.DataFrame([table.iloc[each].max() for each in stretches], [table.index[each[-1]] for each in stretches])
