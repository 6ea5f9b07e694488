"""Runs a study: turns actions and reports into ledger lines, and decides which trials go on.

It knows nothing of Ray, so a simulator or a test can drive it. It hands out trials (`suggest`) and
takes in reports (`on_report`), failures (`fail`) and faults of the machine (`fault`). It writes
every answer into the ledger before it returns it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from study.analysis.answer import choose_seeds
from study.analysis.selection import select
from study.config.task import Task
from study.core.names import (
    BASELINE,
    CE,
    COMPLETED,
    CONFIRM,
    EPOCH_SECONDS,
    FAILED,
    REFERENCE,
    STOPPED_EARLY,
    TEACHER,
)
from study.ledger.journal import Ledger
from study.ledger.plan import Plan
from study.ledger.records import (
    EndRecord,
    FaultRecord,
    FinishRecord,
    NodesRecord,
    Record,
    ReportRecord,
    RungRecord,
    TrialRecord,
    WaitRecord,
)
from study.ledger.state import Trial
from study.scheduler.budget import Budget
from study.scheduler.retries import should_retry, slots_needed
from study.scheduler.stages import (
    Action,
    ChooseSeeds,
    Done,
    Resume,
    RunConfirm,
    RunSearch,
    Select,
    Stop,
    Wait,
    next_action,
)
from study.scheduler.teachers import NO_TEACHERS, Teachers
from study.scheduler.trials import TrialFactory
from study.search.asha import Rung
from study.space.search_space import SearchSpace

MAIN_BRACKET = "main"
Listener = Callable[[Record], None]


class StudyScheduler:
    """One per driver process; only `close` and `checkpoints_needed` are thread-safe.

    Args:
        ledger: of the study; its state is the scheduler's.
        plan: the study's numbers.
        space: what is searched.
        task: what each trial is trained on.
        target: what confirmations are trained on instead, if anything.
        teachers: of distilled losses.
        slots: trials that run at a time, at first.
        time_budget: seconds of this session, exports and report included.
        gpu_hours: of training, over all sessions.
        gpus_per_trial: one GPU, or a fraction of it; 0 for the CPU.
        listeners: called with each record after it is written.
        started: when the session began, by `clock`; now, unless given.
        clock: returns seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        plan: Plan,
        space: SearchSpace,
        task: Task,
        *,
        target: Task | None = None,
        teachers: Teachers = NO_TEACHERS,
        slots: int = 1,
        time_budget: float = math.inf,
        gpu_hours: float = math.inf,
        gpus_per_trial: float = 0.0,
        listeners: tuple[Listener, ...] = (),
        started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger = ledger
        self.state = ledger.state
        self.plan = plan
        self.task = task
        self.slots = slots
        self.gpus_per_trial = gpus_per_trial
        self.listeners = listeners
        self.live: set[str] = set()
        self.closing = False
        self.budget = Budget(
            plan,
            ledger.state,
            slots=slots,
            seconds=time_budget,
            gpu_hours=gpu_hours,
            gpus=gpus_per_trial,
            started=started,
            clock=clock,
        )
        self._trial_factory = TrialFactory(
            plan, space, task, ledger.state, gpus_per_trial, target, teachers
        )
        self._slots_by_trial: dict[str, int] = {}
        self._alone: str | None = None
        self._budget_is_spent = False
        self._rungs: dict[tuple[str, int, bool], tuple[int, Rung]] = {}

    def write(self, record: Record) -> None:
        """Write a record into the ledger, then call the listeners with it."""
        record = self.ledger.append(record)
        for listener in self.listeners:
            listener(record)

    def follow(self, nodes: int, slots: int, change: str) -> None:
        """Take in that the cluster has changed. Without a slot one trial waits, so that the cluster
        and the user see that room is missing.

        Args:
            nodes: that get trials.
            slots: trials that run at a time on them.
            change: in words.
        """
        self.slots = self.budget.slots = max(1, slots)
        self.write(NodesRecord(nodes, slots, change))

    def close(self) -> None:
        """Hand out no further trial, and end each running one after its epoch."""
        self.closing = True

    def suggest(self) -> TrialRecord | Wait | Stop | Done:
        """The next trial to train, already in the ledger; or Wait, or Stop, or Done."""
        while not self.closing:
            if self._alone is not None or self._taken >= self.slots:
                return Wait()
            action = next_action(
                self.plan,
                self.state,
                self.live,
                admits=self._admits,
                times_target=self.budget.times_target,
            )
            match action:
                case Wait() | Stop():
                    return action
                case Done():
                    if not self.state.finished:
                        self.write(FinishRecord())
                    return action
                case Select():
                    self.write(select(self.state, top=self.plan.confirm_top))
                case ChooseSeeds():
                    self.write(choose_seeds(self.state, self.plan))
                case RunSearch() if (end := self._trial_factory.search_end()) is not None:
                    self.write(end)
                case Resume(trial=trial_id) if not self._settle(self.state.trials[trial_id]):
                    continue
                case _:
                    slots = self._slots_of(action)
                    if self.live and self._taken + slots > self.slots:
                        return Wait()
                    return self._hand_out(self._trial_factory.record(action), slots)
        return Wait() if self.live else Stop()

    def _admits(self, stage: str, epochs: int) -> bool:
        return not self._budget_is_spent and self.budget.admits(stage, epochs, self.live)

    @property
    def _taken(self) -> int:
        """Slots that the live trials take."""
        return sum(self._slots_by_trial.get(trial, 1) for trial in self.live)

    def _slots_of(self, action: Action) -> int:
        match action:
            case Resume(trial=trial) | RunConfirm(source=trial):
                return slots_needed(self.state.trials[trial], self.gpus_per_trial, self.slots)
        return 1

    def _hand_out(self, record: TrialRecord, slots: int) -> TrialRecord:
        """A trial of several slots must begin before another one is handed out; otherwise smaller
        trials would take the room that it waits for."""
        self._slots_by_trial[record.trial] = slots
        self._alone = record.trial if slots > 1 else None
        self.live.add(record.trial)
        self.write(record)
        return record

    def on_report(
        self,
        trial_id: str,
        epoch: int,
        metrics: Mapping[str, float],
        environment: dict[str, Any] | None = None,
    ) -> bool:
        """Take in an epoch of a trial; return whether the trial goes on.

        A trial that does not go on has ended, or stays unfinished because the session closes or has
        spent its budget. A trial that lacks an objective where it is judged has failed.

        Args:
            trial_id: as it was handed out.
            epoch: counted from 1.
            metrics: by key, such as `val/miou`.
            environment: what the trial is trained on, with the first report of an attempt.
        """
        trial = self.state.trials[trial_id]
        self._begun(trial_id)
        if trial.end is not None:
            return False
        missing = [key for key in self._expected(trial, epoch) if key not in metrics]
        if missing:
            where = (
                "is the last"
                if epoch >= self._full_budget(trial)
                else "is a rung, where trials are judged"
            )
            self.fail(trial_id, f"metric missing: {', '.join(missing)}; epoch {epoch} {where}")
            return False
        self.write(ReportRecord(trial_id, trial.attempt, epoch, dict(metrics), environment))
        self.budget.observe(metrics.get(EPOCH_SECONDS, math.nan), pace=trial.pace)
        return self._goes_on(trial, epoch) and self._has_time(trial)

    def may_go_on(self, trial_id: str) -> bool:
        """Whether a trial goes on after an epoch that the ledger has and that was trained again. If
        not, the session closes or has spent its budget, and the trial stays unfinished."""
        self._begun(trial_id)
        return self._has_time(self.state.trials[trial_id])

    def fail(self, trial_id: str, reason: str, *, by_machine: bool = False) -> None:
        """End a trial that has failed, by its own fault or the machine's."""
        trial = self.state.trials[trial_id]
        if trial.end is None:
            self._end(trial, FAILED, reason, by_machine=by_machine)

    def fault(self, trial_id: str, cause: str, reason: str) -> None:
        """Take in that the machine ended an attempt: the trial is tried again, or has failed.

        Args:
            trial_id: as it was handed out.
            cause: one of `retries.CAUSES`.
            reason: one line for a person.
        """
        trial = self.state.trials[trial_id]
        if trial.end is not None:
            return
        if should_retry(trial, cause, self.slots):
            self.write(FaultRecord(trial_id, trial.attempt, trial.epochs, cause, reason))
            self.release(trial_id)
        else:
            self._end(trial, FAILED, reason, by_machine=True)

    def wait(self, trial_id: str) -> None:
        """Record that a trial waits, because no machine can hold it for now."""
        trial = self.state.trials[trial_id]
        if not trial.waits:
            self.write(WaitRecord(trial_id, trial.attempt))

    def release(self, trial_id: str) -> None:
        """Free the slots of a trial that is no longer trained; it may be unfinished."""
        self._begun(trial_id)
        self.live.discard(trial_id)

    def _begun(self, trial_id: str) -> None:
        if self._alone == trial_id:
            self._alone = None

    def _has_time(self, trial: Trial) -> bool:
        """Whether the budget holds the next epoch of a trial; if not, free its slots."""
        if not self.budget.admits_next_epoch(trial, self.live):
            self._budget_is_spent = True
        elif not self.closing:
            return True
        self.release(trial.id)
        return False

    def checkpoints_needed(self, trial_id: str) -> int | None:
        """How many checkpoints of a trial to keep; None while it may need them. Thread-safe."""
        trial = self.state.trials.get(trial_id)
        if trial is None:
            return 0
        if trial.end is None:
            return None
        return int(self.state.keeps_checkpoints)

    def _goes_on(self, trial: Trial, epoch: int) -> bool:
        """Whether a trial goes on after an epoch that is in the ledger; ends it if not."""
        if epoch >= self._full_budget(trial):
            self._end(trial, COMPLETED, "full budget")
            return False
        judged = trial.stage not in (CONFIRM, TEACHER)
        if epoch in self.plan.rungs and judged and epoch not in trial.rungs:
            return self._judge(trial, epoch)
        return True

    def _settle(self, trial: Trial) -> bool:
        """Write the lines about a trial that a killed driver could not write any more; return
        whether the trial goes on."""
        if trial.verdict is not None and not trial.verdict.keep:
            self._stop(trial, trial.verdict)
            return False
        return self._goes_on(trial, trial.epochs)

    def _full_budget(self, trial: Trial) -> int:
        return self.plan.epochs_of(trial.stage, trial.budget, trial.label)

    def _expected(self, trial: Trial, epoch: int) -> tuple[str, ...]:
        if trial.stage == TEACHER:
            return ()
        judged = epoch in self.plan.rungs and not trial.on_target
        due = judged or epoch >= self._full_budget(trial)
        return self.plan.objectives if due else ()

    def _end(self, trial: Trial, status: str, reason: str, *, by_machine: bool = False) -> None:
        self.write(EndRecord(trial.id, status, reason, trial.epochs, by_machine))
        self.release(trial.id)

    def _judge(self, trial: Trial, epoch: int) -> bool:
        values = self._running_best(trial, epoch)
        rung = self._rung(self._bracket(trial), epoch, neutral=trial.stage == REFERENCE)
        decision = rung.judge(values)
        keep = decision.keep or trial.stage == BASELINE
        reason = "baseline" if trial.stage == BASELINE else decision.reason
        verdict = RungRecord(trial.id, epoch, self._bracket(trial), values, keep, reason)
        self.write(verdict)
        if not keep:
            self._stop(trial, verdict)
        return keep

    def _rung(self, bracket: str, epoch: int, *, neutral: bool) -> Rung:
        """A rung with the values that are on it; `neutral`: those of cross entropies alone."""
        reached = self.state.brackets.get((bracket, epoch), [])
        new = Rung(self.plan.reduction_factor)
        seen, rung = self._rungs.get((bracket, epoch, neutral), (0, new))
        for trial_id, values in reached[seen:]:
            if not neutral or self._is_cross_entropy(trial_id):
                rung.add(values)
        self._rungs[bracket, epoch, neutral] = len(reached), rung
        return rung

    def _stop(self, trial: Trial, verdict: RungRecord) -> None:
        self._end(trial, STOPPED_EARLY, f"rung {verdict.epoch}: {verdict.reason}")

    def _running_best(self, trial: Trial, epoch: int) -> dict[str, float]:
        """Best value so far of each objective; -inf where this epoch's value is not a number."""
        best = {}
        for objective in self.plan.objectives:
            now = trial.reports[epoch][objective]
            seen = [report[objective] for report in trial.reports.values() if objective in report]
            finite = [value for value in seen if math.isfinite(value)]
            best[objective] = max(finite) if finite and math.isfinite(now) else -math.inf
        return best

    def _bracket(self, trial: Trial) -> str:
        if self.plan.split_by is None:
            return MAIN_BRACKET
        value = (trial.params or {}).get(self.plan.split_by, "other")
        return f"{self.plan.split_by}={value}"

    def _is_cross_entropy(self, trial_id: str) -> bool:
        return self.state.trials[trial_id].family == CE
