"""Statistics over seeds, by hand."""

from pathlib import Path

from made_runs import leave

from ebmrun.report.runs import read
from ebmrun.report.tables import differences, means


def test_means_have_the_standard_error_of_the_mean(folder: Path) -> None:
    table = means(read(folder).table).set_index(["algo", "nudge.strength"])
    assert list(table.index) == [("bp", "default"), ("pc", "0.01"), ("pc", "0.1")]
    assert set(table["runs"]) == {3}
    # By hand: mean 0.78, deviations 0.12, 0.16, -0.28, variance 0.1184 / 2, standard error sqrt(0.0592 / 3) = 0.1405.
    assert table.loc[("bp", "default"), "test accuracy"] == "0.78 ± 0.14"
    assert table.loc[("pc", "0.1"), "relative error"] == "0.1"
    assert table.loc[("pc", "0.1"), "worst layer"] == "0.2"


def test_differences_are_paired_by_seed(folder: Path) -> None:
    table = differences(read(folder).table, "bp").set_index(["algo", "nudge.strength"])
    assert set(table["pairs"]) == {3}
    # By hand: differences 0, 0.01, 0.02: the scatter of the seeds themselves, 0.14, is gone. sqrt(1e-4 / 3) = 0.0058.
    assert table.loc[("pc", "0.1"), "Δ test accuracy"] == "0.01 ± 0.0058"


def test_an_extended_sweep_adds_no_run_to_the_seeds_that_it_repeats(folder: Path) -> None:
    """Seeds 0 and 1 again, under other names and a little worse: three seeds are three runs and three pairs."""
    for seed in (0, 1):
        leave(folder / f"pc-again-{seed}", "pc", seed, 0.1, "nudge.strength=0.1", error=0.1, strength=0.1)
    table = read(folder).table
    assert set(means(table)["runs"]) == set(differences(table, "bp")["pairs"]) == {3}
    assert differences(table, "bp").set_index("nudge.strength").loc["0.1", "Δ test accuracy"] == "0.01 ± 0.0058"


def test_differences_keep_to_settings_that_the_baseline_moves_too(tmp_path: Path) -> None:
    for rate, shift in (("0.1", 0.0), ("0.2", 0.05)):
        leave(tmp_path / f"bp{rate}", "bp", 0, 0.8 + shift, f"optim.lr={rate}")
        leave(tmp_path / f"pc{rate}", "pc", 0, 0.81 + 3 * shift, f"optim.lr={rate}")
    table = differences(read(tmp_path).table, "bp").set_index("optim.lr")
    assert table.loc["0.1", "Δ test accuracy"] == "0.01" and table.loc["0.2", "Δ test accuracy"] == "0.11"


def test_configurations_that_the_same_words_have_stood_for_are_not_averaged(tmp_path: Path) -> None:
    """A default that has changed between two runs: their words are the same, their configurations are not."""
    leave(tmp_path / "before", "pc", 0, 0.9, trainer={"epochs": 1})
    leave(tmp_path / "after", "pc", 1, 0.5, trainer={"epochs": 2})
    table = means(read(tmp_path).table)
    assert list(table["runs"]) == [1, 1] and set(table["test accuracy"]) == {"0.9", "0.5"}
    assert table["configuration"].nunique() == 2


def test_a_baseline_with_several_runs_to_choose_from_gives_no_differences(tmp_path: Path) -> None:
    for epochs in (1, 2):
        leave(tmp_path / f"bp-{epochs}", "bp", 0, 0.9, trainer={"epochs": epochs})
    leave(tmp_path / "pc", "pc", 0, 0.9)
    assert differences(read(tmp_path).table, "bp").empty
