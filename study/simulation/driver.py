"""Drives a scheduler by an event clock: as many trials at a time as it has slots, each epoch takes
its seconds, and nothing is trained."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from study.ledger.journal import Ledger
from study.ledger.records import Record, TrialRecord, decode, encode
from study.ledger.state import State
from study.scheduler.stages import Done, Stop
from study.scheduler.study_scheduler import StudyScheduler


@dataclass
class Clock:
    """The simulated time, in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class MemoryLedger(Ledger):
    """A ledger of the same records that is written nowhere; its times are the clock's."""

    def __init__(self, clock: Clock) -> None:
        self.state = State()
        self.failure = None
        self._clock = clock

    def append(self, record: Record) -> Record:
        """Apply what would be read back from the record's line."""
        record = decode(encode(replace(record, time=round(self._clock(), 3))))
        self.state.apply(record)
        return record

    def close(self) -> None:
        """There is no file."""


@dataclass(frozen=True)
class Epoch:
    """An epoch of a training: its metrics, or else why the trial fails in it."""

    seconds: float
    metrics: Mapping[str, float] | None
    reason: str = ""


Train = Callable[[TrialRecord, int, float], Epoch]
"""The epoch of a trial that begins now: of its record, the epoch from 1, and the time."""


def drive(
    scheduler: StudyScheduler, clock: Clock, train: Train, *, max_epochs: float = math.inf
) -> Done | Stop | None:
    """Run a session of a scheduler to its end; return the action that ended it.

    Trials end in the order of the clock, of equal times in that of their start. When the
    scheduler's budget is over, what runs is cut off. Once `max_epochs` are reported in all, the
    session ends, and None is returned.
    """
    tie = itertools.count()
    events: list[tuple[float, int, TrialRecord, int, Epoch]] = []

    def begin(record: TrialRecord, epoch: int) -> None:
        made = train(record, epoch, clock.now)
        heapq.heappush(events, (clock.now + made.seconds, next(tie), record, epoch, made))

    while scheduler.state.num_epochs < max_epochs:
        while len(scheduler.live) < scheduler.slots:
            action = scheduler.suggest()
            if not isinstance(action, TrialRecord):
                break
            begin(action, scheduler.state.trials[action.trial].epochs + 1)
        if not events:
            assert isinstance(action, Done | Stop)
            return action
        clock.now, _, record, epoch, made = heapq.heappop(events)
        if scheduler.budget.is_over:
            return None
        if made.metrics is None:
            scheduler.fail(record.trial, made.reason)
        elif scheduler.on_report(record.trial, epoch, made.metrics):
            begin(record, epoch + 1)
    return None
