"""Finds the trials that hang: those that give no sign of life for many times as long as an epoch.

A trial gives a sign with its steps, so one that is slow but alive is never found. The limit is ten
times the median epoch on the same kind of device and of the same task: the study's own, its target
or a teacher's; ten minutes at least. Without such an epoch there is none, as the first one may
compile for long. A given limit holds in any case.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from study.core.names import EPOCH_SECONDS
from study.ledger.state import State, Trial

LEAST_SECONDS = 600.0
MEDIANS = 10
LONGEST_TICK = 1.0
STARTING = "its process starts"


def median_epoch(state: State, *, on_gpu: bool, pace: bool | str = False) -> float:
    """The median seconds of an epoch over all trials on a GPU, or on CPUs, that train the study's
    own task, or have another `Trial.pace`; NaN without one."""
    kind = (on_gpu, pace)
    trials = (trial for trial in state.trials.values() if _kind(trial) == kind)
    reports = (report for trial in trials for report in trial.reports.values())
    seconds = [report.get(EPOCH_SECONDS, math.nan) for report in reports]
    finite = [value for value in seconds if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan


def _kind(trial: Trial) -> tuple[bool, bool | str]:
    return trial.gpus > 0, trial.pace


@dataclass
class _Watched:
    """A trial's process: how long it has been silent, and what it said last that it does."""

    silent: float = 0.0
    doing: str = STARTING


class Watchdog:
    """Counts for how long each trial has been silent.

    It counts only while somebody looks, at most LONGEST_TICK seconds from one look to the next:
    where the driver or the whole machine was suspended, that time is no trial's silence.

    Args:
        state: of the study's ledger.
        limit: seconds of silence that a trial may have; by its pace, unless given. A process that
            is starting has ten minutes at least.
        clock: returns seconds.
    """

    def __init__(
        self,
        state: State,
        limit: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._limit = limit
        self._clock = clock
        self._last_look = clock()
        self._watched: dict[str, _Watched] = {}
        self._paces: tuple[int, dict[tuple[bool, bool | str], float]] = (0, {})

    def heard(self, trial_id: str, doing: str) -> None:
        """Take in a sign of life of a trial, and what it does."""
        self._watched[trial_id] = _Watched(doing=doing)

    def forget(self, trial_id: str) -> None:
        """Take in that a trial's process has ended."""
        self._watched.pop(trial_id, None)

    def look(self, occupied: Collection[str]) -> dict[str, str]:
        """Which trials hang, with the reason in words.

        occupied: the trials that have a process, ready or not; all others are forgotten.
        """
        now = self._clock()
        tick = min(now - self._last_look, LONGEST_TICK)
        self._last_look = now
        self._watched = {trial: self._watched.get(trial, _Watched()) for trial in occupied}
        hung = {}
        for trial_id, watched in self._watched.items():
            watched.silent += tick
            limit, why = self._allowed(trial_id, watched)
            if watched.silent > limit:
                silent = f"no sign of life for {watched.silent:.0f} s ({why})"
                hung[trial_id] = f"hung while {watched.doing}: {silent}"
        return hung

    def _allowed(self, trial_id: str, watched: _Watched) -> tuple[float, str]:
        """How many seconds a trial may be silent, and in words why."""
        if self._limit is not None:
            if watched.doing == STARTING and self._limit < LEAST_SECONDS:
                return LEAST_SECONDS, "the limit for the start of a process"
            return self._limit, "the limit that was given"
        if watched.silent <= LEAST_SECONDS:
            return LEAST_SECONDS, ""
        pace = self._pace(*_kind(self._state.trials[trial_id]))
        if math.isnan(pace):
            return math.inf, ""
        if MEDIANS * pace <= LEAST_SECONDS:
            return LEAST_SECONDS, f"an epoch takes {pace:.3g} s"
        return MEDIANS * pace, f"{MEDIANS} times the median epoch"

    def _pace(self, on_gpu: bool, pace: bool | str) -> float:
        epochs, paces = self._paces
        if epochs != self._state.num_epochs:
            self._paces = self._state.num_epochs, {}
            paces = self._paces[1]
        kind = on_gpu, pace
        if kind not in paces:
            paces[kind] = median_epoch(self._state, on_gpu=on_gpu, pace=pace)
        return paces[kind]
