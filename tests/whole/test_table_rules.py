"""The table of results/rules: its intervals are those of scipy, its verdicts follow, and it mixes up no runs."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from program import composed
from scipy import stats

from ebmrun.config import typed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "scripts"))
    import table_rules

    yield table_rules
    sys.path.remove(str(ROOT / "scripts"))


def rows(script: ModuleType, errors: dict[str, list[float]]) -> list[dict[str, object]]:
    """Runs with these test errors in percent, a seed each."""
    rest = dict.fromkeys(script.KEYS, "")
    return [{"rule": rule, "seed": seed, "epoch": 3.0, **rest, "test/accuracy": 1 - error / 100}
            for rule, each in errors.items() for seed, error in enumerate(each)]


def test_intervals_are_those_of_scipy(script: ModuleType) -> None:
    difference = np.random.default_rng(0).normal(0.1, 0.2, 5)
    wanted = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    assert np.allclose(script.interval(difference), [difference.mean(), *wanted], rtol=1e-12)
    assert np.isnan(script.interval(difference[:1])[1:]).all()  # one seed tells no spread


def test_an_order_holds_where_its_interval_leaves_out_0(script: ModuleType) -> None:
    """Published are, from the best: centered, negative, contrastive, positive. Here negative beats centered by two
    points with each seed, contrastive scatters around centered, and positive is far behind."""
    made = {script.BASELINE: [5.0, 5.1, 4.9], "equilibrium propagation, negative": [3.0, 3.1, 2.9],
            "contrastive learning": [4.0, 6.0, 5.0], "equilibrium propagation, positive": [20.0, 20.1, 19.9]}
    said = script.ranking(rows(script, made))
    assert f"- {script.BASELINE} before equilibrium propagation, negative: the opposite order (-2.00 points)." in said
    assert f"- {script.BASELINE} before contrastive learning: not told apart (+0.00 points)." in said
    assert f"- {script.BASELINE} before equilibrium propagation, positive: the same order (+15.00 points)." in said
    assert said.startswith("3 of 6 published orders hold")


def test_rules_are_paired_by_seed_or_not_at_all(script: ModuleType) -> None:
    line = script.table(rows(script, {script.BASELINE: [5.0, 7.0], "contrastive learning": [6.0, 8.0]})).splitlines()[2]
    assert "| 7.00 ± 1.00 | +1.00 (+1.00 to +1.00) |" in line
    with pytest.raises(SystemExit, match="paired by seed"):
        script.table(rows(script, {script.BASELINE: [5.0, 7.0], "contrastive learning": [6.0]}))


def test_every_rule_is_made_by_words_that_compose(script: ModuleType) -> None:
    """Ten different compositions."""
    made = {repr(typed(composed(*map("=".join, zip(script.WORDS, rule.words))))) for rule in script.RULES.values()}
    assert len(made) == len(script.RULES) == 10


def test_a_run_of_another_kind_is_refused(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["algo=pc", "seed=0"]))
    with pytest.raises(SystemExit, match="made with pc, which is none of the rules"):
        script.row(tmp_path)
