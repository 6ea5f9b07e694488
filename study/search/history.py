"""The trials so far as a sampler's model sees them: points of the space, and their standings.

Values of one rung compare with each other alone, so a model that mixes them learns which trials
were stopped, not which are good. A standing compares all trials that were ever judged. On the first
rung it is the value in standard deviations from the mean of the rung. The trials that have reached
a later one, the end of the schedule included, share the mean and the spread of standings that they
had on the rung before, and their values there say who of them is better:

    standing = mean + sd * (value - mean of the rung) / (sd of the rung)

Each trial stands where its last rung puts it, whether a judgement, an empty rung or its stage let
it through. Values below the lower quartile of a rung count as that quartile: how bad a bad config
is says little about good ones. A trial that failed stands as the worst of all, whatever its values
were.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from study.core.names import COMPLETED, FAILED, SEARCH
from study.ledger.plan import Plan
from study.ledger.state import Trial
from study.search.encoding import Encoder
from study.space.search_space import SearchSpace

MAX_POINTS = 256
LEAST_SPREAD = 0.5  # of the standings of trials on a later rung


@dataclass(frozen=True)
class Observation:
    """A trial as a sampler sees it.

    rungs: epoch -> objective -> value, the full budget's epoch included once it is reached.
    running: it may still reach further rungs. failed: it diverged, ran out of memory or raised.
    proposed: a sampler has proposed it; it is no baseline, and does not tune cross entropy.
    """

    params: Mapping[str, Any]
    rungs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    running: bool = False
    failed: bool = False
    proposed: bool = True


def observation(plan: Plan, trial: Trial, params: Mapping[str, Any]) -> Observation:
    """A trial of a study with this plan, at its point of a space."""
    rungs = dict(trial.rungs)
    if trial.status == COMPLETED:
        rungs[plan.epochs] = {key: trial.last[key] for key in plan.objectives}
    return Observation(
        params=params,
        rungs=rungs,
        running=trial.end is None,
        failed=trial.status == FAILED,
        proposed=trial.stage == SEARCH,
    )


class History:
    """The trials in the order in which they were handed out, except those outside of the space,
    which may have been narrowed on resume."""

    def __init__(
        self,
        space: SearchSpace,
        observations: Iterable[Observation] = (),
    ) -> None:
        self.space = space
        self._objectives = space.settings.objectives
        self.encoder = Encoder(space)
        self._rows: list[np.ndarray | None] = []  # None: outside of the space
        self._running = np.empty(0, bool)
        self._failed = np.empty(0, bool)
        self._scores: dict[int, np.ndarray] = {}  # by rung; NaN where a trial has not reached it
        self._taken: Counter[tuple[str, Any]] = Counter()
        self.proposed: set[tuple[tuple[str, Any], ...]] = set()
        for observation in observations:
            self.put(len(self), observation)

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, row: int, observation: Observation) -> None:
        """Replace what is known of trial `row`, or append it as the next one."""
        if row == len(self):
            inside = self.space.point(observation.params) is not None
            self._rows.append(self.encoder.row(observation.params) if inside else None)
            self._running = _with_room(self._running, len(self), False)
            self._failed = _with_room(self._failed, len(self), False)
            if observation.proposed:
                self.proposed.add(key_of(observation.params))
            self._taken.update(observation.params.items())
        if self._rows[row] is None:
            return
        self._running[row], self._failed[row] = observation.running, observation.failed
        for epoch, values in observation.rungs.items():
            column = self._scores.get(epoch, np.empty((0, len(self._objectives))))
            self._scores[epoch] = column = _with_room(column, len(self), np.nan)
            found = (values[objective] for objective in self._objectives)
            column[row] = [value if math.isfinite(value) else -np.inf for value in found]

    def ends(self, epochs: int, fewest: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The judged trials as rows of the encoder, and their objectives at the end of a schedule
        of `epochs`, (trials, objectives). Of a trial that has only reached a rung, it is the value
        there and the mean rise of those that went on. Those that failed, and values below the lower
        quartile, count as that quartile. Of very many, as in `judged`. No row while no trial has
        come to the end, or fewer than `fewest` have such a value."""
        size, last = len(self), self._scores.get(epochs)
        nothing = self._encoded(np.empty(0, int)), np.empty((0, len(self._objectives)))
        if last is None:
            return nothing
        found = _with_room(last, size, np.nan)[:size].copy()
        known = np.isfinite(found)
        for epoch in sorted(self._scores, reverse=True):
            column = _with_room(self._scores[epoch], size, np.nan)[:size]
            both = (known & np.isfinite(column)).all(axis=1)
            if both.any():
                rise = (found[both] - column[both]).mean(axis=0)
                found = np.where(np.isnan(found), column + rise, found)
        found[self._failed[:size]] = -np.inf
        if np.isfinite(found).all(axis=1).sum() < fewest:
            return nothing
        numbers = np.flatnonzero(self._judged() & ~np.isnan(found[:, 0]))
        values = np.maximum(found[numbers], _lower_quartiles(found[numbers]))
        kept = thinned(values)
        return self._encoded(numbers[kept]), values[kept]

    def least_taken(self, path: str, options: Iterable[Any]) -> Any:
        """The first of these options that the fewest trials took."""
        return min(options, key=lambda option: self._taken[path, option])

    @property
    def num_judged(self) -> int:
        """Trials of the space that have reached a rung or failed."""
        return int(self._judged().sum())

    def _judged(self) -> np.ndarray:
        size = len(self)
        judged = self._failed[:size].copy()
        for column in self._scores.values():
            judged[: len(column)] |= ~np.isnan(column[:size, 0])
        return judged

    def judged(self) -> tuple[np.ndarray, np.ndarray]:
        """The judged trials as rows of the encoder, and their standings (trials, objectives); of
        very many, the best and an even sample of the others, so that a proposal takes no longer."""
        numbers = np.flatnonzero(self._judged())
        standings = self.standings()[numbers]
        kept = thinned(standings)
        return self._encoded(numbers[kept]), standings[kept]

    def pending(self) -> np.ndarray:
        """The trials that run and have reached no rung yet, as rows of the encoder; of more than
        MAX_POINTS an even sample."""
        numbers = np.flatnonzero(self._running[: len(self)] & ~self._judged())
        return self._encoded(numbers[evenly(len(numbers), MAX_POINTS)])

    def _encoded(self, numbers: np.ndarray) -> np.ndarray:
        found = [row for row in (self._rows[number] for number in numbers) if row is not None]
        return np.array(found).reshape(len(found), len(self.encoder.columns))

    def standings(self) -> np.ndarray:
        """The standing of each trial by each objective, (trials, objectives); NaN where it was not
        judged."""
        size, num = len(self), len(self._objectives)
        failed = self._failed[:size]
        found = np.full((size, num), np.nan)
        for epoch in sorted(self._scores):
            column = _with_room(self._scores[epoch], size, np.nan)[:size]
            on = ~np.isnan(column[:, 0]) & ~failed
            if not on.any():
                continue
            before = found[on]
            known = before[~np.isnan(before[:, 0])]
            found[on] = _standardised(column[on])
            if len(known):
                spread = np.maximum(known.std(axis=0), LEAST_SPREAD)
                found[on] = known.mean(axis=0) + spread * found[on]
        worst = np.zeros(num) if np.isnan(found).all() else np.nanmin(found, axis=0)
        found[failed] = worst
        return found


def _standardised(values: np.ndarray) -> np.ndarray:
    """Each column in standard deviations from its mean, once the lower quartile is its least."""
    cut = np.maximum(values, _lower_quartiles(values))
    spread = cut.std(axis=0)
    return np.asarray((cut - cut.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _lower_quartiles(values: np.ndarray) -> np.ndarray:
    """Of each column's finite values; 0 where there are none."""
    finite = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.quantile(one, 0.25) if len(one) else 0.0 for one in finite])


def key_of(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The params as something that can be looked up."""
    return tuple(sorted(params.items()))


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
    kept[rest[evenly(len(rest), MAX_POINTS - int(kept.sum()))]] = True
    return np.flatnonzero(kept)


def evenly(count: int, most: int) -> np.ndarray:
    """The numbers below `count`; of more than `most` so many, evenly."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def _with_room(column: np.ndarray, length: int, empty: Any) -> np.ndarray:
    """The column with at least `length` rows; new ones hold `empty`."""
    if len(column) >= length:
        return column
    more = np.full((max(length, 2 * len(column)) - len(column), *column.shape[1:]), empty)
    return np.concatenate([column, more.astype(column.dtype)])
