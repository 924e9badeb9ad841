"""Statistics over seeds: the mean of each setting, and paired differences from a baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ebmrun.report.runs import MEASURES


def settings(table: pd.DataFrame) -> list[str]:
    """The columns that tell the settings of a folder's runs apart: the algorithm, what else the sweep moved, and the
    configuration where the same words have stood for several."""
    fixed = {"run", "seed", "algo", "strength", "build", "configuration", "progress", *MEASURES}
    keys = ["algo", *(key for key in table if key not in fixed and table[key].nunique(dropna=False) > 1)]
    several = not table.empty and table.groupby(keys, dropna=False)["configuration"].nunique().max() > 1
    return [*keys, "configuration"] if several else keys


def spread(values: pd.Series) -> str:
    """Mean ± standard error of the mean, with digits to match the error."""
    values = values.dropna()
    if values.empty:
        return "–"
    mean, error = values.mean(), values.sem()
    if not error > 1e-14 * abs(mean):  # one run, or equal ones up to round-off
        return f"{mean:.4g}"
    digits = min(max(int(np.ceil(np.log10(abs(mean) / error))) + 2 if mean else 2, 2), 8)
    return f"{mean:.{digits}g} ± {error:.2g}"


def over_seeds(table: pd.DataFrame, keys: list[str], count: str, labels: dict[str, str]) -> pd.DataFrame:
    """A row for each setting: the number of its rows, and the spread of each measure."""
    groups = table.groupby(keys, dropna=False, sort=True)
    parts = {label: groups[key].apply(spread) for key, label in labels.items()}
    return pd.DataFrame({count: groups.size(), **parts}).reset_index().fillna("default")


def means(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting, over its seeds."""
    labels = {key: label for key, label in MEASURES.items() if table[key].notna().any()}
    return over_seeds(table, settings(table), "runs", labels)


def differences(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """A row for each setting that is not of the baseline algorithm: run minus the baseline's run of the same seed and
    settings; a setting that the baseline was not given is no matter of the baseline. Empty where there is no pair, or
    where the baseline has several runs to choose from."""
    base = table[table["algo"] == baseline]
    shared = [key for key in settings(table)[1:] if key != "configuration" and base[key].nunique(dropna=False) > 1]
    keys = [key for key in MEASURES if table[key].notna().any() and base[key].notna().any()]
    pairs = table[table["algo"] != baseline].merge(base[["seed", *shared, *keys]], on=["seed", *shared],
                                                   suffixes=("", " of the baseline"))
    if pairs.empty or base.duplicated(["seed", *shared]).any():
        return pd.DataFrame()
    for key in keys:
        pairs[key] -= pairs[f"{key} of the baseline"]
    return over_seeds(pairs, settings(table), "pairs", {key: f"Δ {MEASURES[key]}" for key in keys})
