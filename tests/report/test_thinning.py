"""What a page shows of many rows: every number was measured, and the extremes are among them."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from ebmrun.report.thinning import largest, thinned

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(VALUES, st.integers(1, 80))
def test_a_thinned_curve_has_measured_points_within_its_extremes(values: list[float], points: int) -> None:
    series = pd.Series(values, index=np.cumsum(np.arange(1, len(values) + 1)))
    kept = thinned(series, points)
    assert len(kept) == min(points, len(values)) and kept.index.is_monotonic_increasing and kept.index.is_unique
    assert all(series[step] == middle for step, middle in kept["middle"].items())
    assert (kept["low"] <= kept["middle"]).all() and (kept["middle"] <= kept["high"]).all()
    assert (kept["low"].min(), kept["high"].max()) == (min(values), max(values))
    if len(values) <= points:
        assert kept["middle"].tolist() == values and kept.index.tolist() == series.index.tolist()


def test_the_middle_is_the_median() -> None:
    kept = thinned(pd.Series([5.0, 1.0, 9.0, 2.0, 8.0, 4.0], index=[1, 2, 3, 4, 5, 6]), 2)
    assert kept["middle"].tolist() == [5, 4] and kept.index.tolist() == [1, 6]
    assert kept["low"].tolist() == [1, 2] and kept["high"].tolist() == [9, 8]


@given(st.lists(VALUES, min_size=1, max_size=1), st.integers(1, 20))
def test_a_thinned_table_keeps_the_largest(columns: list[list[float]], rows: int) -> None:
    table = pd.DataFrame({"a": columns[0], "b": np.negative(columns[0])})
    kept = largest(table, rows)
    assert len(kept) == min(rows, len(table)) and kept.index[-1] == table.index[-1]
    assert (kept.max() == table.max()).all()
    stretches = np.array_split(np.arange(len(table)), len(kept))
    assert kept["b"].tolist() == [max(-columns[0][row] for row in each) for each in stretches]
