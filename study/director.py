"""The study at work: turns steps and reports into ledger lines, and says who goes on.

Knows nothing of Ray, so that a simulator or a test can drive it: it hands out trials (`suggest`),
takes reports (`report`) and failures (`fail`). Every answer is written before it is given.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from study.analysis.selection import select
from study.config import TaskConfig, TrialConfig
from study.describe import describe
from study.ledger import Ledger, Trial
from study.losses import PRESETS, LossConfig, family
from study.names import (
    BASELINE,
    COMPLETED,
    CONFIRM,
    FAILED,
    REFERENCE,
    SEARCH,
    STOPPED_EARLY,
)
from study.protocol import (
    Done,
    Plan,
    Resume,
    RunBaseline,
    RunConfirm,
    RunReference,
    RunSearch,
    Select,
    Wait,
    next_step,
)
from study.records import EndRecord, FinishRecord, Record, ReportRecord, RungRecord, TrialRecord
from study.search.reference import reference_params
from study.search.rungs import decide
from study.search.sampler import Observation, propose
from study.space import SearchSpace

MAIN_LADDER = "main"
Listener = Callable[[Record], None]


class Director:
    """One per driver process; not thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        plan: Plan,
        space: SearchSpace,
        task: TaskConfig,
        *,
        slots: int = 1,
        time_budget: float = math.inf,
        gpu_hours: float = math.inf,
        gpus_per_trial: float = 0.0,
        listeners: tuple[Listener, ...] = (),
    ) -> None:
        self.ledger = ledger
        self.state = ledger.state
        self.plan = plan
        self.space = space
        self.task = task
        self.slots = slots
        self.time_budget = time_budget
        self.gpu_hours = gpu_hours
        self.gpus_per_trial = gpus_per_trial
        self.listeners = listeners
        self.live: set[str] = set()
        self._started = time.monotonic()
        self._budget_is_spent = False

    def write(self, record: Record) -> None:
        """One more line, then tell whoever listens."""
        record = self.ledger.append(record)
        for listener in self.listeners:
            listener(record)

    def suggest(self) -> TrialRecord | Wait | Done:
        """The next trial to train, already in the ledger; or wait; or nothing is left."""
        while True:
            step = next_step(
                self.plan, self.state, self.live, search_is_over=self._search_is_over()
            )
            match step:
                case Wait():
                    return step
                case Done():
                    if not self.state.finished:
                        self.write(FinishRecord())
                    return step
                case Select():
                    self.write(select(self.state, top=self.plan.confirm_top))
                case Resume(trial=trial_id) if not self._settle(self.state.trials[trial_id]):
                    continue
                case _:
                    record = self._trial(step)
                    self.live.add(record.trial)
                    self.write(record)
                    return record

    def report(
        self,
        trial_id: str,
        epoch: int,
        metrics: Mapping[str, float],
        checkpoint: str | None = None,
        environment: dict[str, Any] | None = None,
    ) -> bool:
        """Take an epoch's report; whether the trial goes on."""
        trial = self.state.trials[trial_id]
        if trial.end is not None:
            return False
        missing = [key for key in self._expected(trial, epoch) if key not in metrics]
        if missing:
            self.fail(trial_id, f"metric missing: {', '.join(missing)}")
            return False
        self.write(
            ReportRecord(trial_id, trial.attempt, epoch, dict(metrics), checkpoint, environment)
        )
        return self._goes_on(trial, epoch)

    def fail(self, trial_id: str, reason: str, *, by_machine: bool = False) -> None:
        """A trial ended by its own fault or the machine's."""
        trial = self.state.trials[trial_id]
        if trial.end is None:
            self._end(trial, FAILED, reason, by_machine=by_machine)

    def release(self, trial_id: str) -> None:
        """Nobody trains this trial any more (it may be unfinished)."""
        self.live.discard(trial_id)

    def is_unfinished(self, trial_id: str) -> bool:
        """Whether the trial has begun and not ended: it may need its checkpoints. Thread-safe."""
        trial = self.state.trials.get(trial_id)
        return trial is not None and trial.end is None

    def _goes_on(self, trial: Trial, epoch: int) -> bool:
        """What follows from a report that is in the ledger."""
        if epoch >= self.plan.epochs:
            self._end(trial, COMPLETED, "full budget")
            return False
        if epoch in self.plan.rungs and trial.stage != CONFIRM and epoch not in trial.rungs:
            return self._judge(trial, epoch)
        return True

    def _settle(self, trial: Trial) -> bool:
        """Write what a driver that was killed after a trial's last line had still to write of it;
        whether the trial goes on."""
        if trial.verdict is not None and not trial.verdict.keep:
            self._stop(trial, trial.verdict)
            return False
        return self._goes_on(trial, trial.epochs)

    def _expected(self, trial: Trial, epoch: int) -> tuple[str, ...]:
        due = epoch in self.plan.rungs or epoch >= self.plan.epochs
        return self.plan.objectives if due else ()

    def _end(self, trial: Trial, status: str, reason: str, *, by_machine: bool = False) -> None:
        self.write(EndRecord(trial.id, status, reason, trial.epochs, by_machine))
        self.live.discard(trial.id)

    def _judge(self, trial: Trial, epoch: int) -> bool:
        values = self._running_best(trial, epoch)
        others = self.state.ladders.get((self._ladder(trial), epoch), [])
        if trial.stage == REFERENCE:
            others = [item for item in others if self._is_cross_entropy(item[0])]
        decision = decide(
            [value for _, value in others], values, reduction_factor=self.plan.reduction_factor
        )
        keep = decision.keep or trial.stage == BASELINE
        reason = "baseline" if trial.stage == BASELINE else decision.reason
        verdict = RungRecord(trial.id, epoch, self._ladder(trial), values, keep, reason)
        self.write(verdict)
        if not keep:
            self._stop(trial, verdict)
        return keep

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

    def _ladder(self, trial: Trial) -> str:
        if self.plan.split_by is None:
            return MAIN_LADDER
        value = (trial.params or {}).get(self.plan.split_by, "other")
        return f"{self.plan.split_by}={value}"

    def _is_cross_entropy(self, trial_id: str) -> bool:
        return self.state.trials[trial_id].family == "ce"

    def _search_is_over(self) -> bool:
        """A budget ends the search when finishing what runs and confirming take what is left of it;
        for this session that is final."""
        if not self._budget_is_spent and math.isfinite(min(self.time_budget, self.gpu_hours)):
            self._budget_is_spent = self._out_of_time() or self._out_of_gpu_hours()
        return self._budget_is_spent

    def _out_of_time(self) -> bool:
        waves = math.ceil(self.plan.confirm_trials / self.slots)
        _, epoch_s = self._epochs()
        left = self.time_budget - (time.monotonic() - self._started)
        return left < (waves + 1) * self.plan.epochs * epoch_s

    def _out_of_gpu_hours(self) -> bool:
        """Over all sessions of the study. One more trial must fit, too."""
        count, epoch_s = self._epochs()
        running = sum(
            self.plan.epochs - trial.epochs
            for trial in self.state.trials.values()
            if trial.end is None
        )
        to_come = running + (self.plan.confirm_trials + 1) * self.plan.epochs
        return (count + to_come) * epoch_s * self.gpus_per_trial > 3600 * self.gpu_hours

    def _epochs(self) -> tuple[int, float]:
        """How many epochs were reported, and their mean seconds."""
        seconds = [
            report["time/epoch_s"]
            for trial in self.state.trials.values()
            for report in trial.reports.values()
            if "time/epoch_s" in report
        ]
        return len(seconds), sum(seconds) / len(seconds) if seconds else 0.0

    def _trial(
        self, step: Resume | RunBaseline | RunReference | RunSearch | RunConfirm
    ) -> TrialRecord:
        match step:
            case Resume(trial=trial_id):
                return self._again(self.state.trials[trial_id])
            case RunBaseline(name=name):
                loss = LossConfig.model_validate(PRESETS[name].config)
                tree = {"loss": PRESETS[name].config, "optimizer": {}}
                return self._new(BASELINE, name, loss, 1.0, self.space.params_of(tree))
            case RunReference(index=index):
                rank = sum(self.plan.is_reference(i) for i in range(index))
                params = reference_params(
                    self.space, rank, self.plan.reference_trials, self.plan.seed
                )
                tree = {"loss": {}, **self.space.resolve_optimizer(params)}
                scale = tree["optimizer"].get("lr_scale", 1.0)
                known = self.space.params_of(tree)
                return self._new(REFERENCE, f"ce lr x{scale:.2g}", LossConfig(), scale, known)
            case RunSearch(number=number):
                params = propose(
                    self.space,
                    self._history(),
                    seed=self.plan.seed,
                    number=number,
                    sampler=self.plan.sampler,
                )
                tree = self.space.resolve(params)
                loss = LossConfig.model_validate(tree["loss"])
                scale = tree["optimizer"].get("lr_scale", 1.0)
                neutral = family(loss) == "ce"
                label = f"ce lr x{scale:.2g}" if neutral else describe(loss)
                stage = REFERENCE if neutral else SEARCH
                return self._new(stage, label, loss, scale, params)
            case RunConfirm(source=source, seed=seed):
                trial = self.state.trials[source]
                return TrialRecord(
                    trial=self._next_id(),
                    number=len(self.state.trials),
                    stage=CONFIRM,
                    label=trial.label,
                    family=trial.family,
                    params=trial.params,
                    config={**self._here(trial), "seed": seed},
                    seed=seed,
                    source=source,
                )

    def _next_id(self) -> str:
        return f"t{len(self.state.trials):04d}"

    def _new(
        self,
        stage: str,
        label: str,
        loss: LossConfig,
        lr_scale: float,
        params: dict[str, Any] | None,
    ) -> TrialRecord:
        config = TrialConfig.model_validate(
            {
                "task": self.task.model_dump(),
                "loss": loss.model_dump(),
                "optimizer": {"lr_scale": lr_scale},
                "seed": self.plan.seed,
            }
        )
        return TrialRecord(
            trial=self._next_id(),
            number=len(self.state.trials),
            stage=stage,
            label=label,
            family=family(loss),
            params=params,
            config=config.model_dump(),
            seed=self.plan.seed,
        )

    def _again(self, trial: Trial) -> TrialRecord:
        return TrialRecord(
            trial=trial.id,
            number=trial.number,
            stage=trial.stage,
            label=trial.label,
            family=trial.family,
            params=trial.params,
            config=self._here(trial),
            seed=trial.seed,
            attempt=trial.attempt + 1,
            source=trial.source,
            resume_from=trial.checkpoints[-1] if trial.checkpoints else None,
        )

    def _here(self, trial: Trial) -> dict[str, Any]:
        """The trial's config with the task of this session: its data may have moved."""
        return {**trial.config, "task": self.task.model_dump()}

    def _history(self) -> list[Observation]:
        """What the sampler may learn from: rung values of searched trials and baselines."""
        observations = []
        for trial in self.state.of_stage(BASELINE, REFERENCE, SEARCH):
            if trial.params is None:
                continue
            rungs = dict(trial.rungs)
            if trial.status == COMPLETED:
                rungs[self.plan.epochs] = {key: trial.last[key] for key in self.plan.objectives}
            observations.append(
                Observation(
                    params=trial.params,
                    rungs=rungs,
                    running=trial.end is None,
                    failed=trial.status == FAILED,
                )
            )
        return observations
