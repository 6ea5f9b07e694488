"""Keeps a session within its time, and a study within its GPU-hours.

A searched trial or a baseline is admitted if the budget holds it, the trials that run, and the
confirmation with all seeds that follows. A confirmation is admitted if the budget holds it alone.
So the search ends early enough to confirm what it has found; for trainings with a longer budget
nothing is reserved. A running trial goes on as long as its next epoch fits. An epoch is estimated
to take as long as the mean of all epochs so far, or of the latest ones if that is longer: one
machine may be slow at first, another may slow down later.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection

from study.core.names import CONFIRM
from study.ledger.plan import Plan
from study.ledger.state import State, Trial

EPOCH_SECONDS = "time/epoch_s"
RECENT = 16  # epochs
REPORT_FRACTION, REPORT_SECONDS = 0.1, 30.0  # reserved for exports and report: the lesser one


class Budget:
    """The time that is left to this session, and the GPU-hours that are left to the study.

    The time counts from `started`; an epoch that is under way at its end is cut off. GPU-hours
    count over all sessions. They are exceeded at most by as much as the epochs that are under way
    take longer than the slowest before them.

    Args:
        plan: the study's numbers.
        state: the ledger's; the epochs in it are the first estimates.
        slots: trials that run at a time.
        seconds: of this session, exports and report included; infinite without a limit.
        gpu_hours: of training, over all sessions; infinite without a limit.
        gpus: what a trial gets: one GPU, a fraction of it, or 0.
        started: when the session began, by `clock`; now, unless given.
        clock: returns seconds.
    """

    def __init__(
        self,
        plan: Plan,
        state: State,
        *,
        slots: int,
        seconds: float = math.inf,
        gpu_hours: float = math.inf,
        gpus: float = 0.0,
        started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._state = state
        self._slots = slots
        self._clock = clock
        self._gpus = gpus
        self._gpu_s = 3600 * gpu_hours
        self._end = seconds + (clock() if started is None else started)
        self._deadline = self._end - min(REPORT_SECONDS, REPORT_FRACTION * seconds)
        self._count, self._sum = 0, 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._search_is_over = False
        for trial in state.trials.values():
            for metrics in trial.reports.values():
                self.observe(metrics.get(EPOCH_SECONDS, math.nan))

    @property
    def is_bounded(self) -> bool:
        """Whether there is a limit."""
        return math.isfinite(min(self._deadline, self._gpu_s))

    @property
    def is_over(self) -> bool:
        """Whether the trials that run must end now, in the middle of an epoch."""
        return self._clock() > self._deadline

    @property
    def seconds_left(self) -> float:
        """Seconds left to the session, exports and report included."""
        return self._end - self._clock()

    def observe(self, epoch_s: float) -> None:
        """Take in how many seconds an epoch took; NaN where that is not known."""
        if math.isfinite(epoch_s):
            self._count += 1
            self._sum += epoch_s
            self._recent.append(epoch_s)

    @property
    def _epoch_s(self) -> float:
        if not self._recent:
            return 0.0
        return max(self._sum / self._count, sum(self._recent) / len(self._recent))

    def admits(self, stage: str, epochs: int, live: Collection[str]) -> bool:
        """Whether a trial of this stage with so many epochs to go fits beside those that are live.

        Once a trial of the search does not fit, this session admits no further one.
        """
        if not self.is_bounded:
            return True
        if stage == CONFIRM:
            return self._fits(epochs, live, confirmations=0)
        if not self._state.num_epochs and not live:
            return self._fits(1, live, confirmations=0)  # without a first trial there is nothing
        if not self._search_is_over:
            self._search_is_over = not self._fits(
                epochs, live, confirmations=self._num_confirmations()
            )
        return not self._search_is_over

    def admits_next_epoch(self, trial: Trial, live: Collection[str]) -> bool:
        """Whether a running trial's next epoch fits."""
        if not self.is_bounded:
            return True
        last = trial.last.get(EPOCH_SECONDS, 0.0)
        running = sum(self._state.trials[other].gpus for other in live)
        if self._spent_gpu_s() + max(last, self._epoch_s) * running > self._gpu_s:
            return False
        return self._clock() + last <= self._deadline

    def _fits(self, epochs: int, live: Collection[str], *, confirmations: int) -> bool:
        epoch_s, whole = self._epoch_s, self._plan.epochs
        trials = [self._state.trials[trial] for trial in live]
        to_go = [whole * trial.budget - trial.epochs for trial in trials]
        waves = math.ceil(confirmations / self._slots)
        first = max([epochs, *to_go]) if confirmations else epochs
        seconds = (first + waves * whole) * epoch_s
        if self._clock() + seconds > self._deadline or self.is_over:
            return False
        running = sum(count * trial.gpus for count, trial in zip(to_go, trials, strict=True))
        planned = (epochs + confirmations * whole) * self._gpus
        return self._spent_gpu_s() + (running + planned) * epoch_s <= self._gpu_s

    def _num_confirmations(self) -> int:
        """How many confirmations there are at most, if one more trial is searched."""
        sources = 1 + len(self._state.trials) - self._state.count(CONFIRM)
        return min(self._plan.confirm_trials, sources * self._plan.confirm_seeds)

    def _spent_gpu_s(self) -> float:
        return self._state.gpu_s
