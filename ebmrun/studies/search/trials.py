"""The trials of a search, in Optuna's storage: a SQLite file that holds those that have ended, and nothing else.

What comes next is a function of the seed, the number of the trial and the trials before it. So a search that was killed
proposes again what it was at, and ends as one that never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

Direction = Literal["minimize", "maximize"]
FILE = "search.db"
SAMPLERS: dict[str, type[RandomSampler | TPESampler]] = {"random": RandomSampler, "tpe": TPESampler}


class Trials:
    """The trials of the search in a folder; ``direction`` is minimize or maximize."""

    def __init__(self, run_dir: Path, direction: Direction) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._stored = optuna.create_study(storage=f"sqlite:///{(run_dir / FILE).absolute()}", study_name="search",
                                           direction=direction, load_if_exists=True)
        self._direction = direction

    @property
    def ended(self) -> list[FrozenTrial]:
        """In the order of their numbers."""
        return self._stored.get_trials(deepcopy=False)

    def proposed(self, space: Mapping[str, BaseDistribution], sampler: str, seed: int) -> dict[str, Any]:
        """What the next trial should set."""
        before = self.ended
        own = int(np.random.SeedSequence((seed, len(before))).generate_state(1)[0])
        study = optuna.create_study(direction=self._direction, sampler=_sampler(sampler, own))
        study.add_trials(before)
        return study.ask(dict(space)).params

    def add(self, settings: Mapping[str, Any], space: Mapping[str, BaseDistribution], value: float | None,
            facts: Mapping[str, Any]) -> FrozenTrial:
        """Keeps a trial that has ended: with a value, or without one where its run failed, which counts as worse than
        any value."""
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._stored.add_trial(create_trial(state=state, value=value, params=dict(settings), distributions=dict(space),
                                            user_attrs=dict(facts)))
        return self.ended[-1]

    @property
    def best(self) -> FrozenTrial | None:
        """The one with the best value, of equals the first; None where no run has ended well."""
        sign = 1 if self._direction == "maximize" else -1
        valued = [each for each in self.ended if each.value is not None]
        return max(valued, key=lambda each: sign * (each.value or 0), default=None)


def total(trials: Sequence[FrozenTrial], key: str) -> float:
    """The sum of a fact over trials."""
    return sum(each.user_attrs[key] for each in trials)


def _sampler(name: str, seed: int) -> BaseSampler:
    return SAMPLERS[name](seed=seed)
