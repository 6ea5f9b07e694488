"""Keeps a session within its time, and a study within its GPU-hours.

A searched trial or a baseline is admitted if the budget holds it, the trials that run, and the
confirmation with all seeds that follows. A confirmation is admitted if the budget holds it alone.
So the search ends early enough to confirm what it has found; for trainings with a longer budget
nothing is reserved. A running trial goes on as long as its next epoch fits. An epoch is estimated
to take as long as the mean of all epochs so far, or of the latest ones if that is longer: one
machine may be slow at first, another may slow down later.

Epochs of the study's own task, of its target, which confirmations train, and of teachers are timed
apart. A teacher is admitted as long as there is time: nothing that needs it can be trained without.
As long as none of the target is known, half of the budget is kept for the confirmation.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection

from study.core.names import CONFIRM, EPOCH_SECONDS, TEACHER
from study.ledger.plan import Plan
from study.ledger.state import State, Trial

RECENT = 16  # epochs
UNTIMED_FRACTION = 0.5  # of a budget, for a search while an epoch of the target is not timed
REPORT_FRACTION, REPORT_SECONDS = 0.1, 30.0  # reserved for exports and report: the lesser one


class _Pace:
    """How long epochs of one task take."""

    def __init__(self) -> None:
        self._count, self._sum = 0, 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)

    def observe(self, epoch_s: float) -> None:
        self._count += 1
        self._sum += epoch_s
        self._recent.append(epoch_s)

    @property
    def is_known(self) -> bool:
        return self._count > 0

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch; 0 before the first."""
        if not self.is_known:
            return 0.0
        return max(self._sum / self._count, sum(self._recent) / len(self._recent))


class Budget:
    """The time that is left to this session, and the GPU-hours that are left to the study.

    The time counts from `started`; an epoch that is under way at its end is cut off. GPU-hours
    count over all sessions. They are exceeded at most by as much as the epochs that are under way
    take longer than the slowest before them.

    Args:
        plan: the study's numbers.
        state: the ledger's; the epochs in it are the first estimates.
        slots: trials that run at a time; may change.
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
        self.slots = slots
        self._clock = clock
        self._gpus = gpus
        self._gpu_s = 3600 * gpu_hours
        self._started = clock() if started is None else started
        self._end = seconds + self._started
        self._deadline = self._end - min(REPORT_SECONDS, REPORT_FRACTION * seconds)
        self._paces: dict[bool | str, _Pace] = {False: _Pace(), True: _Pace(), TEACHER: _Pace()}
        self._search_is_over = False
        for trial in state.trials.values():
            for metrics in trial.reports.values():
                self.observe(metrics.get(EPOCH_SECONDS, math.nan), pace=trial.pace)

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

    @property
    def times_target(self) -> bool:
        """Whether it has to know how long an epoch of the target takes, and does not."""
        return self.is_bounded and self._plan.has_target and not self._paces[True].is_known

    def observe(self, epoch_s: float, *, pace: bool | str) -> None:
        """Take in how many seconds an epoch took, by `Trial.pace`; NaN where that is not known."""
        if math.isfinite(epoch_s):
            self._paces[pace].observe(epoch_s)

    def _epoch_s(self, trial: Trial) -> float:
        return self._paces[trial.pace].epoch_s

    def admits(self, stage: str, epochs: int, live: Collection[str]) -> bool:
        """Whether a trial of this stage with so many epochs to go fits beside those that are live.

        Once a trial of the search does not fit, this session admits no further one.
        """
        if not self.is_bounded:
            return True
        if stage == TEACHER:
            return self._fits(1, live, pace=TEACHER)
        if stage == CONFIRM:
            return self._fits(epochs, live, pace=self._plan.has_target)
        if not self._state.num_epochs and not live:
            return self._fits(1, live)  # without a first trial there is nothing
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
        planned = 0.0
        for other in (self._state.trials[name] for name in live):
            known = last if other.pace == trial.pace else 0.0
            planned += other.gpus * max(known, self._epoch_s(other))
        if self._spent_gpu_s() + planned > self._gpu_s:
            return False
        return self._clock() + last <= self._deadline

    def _fits(
        self,
        epochs: int,
        live: Collection[str],
        *,
        confirmations: int = 0,
        pace: bool | str = False,
    ) -> bool:
        seconds = epochs * self._paces[pace].epoch_s
        later = self._plan.epochs_of(CONFIRM) * self._paces[self._plan.has_target].epoch_s
        deadline, gpu_s = self._deadline, self._gpu_s
        if confirmations and self.times_target:
            deadline = self._started + UNTIMED_FRACTION * (deadline - self._started)
            gpu_s *= UNTIMED_FRACTION
        trials = [self._state.trials[trial] for trial in live]
        to_go = [
            (self._plan.epochs_of(trial.stage, trial.budget, trial.label) - trial.epochs)
            * self._epoch_s(trial)
            for trial in trials
        ]
        waves = math.ceil(confirmations / self.slots)
        first = max([seconds, *to_go]) if confirmations else seconds
        if self._clock() + first + waves * later > deadline or self.is_over:
            return False
        running = sum(left * trial.gpus for left, trial in zip(to_go, trials, strict=True))
        planned = (seconds + confirmations * later) * self._gpus
        return self._spent_gpu_s() + running + planned <= gpu_s

    def _num_confirmations(self) -> int:
        """How many confirmations there are at most, if one more trial is searched."""
        sources = 1 + len(self._state.trials) - self._state.count(CONFIRM, TEACHER)
        return min(self._plan.confirm_trials, sources * self._plan.confirm_seeds)

    def _spent_gpu_s(self) -> float:
        return self._state.gpu_s
