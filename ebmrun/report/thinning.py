"""Fewer numbers for a page: nothing is averaged, no outlier is lost, and every number shown was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd


def thinned(series: pd.Series, points: int) -> pd.DataFrame:
    """A curve of no more than so many points, in even stretches of its rows: under the step of the row with the
    ``middle`` value of a stretch (its lower median) also its ``low`` and its ``high``. A curve without that many rows
    stays as it is."""
    values = series.to_numpy(float)
    stretch, ends = stretches(len(values), points)
    by_size = np.lexsort((values, stretch))  # within each stretch
    first = np.concatenate([[0], ends[:-1]])
    middle = by_size[(first + ends - 1) // 2]
    found = {"middle": values[middle], "low": values[by_size[first]], "high": values[by_size[ends - 1]]}
    return pd.DataFrame(found, index=series.index[middle])


def largest(table: pd.DataFrame, columns: int) -> pd.DataFrame:
    """A table with no more than so many rows: of each stretch of rows the largest value of each column, under the index
    of its last row."""
    stretch, ends = stretches(len(table), columns)
    return table.groupby(stretch).max().set_axis(table.index[ends - 1])


def stretches(rows: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of the stretch that each row is in, and where each ends: even ones, no more than ``most``."""
    sizes = [len(each) for each in np.array_split(np.arange(rows), min(rows, most))]
    return np.repeat(np.arange(len(sizes)), sizes), np.cumsum(sizes)
