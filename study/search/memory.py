"""The data that proposals are made from, kept in step with the state of a study.

Each update looks only at trials that are new or were unfinished at the last one, and takes in those
of them that have reached a rung or their end.
"""

from __future__ import annotations

from itertools import islice

from study.config.task import TrialOptimizer
from study.core.names import CONFIRM, TEACHER
from study.ledger.plan import Plan
from study.ledger.state import State, Trial
from study.losses.config import LossConfig
from study.search.history import History, observation
from study.search.warm_start import Prior
from study.space.search_space import Params, SearchSpace


class Memory:
    """What a sampler sees of baselines and searched trials; equal to what a walk over all gives."""

    def __init__(self, plan: Plan, space: SearchSpace, state: State) -> None:
        self.history = History(space)
        given = state.study.prior if state.study is not None else None
        self.prior = Prior.of(given, space, self.history.encoder)
        self._plan = plan
        self._state = state
        self._space = space
        self._seen = 0
        self._open: dict[int, tuple[Trial, Params]] = {}  # by row in the history
        self._rungs: dict[int, int] = {}  # that the history has of an open row

    def update(self) -> None:
        """Take in what is new in the state."""
        for trial in islice(self._state.trials.values(), self._seen, None):
            self._seen += 1
            is_seen = trial.stage not in (CONFIRM, TEACHER)
            params = params_in(self._space, trial) if is_seen else None
            if params is not None:
                row = len(self.history)
                self.history.put(row, observation(self._plan, trial, params))
                self._open[row], self._rungs[row] = (trial, params), len(trial.rungs)
        for row, (trial, params) in list(self._open.items()):
            if trial.end is None and len(trial.rungs) == self._rungs[row]:
                continue
            self.history.put(row, observation(self._plan, trial, params))
            self._rungs[row] = len(trial.rungs)
            if trial.end is not None:
                del self._open[row], self._rungs[row]


def params_in(space: SearchSpace, trial: Trial) -> Params | None:
    """The params of a trial in a space, which may not be the one that it was proposed from; None
    where the space does not hold its config."""
    if trial.params is not None and space.point(trial.params) is not None:
        return trial.params
    loss = trial.config.get("loss")
    if not isinstance(loss, dict) or "factory" in loss:
        return None
    optimizer = TrialOptimizer.model_validate(trial.config.get("optimizer") or {})
    return space.params_of(LossConfig.model_validate(loss), optimizer)
