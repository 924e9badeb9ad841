"""What a search may choose, in the words of a sweep: ``optim.lr=tag(log, interval(1e-4, 1))``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, OverrideType, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ebmrun.errors import ConfigError, no_such_key

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Distributions = dict[str, Distribution]


def space(words: Sequence[str], cfg: DictConfig) -> Distributions:
    """What each key may be. An interval or a range of whole numbers, where the key has one now, is of whole numbers.

    Raises ConfigError for a word that is no sweep of one key of the configuration, for an empty interval, or for a
    value at an end of it that the configuration does not take.
    """
    found: Distributions = {}
    for word in words:
        override = _parsed(word)
        key = override.key_or_group
        if key in found:
            raise ConfigError(f"study.space has {key} twice: give each key once")
        _require_single(key, cfg)
        try:
            found[key] = _distribution(override, OmegaConf.select(cfg, key))
        except ValueError as error:
            raise ConfigError(f"study.space: '{word}' is no space ({' '.join(str(error).split())})") from error
    if not found:
        raise ConfigError("study.space is empty: name a key, as in study.space=['optim.lr=tag(log,interval(1e-4,1))']")
    return found


def ends(distributions: Distributions) -> list[dict[str, Any]]:
    """The settings at the ends of each interval and with each choice, one key at a time."""
    return [{key: value} for key, each in distributions.items()
            for value in (each.choices if isinstance(each, CategoricalDistribution) else (each.low, each.high))]


def numbers(distributions: Distributions) -> list[str]:
    """The keys whose values are numbers, not choices."""
    return [key for key, each in distributions.items() if not isinstance(each, CategoricalDistribution)]


def words(settings: Mapping[str, Any]) -> list[str]:
    """Settings in the words of a command."""
    return [f"{key}={value}" for key, value in settings.items()]


def apply(settings: Mapping[str, Any], cfg: DictConfig) -> None:
    """Sets each key. Raises OmegaConf's error for a value of the wrong type."""
    for key, value in settings.items():
        chosen = _parsed(f"{key}={value}").value() if isinstance(value, str) else value
        OmegaConf.update(cfg, key, chosen)


def _parsed(word: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        raise ConfigError(f"study.space: cannot read '{word}': write KEY=interval(a,b), KEY=tag(log,interval(a,b)), "
                          "KEY=range(a,b) or KEY=a,b,c") from None
    if override.type != OverrideType.CHANGE or override.package is not None:
        raise ConfigError(f"study.space: '{word}' adds or removes a key: give one that the configuration has")
    return override


def _require_single(key: str, cfg: DictConfig) -> None:
    above, _, name = key.rpartition(".")
    parent = OmegaConf.select(cfg, above) if above else cfg
    if not isinstance(parent, DictConfig) or name not in parent:
        raise ConfigError(f"study.space: {no_such_key(key, map(str, parent or ()))}")
    if isinstance(parent[name], DictConfig):
        raise ConfigError(f"study.space: {key} is a group of keys: search each of its options by itself, with "
                          f"-m {key}=ONE,OTHER")


def _distribution(override: Override, now: Any) -> Distribution:
    """Raises ValueError for what is no space."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        if value.tags - {"log"}:
            raise ValueError(f"the tag is log, not {', '.join(sorted(value.tags - {'log'}))}")
        if value.start is None or value.end is None or not value.start < value.end:
            raise ValueError("the first number of an interval is the smaller one")
        low, high, log = value.start, value.end, "log" in value.tags
        if isinstance(now, int) and float(low).is_integer() and float(high).is_integer():
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(float(low), float(high), log=log)
    if isinstance(value, RangeSweep) and not value.tags:
        steps = sorted(cast("list[float]", list(override.sweep_iterator())))
        if len(steps) > 1 and all(isinstance(each, int) for each in steps):
            return IntDistribution(int(steps[0]), int(steps[-1]), step=int(steps[1] - steps[0]))
    if isinstance(value, (ChoiceSweep, RangeSweep)) and not value.tags:
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    raise ValueError("write interval(a,b), tag(log,interval(a,b)), range(a,b), or values with commas between them")
