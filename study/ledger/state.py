"""The state of a study: a pure fold over the records of its ledger."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

from study.core.names import AGAIN_SECONDS, COMPLETED, CONFIRM, EPOCH_SECONDS, TEACHER
from study.ledger.interning import ConfigInterner, MetricRow
from study.ledger.records import (
    AmendRecord,
    EndRecord,
    FaultRecord,
    FinishRecord,
    NodesRecord,
    Record,
    ReportRecord,
    RungRecord,
    SearchEndRecord,
    SeedsRecord,
    SelectRecord,
    SessionRecord,
    StudyRecord,
    TrialRecord,
    WaitRecord,
)


@dataclass(slots=True)
class Trial:
    """One trial, as the records so far describe it.

    `reports` holds the first report of each epoch, `verdict` the decision at the last rung, `gpu_s`
    the GPU-seconds of all epochs including repeated ones. `waits`: no machine can hold the trial
    now. `budget`: for how many times the plan's epochs it is trained. `ablated`: the axis of its
    source that is switched off. `on_target`: whether it trains the study's target.
    """

    id: str
    number: int
    stage: str
    label: str
    family: str
    params: dict[str, Any] | None
    config: dict[str, Any]
    seed: int
    source: str | None
    started: float
    handed_out: float
    attempt: int = 0
    waits: bool = False
    gpus: float = 0.0
    gpu_s: float = 0.0
    budget: int = 1
    ablated: str = ""
    on_target: bool = False
    proposed_by: str | None = None
    faults: list[FaultRecord] = field(default_factory=list)
    reports: dict[int, Mapping[str, float]] = field(default_factory=dict)
    report_times: dict[int, float] = field(default_factory=dict)
    rungs: dict[int, dict[str, float]] = field(default_factory=dict)
    verdict: RungRecord | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    end: EndRecord | None = None

    @property
    def pace(self) -> bool | str:
        """Whose epochs are as long as this trial's: those on the target (True), those on the
        study's own task (False), or teachers'."""
        return TEACHER if self.stage == TEACHER else self.on_target

    @property
    def status(self) -> str | None:
        """`completed`, `stopped_early` or `failed`; None while the trial is unfinished."""
        return self.end.status if self.end else None

    @property
    def epochs(self) -> int:
        """Epochs reported so far."""
        return max(self.reports, default=0)

    @property
    def last(self) -> Mapping[str, float]:
        """The metrics of the last epoch, which are the result of a completed trial."""
        return self.reports[self.epochs] if self.reports else {}


@dataclass
class Work:
    """The epochs of trials of one task, and the seconds that those took which say so."""

    epochs: int = 0
    timed: int = 0
    seconds: float = 0.0

    @property
    def epoch_s(self) -> float:
        """Mean seconds of an epoch; NaN before the first."""
        return self.seconds / self.timed if self.timed else math.nan


def _size(plan: Mapping[str, Any]) -> Any:
    """How many trials a plan searches; what only adds to the confirmation leaves it as it is."""
    return plan.get("num_trials")


@dataclass
class State:
    """The state of a study after some of its records.

    `begun` is the first record, `study` the same with the plan and the space of the last amendment.
    `nodes`: each change of the cluster. `search_end`: why the sampler proposes no more, if the plan
    ends a search. `seeds`: of the confirmation, once they are chosen, where the plan leaves them
    open.
    `selection_holds` is true until another searched trial ends. `num_epochs` and `gpu_s` are the
    epochs and the GPU-seconds of all trials, `work` those of the study's own task (False), of
    its target (True) and of teachers, by `Trial.pace`.
    """

    study: StudyRecord | None = None
    begun: StudyRecord | None = None
    amendments: list[AmendRecord] = field(default_factory=list)
    sessions: list[SessionRecord] = field(default_factory=list)
    nodes: list[NodesRecord] = field(default_factory=list)
    trials: dict[str, Trial] = field(default_factory=dict)
    brackets: dict[tuple[str, int], list[tuple[str, dict[str, float]]]] = field(
        default_factory=dict
    )
    search_end: SearchEndRecord | None = None
    selection: SelectRecord | None = None
    seeds: SeedsRecord | None = None
    selection_holds: bool = False
    finished: bool = False
    num_epochs: int = 0
    gpu_s: float = 0.0
    work: dict[bool | str, Work] = field(
        default_factory=lambda: {False: Work(), True: Work(), TEACHER: Work()}
    )
    _by_stage: dict[str, list[tuple[int, Trial]]] = field(default_factory=dict)
    _unfinished: dict[str, Trial] = field(default_factory=dict)
    _interner: ConfigInterner = field(default_factory=ConfigInterner, compare=False)

    def apply(self, record: Record) -> None:
        """Apply one more record. Repeated epochs and rungs change nothing."""
        match record:
            case StudyRecord():
                self.study = self.begun = record
            case AmendRecord():
                assert self.study is not None
                if record.space is not None or _size(record.plan) != _size(self.study.plan):
                    self.search_end = None
                    self.selection_holds = False
                space = self.study.space if record.space is None else record.space
                self.study = replace(self.study, plan=record.plan, space=space)
                self.amendments.append(record)
                self.finished = False
            case SessionRecord():
                self.sessions.append(record)
                self.finished = False
            case NodesRecord():
                self.nodes.append(record)
            case TrialRecord():
                self._trial(record)
            case ReportRecord():
                trial = self.trials[record.trial]
                trial.waits = False
                spent = (record.metrics.get(key, 0.0) for key in (EPOCH_SECONDS, AGAIN_SECONDS))
                gpu_s = trial.gpus * sum(spent)
                trial.gpu_s += gpu_s
                self.gpu_s += gpu_s
                if record.epoch not in trial.reports:
                    self.num_epochs += 1
                    self._add_work(trial.pace, record.metrics.get("time/epoch_s", math.nan))
                    trial.reports[record.epoch] = MetricRow(record.metrics)
                    trial.report_times[record.epoch] = record.time
                if record.environment:
                    trial.environment = self._interner.shared(record.environment, "here")
            case RungRecord():
                trial = self.trials[record.trial]
                if record.epoch not in trial.rungs:
                    trial.rungs[record.epoch] = record.values
                    trial.verdict = record
                    rung = self.brackets.setdefault((record.bracket, record.epoch), [])
                    rung.append((record.trial, record.values))
            case FaultRecord():
                self.trials[record.trial].faults.append(record)
            case WaitRecord():
                self.trials[record.trial].waits = True
            case EndRecord():
                self.trials[record.trial].end = record
                self._unfinished.pop(record.trial, None)
                if self.trials[record.trial].stage != CONFIRM:
                    self.selection_holds = False
            case SearchEndRecord():
                self.search_end = record
            case SelectRecord():
                self.selection = record
                self.selection_holds = True
                self.seeds = None
            case SeedsRecord():
                self.seeds = record
            case FinishRecord():
                self.finished = True

    def _add_work(self, pace: bool | str, epoch_s: float) -> None:
        work = self.work[pace]
        work.epochs += 1
        if math.isfinite(epoch_s):
            work.timed += 1
            work.seconds += epoch_s

    def _trial(self, record: TrialRecord) -> None:
        gpus = record.gpus
        if gpus is None:
            gpus = self.sessions[-1].gpus_per_trial if self.sessions else 0.0
        if record.trial in self.trials:
            self.trials[record.trial].attempt = record.attempt
            self.trials[record.trial].handed_out = record.time
            self.trials[record.trial].waits = False
            self.trials[record.trial].gpus = gpus
            return
        trial = Trial(
            id=record.trial,
            number=record.number,
            stage=record.stage,
            label=record.label,
            family=record.family,
            params=record.params and self._interner.shared(record.params, "params"),
            config=self._interner.shared(record.config, "config"),
            seed=record.seed,
            source=record.source,
            started=record.time,
            handed_out=record.time,
            attempt=record.attempt,
            gpus=gpus,
            budget=record.budget,
            ablated=record.ablated,
            on_target=record.on_target,
            proposed_by=record.proposed_by,
        )
        self._by_stage.setdefault(trial.stage, []).append((len(self.trials), trial))
        self.trials[trial.id] = self._unfinished[trial.id] = trial

    def unfinished(self) -> list[Trial]:
        """The trials without an end, in the order in which they were started."""
        return list(self._unfinished.values())

    def count(self, *stages: str) -> int:
        """How many trials of these stages were started."""
        return sum(len(self._by_stage.get(stage, ())) for stage in stages)

    @property
    def search_ended_after(self) -> int | None:
        """The trials of the search after which the sampler proposes no more; None while it does."""
        return None if self.search_end is None else self.search_end.searched

    @property
    def most_slots(self) -> int:
        """The most trials that any session has run at once; 0 before the first session."""
        counts = [session.slots for session in self.sessions]
        return max([*counts, *(change.slots for change in self.nodes)], default=0)

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether any session asked to keep the last checkpoint of every trial."""
        return any(session.keep_checkpoints for session in self.sessions)

    def of_stage(self, *stages: str) -> list[Trial]:
        """The trials of these stages, in the order in which they were started."""
        found = [item for stage in stages for item in self._by_stage.get(stage, ())]
        if len(stages) > 1:
            found.sort(key=itemgetter(0))
        return [trial for _, trial in found]

    def completed(self, *stages: str) -> list[Trial]:
        """The trials of these stages that reached the full budget."""
        return [trial for trial in self.of_stage(*stages) if trial.status == COMPLETED]

    def confirmations(self, source: str, budget: int = 1, ablated: str = "") -> list[Trial]:
        """The completed confirmation trials of one trial's config with one budget, whole or with
        one axis switched off."""
        return [
            trial
            for trial in self.completed(CONFIRM)
            if (trial.source, trial.budget, trial.ablated) == (source, budget, ablated)
        ]


def fold(records: Iterable[Record]) -> State:
    """The state after these records."""
    state = State()
    for record in records:
        state.apply(record)
    return state
