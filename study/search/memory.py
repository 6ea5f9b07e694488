"""The data that proposals are made from, kept in step with the state of a study.

Each update looks only at trials that are new or were unfinished at the last one.
"""

from __future__ import annotations

from itertools import islice

from study.core.names import COMPLETED, CONFIRM, FAILED, SEARCH
from study.ledger.plan import Plan
from study.ledger.state import State, Trial
from study.search.history import History, Observation
from study.space.search_space import SearchSpace


class Memory:
    """What a sampler sees of baselines and searched trials; equal to what a walk over all gives."""

    def __init__(self, plan: Plan, space: SearchSpace, state: State) -> None:
        self.history = History(space, reduction_factor=plan.reduction_factor)
        self._plan = plan
        self._state = state
        self._seen = 0
        self._open: dict[int, Trial] = {}  # by row in the history

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
            proposed=trial.stage == SEARCH,
        )
