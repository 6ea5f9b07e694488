"""The trials so far as a sampler's model sees them, in columns.

A model that learns from rung values and final values together learns which trials were stopped, not
which are good. So it takes the values of one rung alone: the highest that holds at least
MIN_RESULTS results. Trials that were stopped below that rung are left out. In a long study the
model sees the best trials and a sample of the others, at most MAX_POINTS, so that a proposal takes
no longer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from study.space.search_space import Point, SearchSpace

MIN_RESULTS = 16
MAX_POINTS = 128
WORST = -1.0  # below every objective, all of which are in [0, 1]
LEFT_OUT, RUNNING, FAILED, OVER = range(4)  # statuses of a row
LONG_AGO = datetime(2000, 1, 1)


@dataclass(frozen=True)
class Observation:
    """A trial as a sampler sees it.

    rungs: epoch -> objective -> value, the full budget's epoch included once it is reached.
    running: it may still reach further rungs. failed: it diverged, ran out of memory or raised.
    """

    params: Mapping[str, Any]
    rungs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    running: bool = False
    failed: bool = False


class _ModelPoint(FrozenTrial):
    """Makes the deep copy that an Optuna study takes of each trial a shallow one: nothing changes
    the params and distributions of a past trial."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        return copy.copy(self)


class History:
    """The trials in the order in which they were handed out, except those outside of the space,
    which may have been narrowed on resume."""

    def __init__(self, space: SearchSpace, observations: Iterable[Observation] = ()) -> None:
        self._space = space
        self._objectives = space.settings.objectives
        self._points: list[Point | None] = []
        self._frozen: dict[int, _ModelPoint] = {}
        self._statuses = np.empty(0, np.int8)
        self._scores: dict[int, np.ndarray] = {}  # by rung; NaN where a trial has not reached it
        for observation in observations:
            self.put(len(self), observation)

    def __len__(self) -> int:
        return len(self._points)

    def put(self, row: int, observation: Observation) -> None:
        """Replace what is known of trial `row`, or append it as the next one."""
        if row == len(self):
            self._points.append(self._space.point(observation.params))
            self._statuses = _with_room(self._statuses, len(self), LEFT_OUT)
        if self._points[row] is None:
            return
        failed, running = observation.failed, observation.running
        self._statuses[row] = FAILED if failed else RUNNING if running else OVER
        for epoch, values in observation.rungs.items():
            column = self._scores.get(epoch, np.empty((0, len(self._objectives))))
            self._scores[epoch] = column = _with_room(column, len(self), np.nan)
            found = (values[objective] for objective in self._objectives)
            column[row] = [value if math.isfinite(value) else WORST for value in found]

    def model_points(self) -> list[FrozenTrial] | None:
        """The trials for the model, or None while no rung holds enough results."""
        reached = {epoch: ~np.isnan(column[:, 0]) for epoch, column in self._scores.items()}
        full = [epoch for epoch, mask in reached.items() if mask.sum() >= MIN_RESULTS]
        if not full:
            return None
        rung = max(full)
        column = _with_room(self._scores[rung], len(self), np.nan)[: len(self)]
        on = ~np.isnan(column[:, 0])
        statuses = self._statuses[: len(self)]
        scores = np.where(on[:, None], column, WORST)
        judged = np.flatnonzero(on | (statuses == FAILED))
        running = np.flatnonzero(~on & (statuses == RUNNING))
        chosen = judged[thinned(scores[judged])]
        found = [(int(row), scores[row].tolist()) for row in chosen]
        found += [(int(row), None) for row in running]
        return [self._point(row, values) for row, values in sorted(found, key=lambda at: at[0])]

    def _point(self, row: int, values: list[float] | None) -> FrozenTrial:
        if row not in self._frozen:
            known = self._points[row]
            assert known is not None
            self._frozen[row] = _ModelPoint(
                number=row,
                trial_id=row,
                state=TrialState.RUNNING,
                value=None,
                datetime_start=LONG_AGO,
                datetime_complete=None,
                params=known[0],
                distributions=known[1],
                user_attrs={},
                system_attrs={},
                intermediate_values={},
            )
        point = self._frozen[row]
        over = values is not None
        point.state = TrialState.COMPLETE if over else TrialState.RUNNING
        point.datetime_complete = LONG_AGO if over else None
        point.values = values
        return point


def thinned(scores: np.ndarray) -> np.ndarray:
    """The rows that a model sees, at most MAX_POINTS: the best by each column, which are half of
    them in all, and an even sample of the rest."""
    count, num_objectives = scores.shape
    if count <= MAX_POINTS:
        return np.arange(count)
    kept = np.zeros(count, bool)
    for column in scores.T:
        order = np.argsort(-column, kind="stable")
        kept[order[: MAX_POINTS // 2 // num_objectives]] = True
    rest = np.flatnonzero(~kept)
    even = np.linspace(0, len(rest) - 1, MAX_POINTS - int(kept.sum())).round().astype(int)
    kept[rest[even]] = True
    return np.flatnonzero(kept)


def _with_room(column: np.ndarray, length: int, empty: float) -> np.ndarray:
    """The column with at least `length` rows; new ones hold `empty`."""
    if len(column) >= length:
        return column
    more = np.full((max(length, 2 * len(column)) - len(column), *column.shape[1:]), empty)
    return np.concatenate([column, more.astype(column.dtype)])
