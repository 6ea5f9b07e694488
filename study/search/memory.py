"""The data that proposals are made from, kept in step with the state of a study.

Each update looks only at trials that are new or were unfinished at the last one.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from study.core.names import COMPLETED, CONFIRM, FAILED, GRID, REFERENCE, SEARCH
from study.ledger.plan import Plan
from study.ledger.state import State, Trial
from study.search.history import History, Observation
from study.search.quota import EpochsUsed
from study.space.search_space import SearchSpace


class Memory:
    """Rung values of searched trials and baselines, and the epochs of the searched ones.

    Both are equal to what a walk over all trials would give.
    """

    def __init__(self, plan: Plan, space: SearchSpace, state: State) -> None:
        self.history = History(space)
        self._plan = plan
        self._state = state
        self._choices = tuple(space.choices)
        self._seen = 0
        self._open: dict[int, Trial] = {}  # by row in the history
        self._over: dict[tuple[Any, ...], EpochsUsed] = {}  # sums, of trials that chose the same

    def update(self) -> None:
        """Take in what is new in the state."""
        for trial in islice(self._state.trials.values(), self._seen, None):
            self._seen += 1
            if trial.stage != CONFIRM and trial.params is not None:
                row = len(self.history)
                self.history.put(row, self._observation(trial))
                self._open[row] = trial
        for row, trial in list(self._open.items()):
            self.history.put(row, self._observation(trial))
            if trial.end is not None:
                del self._open[row]
                if trial.stage in (REFERENCE, SEARCH):
                    self._add(self._used(trial), trial)

    @property
    def used(self) -> list[EpochsUsed]:
        """For `quota.below_minimum_share`, which needs only the sums over trials of equal options.
        A grid looks up its points in it, so there each trial stands for itself."""
        running = [
            self._used(trial) for trial in self._open.values() if trial.stage in (REFERENCE, SEARCH)
        ]
        return [*self._over.values(), *running]

    def _add(self, one: EpochsUsed, trial: Trial) -> None:
        key: tuple[Any, ...] = (one.proposed, *(one.params.get(path) for path in self._choices))
        if self._plan.sampler == GRID:
            key = (trial.id,)
        sum_ = self._over.get(key, EpochsUsed(one.params, 0, 0, one.proposed))
        self._over[key] = EpochsUsed(
            sum_.params, sum_.least + one.least, sum_.most + one.most, one.proposed
        )

    def _observation(self, trial: Trial) -> Observation:
        assert trial.params is not None
        rungs = dict(trial.rungs)
        if trial.status == COMPLETED:
            rungs[self._plan.epochs] = {key: trial.last[key] for key in self._plan.objectives}
        return Observation(
            params=trial.params,
            rungs=rungs,
            running=trial.end is None,
            failed=trial.status == FAILED,
        )

    def _used(self, trial: Trial) -> EpochsUsed:
        assert trial.params is not None
        return EpochsUsed(trial.params, *self._bounds(trial), proposed=trial.stage == SEARCH)

    def _bounds(self, trial: Trial) -> tuple[int, int]:
        ahead = (*(rung for rung in self._plan.rungs if rung > trial.epochs), self._plan.epochs)
        if trial.end is None:
            return ahead[0], self._plan.epochs
        if trial.status == FAILED:
            return max(trial.epochs, (*self._plan.rungs, self._plan.epochs)[0]), trial.epochs
        return trial.epochs, trial.epochs
