"""What must hold of a study that was killed again and again."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from study.analysis.answer import answer
from study.analysis.evidence import path_of
from study.analysis.selection import select
from study.config.task import TaskConfig, TrialConfig
from study.core.files import write_bytes
from study.core.names import CONFIRM
from study.data import open_data
from study.engine.worker import pack
from study.ledger.journal import LEDGER, Ledger, read
from study.ledger.plan import Plan
from study.ledger.records import (
    EndRecord,
    FaultRecord,
    Record,
    ReportRecord,
    RungRecord,
    SelectRecord,
    StudyRecord,
    TrialRecord,
    decode,
    encode,
)
from study.ledger.state import State, fold
from study.reporting.exports import BEST_MACC, BEST_MIOU, write_exports
from study.reporting.exports import FOLDER as EXPORTS
from study.scheduler.retries import PREEMPTED
from study.scheduler.stages import (
    Done,
    Select,
    Stop,
    Wait,
    next_action,
)
from study.scheduler.study_scheduler import StudyScheduler
from study.scheduler.trials import TrialFactory
from study.search.asha import decide
from study.space.search_space import load_space
from study.storage.weights import WeightsStore
from study.training.environment import set_up_process
from study.training.trainer import train

Numbers = Mapping[str, float]
Point = tuple[str | None, str, int]  # trial, metric, epoch


@dataclass(frozen=True)
class Fault:
    """What was killed, when (seconds after the start), and the ledger as it was then."""

    kind: str
    seconds: float
    before: bytes

    @cached_property
    def state(self) -> State:
        """What the ledger said; a line that was being written is left out."""
        whole = self.before[: self.before.rfind(b"\n") + 1].decode()
        return fold(decode(line) for line in whole.splitlines())

    def next_epochs(self, ledger: bytes) -> dict[str, int]:
        """Of each trial that was under way: the epoch of its first report after the fault."""
        found: dict[str, int] = {}
        start = self.before.rfind(b"\n") + 1
        for line in ledger[start:].decode().splitlines():
            record = decode(line)
            if isinstance(record, ReportRecord) and record.trial in self.live:
                found.setdefault(record.trial, record.epoch)
        return found

    @cached_property
    def live(self) -> dict[str, int]:
        """The trials that were under way, and the epochs they had reported."""
        return {t.id: t.epochs for t in self.state.trials.values() if t.end is None}


class Disturbed(Protocol):
    """A study after its faults: where it is, what met it, and how its drivers ended.

    folder: of the whole run, below which `study` is the study's own. exits: one exit code a driver.
    """

    folder: Path
    slots: int
    faults: list[Fault]
    exits: list[int]

    @property
    def study(self) -> Path: ...


def timeless(metrics: Numbers) -> dict[str, str]:
    """What a second training must have again, bit for bit; text, because NaN equals nothing."""
    return {key: repr(value) for key, value in metrics.items() if not key.startswith("time/")}


def verdicts(after: Disturbed, kills: int) -> Iterator[tuple[str, list[str]]]:
    """Each invariant, and what speaks against it."""
    folder = after.study
    records = list(read(folder / LEDGER))
    state = fold(records)
    yield "all faults met the study", [f"{len(after.faults)}"] * (len(after.faults) != kills)
    yield "a driver whose cluster is gone ends, exit code 1", list(unended(after))
    yield "to lose a spot node after its notice is no failure", list(counted(after, records))
    yield (
        "the study finishes, exit code 0",
        [f"exits {after.exits}"] * (not state.finished or after.exits[-1] != 0),
    )
    yield "no ledger line is lost", list(lost(after.faults, (folder / LEDGER).read_bytes()))
    yield "each trial is completed or stopped, and has one end", list(ends(state, records))
    yield "each rung is judged once", list(rungs_twice(records))
    yield "every rung's decision follows from the lines before it", list(rungs(state, records))
    yield "every trial handed out follows from the lines before it", list(proposals(state, records))
    yield "epochs follow on each other; at most one is trained again", list(order(records))
    yield "an epoch that is trained again is the same, bit for bit", list(again(state, records))
    yield (
        "MLflow has every run once, ended, and every metric of every epoch once, as in the ledger",
        list(in_mlflow(state, folder.parent / "mlflow.db")),
    )
    set_up_process(1)
    evidence = after.folder / "undisturbed"
    yield (
        "each trial's numbers are those of an undisturbed training",
        list(numbers(state, evidence)),
    )
    yield "the exports are those of undisturbed trainings", list(exports(state, folder, evidence))
    if after.slots == 1:
        twin = undisturbed(state, after.folder / "twin")
        yield (
            "proposals, decisions and ends are those of an undisturbed study",
            differ(records, twin),
        )


def unended(after: Disturbed) -> Iterator[str]:
    kinds = [fault.kind for fault in after.faults if fault.kind in ("driver", "head", "cluster")]
    for kind, code in zip(kinds, after.exits, strict=False):
        if kind == "cluster" and code != 1:
            yield f"exit code {code}"


def counted(after: Disturbed, records: list[Record]) -> Iterator[str]:
    starts = [fault.before.count(b"\n") for fault in after.faults] + [len(records)]
    for fault, start, end in zip(after.faults, starts, starts[1:], strict=False):
        if fault.kind != "spot":
            continue
        for record in records[start:end]:
            if isinstance(record, FaultRecord) and record.cause != PREEMPTED:
                yield f"{record.trial}: {record.cause}, {record.reason}"


def lost(faults: list[Fault], ledger: bytes) -> Iterator[str]:
    """What stood in the ledger when something was killed still stands there."""
    for number, fault in enumerate(faults, 1):
        whole = fault.before[: fault.before.rfind(b"\n") + 1]
        if not ledger.startswith(whole):
            yield f"lines before kill {number} ({fault.kind}) have changed"


def ends(state: State, records: list[Record]) -> Iterator[str]:
    counts = Counter(record.trial for record in records if isinstance(record, EndRecord))
    for trial in state.trials.values():
        if counts[trial.id] != 1:
            yield f"{trial.id} has {counts[trial.id]} ends"
        if trial.status == "failed":
            yield f"{trial.id} failed: {trial.end.reason if trial.end else ''}"


def rungs_twice(records: list[Record]) -> Iterator[str]:
    counts = Counter((r.trial, r.epoch) for r in records if isinstance(r, RungRecord))
    yield from (f"{key} {count} times" for key, count in counts.items() if count > 1)


def rungs(state: State, records: list[Record]) -> Iterator[str]:
    """Each rung's values from the trial's reports, and its decision from the rungs before it."""
    assert state.study is not None
    plan = Plan.from_dict(state.study.plan)
    brackets: dict[int, list[tuple[str, Numbers]]] = {}
    for record in records:
        if not isinstance(record, RungRecord):
            continue
        trial = state.trials[record.trial]
        reports = [trial.reports[epoch] for epoch in range(1, record.epoch + 1)]
        values = {key: max(report[key] for report in reports) for key in plan.objectives}
        if values != record.values:
            yield f"{trial.id} at {record.epoch}: {record.values}, but its reports give {values}"
        bracket = brackets.setdefault(record.epoch, [])
        rivals = [
            other
            for name, other in bracket
            if trial.stage != "reference" or state.trials[name].family == "ce"
        ]
        keep = decide(rivals, values, reduction_factor=plan.reduction_factor).keep
        if record.keep != (keep or trial.stage == "baseline"):
            yield f"{trial.id} at {record.epoch}: keep={record.keep}"
        bracket.append((trial.id, values))
    kept = {epoch: [(n, dict(v)) for n, v in values] for epoch, values in brackets.items()}
    if kept != {epoch: values for (_, epoch), values in state.brackets.items()}:
        yield "the brackets are not the fold of the lines"


def proposals(end: State, records: list[Record]) -> Iterator[str]:
    """Each new trial and each selection once more, from the state that was."""
    study = end.study
    assert study is not None
    plan, state = Plan.from_dict(study.plan), State()
    task = TaskConfig.model_validate(study.task)
    trial_factory = TrialFactory(plan, load_space(study.space), task, state, 0.0)
    for record in records:
        if isinstance(record, TrialRecord) and record.attempt == 0:
            live = {trial.id for trial in state.trials.values() if trial.end is None}
            step = next_action(plan, state, live)
            if isinstance(step, Wait | Stop | Done | Select):
                yield f"{record.trial}: {step} was next"
            else:
                yield from unlike(record, trial_factory.record(step))
        elif isinstance(record, SelectRecord):
            yield from unlike(record, select(state, top=plan.confirm_top))
        state.apply(record)


def unlike(record: TrialRecord | SelectRecord, anew: TrialRecord | SelectRecord) -> Iterator[str]:
    there = fields(decode(encode(anew)))  # JSON knows no tuples
    for key, value in fields(record).items():
        if value != there[key]:
            yield f"{getattr(record, 'trial', 'selection')}: {key} {value}, anew {there[key]}"


def fields(record: Record) -> dict[str, Any]:
    """All but when it was written."""
    return {key: value for key, value in vars(record).items() if key != "time"}


def order(records: list[Record]) -> Iterator[str]:
    epochs: dict[str, list[int]] = {}
    for record in records:
        if isinstance(record, ReportRecord):
            epochs.setdefault(record.trial, []).append(record.epoch)
    for trial, found in epochs.items():
        if found[0] != 1 or any(not 0 <= after - before <= 1 for before, after in pairwise(found)):
            yield f"{trial}: {found}"


def again(state: State, records: list[Record]) -> Iterator[str]:
    for record in records:
        if isinstance(record, ReportRecord):
            first = timeless(state.trials[record.trial].reports[record.epoch])
            if timeless(record.metrics) != first:
                yield f"{record.trial} epoch {record.epoch}"


def in_mlflow(state: State, database: Path) -> Iterator[str]:
    """Row by row, past the client."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        runs = dict(db.execute("select run_uuid, status from runs"))
        names = db.execute("select value, run_uuid from tags where key = 'trial_id'").fetchall()
        rows = db.execute("select run_uuid, key, step, value, is_nan from metrics").fetchall()
    if len(runs) != len(state.trials) + 1:
        yield f"{len(runs)} runs for {len(state.trials)} trials and their study"
    if open_runs := [run for run, status in runs.items() if status in ("RUNNING", "SCHEDULED")]:
        yield f"not ended: {open_runs}"
    for trial, count in Counter(trial for trial, _ in names).items():
        if count > 1:
            yield f"{trial} has {count} runs"
    trial_of = {run: trial for trial, run in names}
    if missing := state.trials.keys() - set(trial_of.values()):
        yield f"no run of {sorted(missing)}"
    points = Counter((trial_of.get(run), key, step) for run, key, step, _, _ in rows)
    yield from (f"{point} {count} times" for point, count in points.items() if count > 1)
    found: dict[Point, float] = {
        (trial_of.get(run), key, step): math.nan if is_nan else value
        for run, key, step, value, is_nan in rows
        if not key.startswith("final/")
    }
    expected: dict[Point, float] = {
        (trial.id, key, epoch): value
        for trial in state.trials.values()
        for epoch, report in trial.reports.items()
        for key, value in report.items()
    }
    for point in found.keys() ^ expected.keys():
        yield f"{point} is only in {'MLflow' if point in found else 'the ledger'}"
    for point in found.keys() & expected.keys():
        if repr(found[point]) != repr(float(expected[point])):
            yield f"{point} is {found[point]}, in the ledger {expected[point]}"


def numbers(state: State, folder: Path) -> Iterator[str]:
    """Every trial once more, alone, in this process; the confirmations' evidence is left in the
    folder."""
    assert state.study is not None
    plan = Plan.from_dict(state.study.plan)
    for trial in state.trials.values():
        config = TrialConfig.model_validate(trial.config)
        for report in _train(config, plan, trial.stage):
            if report.epoch in trial.reports:
                there = timeless(trial.reports[report.epoch])
                here = timeless(report.metrics)
                if there != here:
                    keys = [key for key in here if here[key] != there.get(key)]
                    yield f"{trial.id} epoch {report.epoch}: {keys[:3]}"
            if trial.stage == CONFIRM and report.evidence is not None:
                write_bytes(
                    path_of(folder, trial.id),
                    pack(report.evidence.class_names, report.evidence.splits),
                )
            if report.epoch == trial.epochs:
                break


def exports(state: State, folder: Path, evidence: Path) -> Iterator[str]:
    """Written once more, from evidence that nothing disturbed, with the study's own weights."""
    write_exports(evidence, state, answer(state, evidence), WeightsStore(folder))
    there, anew = (
        {path.relative_to(root): path.read_text(encoding="utf-8") for path in root.rglob("*.yaml")}
        for root in (folder / EXPORTS, evidence / EXPORTS)
    )
    if {BEST_MIOU, BEST_MACC} - {str(path) for path in there}:
        yield f"there are only {sorted(map(str, there))}"
    for path in there.keys() | anew.keys():
        if there.get(path) != anew.get(path):
            yield f"{path} is another one"


def _train(config: TrialConfig, plan: Plan, stage: str) -> Iterator[Any]:
    return train(
        config,
        data=open_data(config.task.data),
        device="cpu",
        evaluate_test=stage == CONFIRM,
        evaluate_at=plan.rungs,
    )


def undisturbed(state: State, folder: Path) -> list[Record]:
    """The ledger of the same study, one trial after the other in this process, without Ray."""
    study = state.study
    assert study is not None
    plan, config = Plan.from_dict(study.plan), None
    ledger = Ledger(folder)
    ledger.append(study)
    first = TrialConfig.model_validate(next(iter(state.trials.values())).config)
    scheduler = StudyScheduler(ledger, plan, load_space(study.space), first.task)
    while not isinstance(step := scheduler.suggest(), Done):
        assert isinstance(step, TrialRecord)
        config = TrialConfig.model_validate(step.config)
        for report in _train(config, plan, step.stage):
            if not scheduler.on_report(step.trial, report.epoch, report.metrics):
                break
        scheduler.release(step.trial)
    ledger.close()
    return list(read(folder / LEDGER))


def differ(records: list[Record], twin: list[Record]) -> list[str]:
    """Where two ledgers of one study tell different stories."""
    here, there = _story(records), _story(twin)
    return [
        f"{ours}, undisturbed: {theirs}"
        for ours, theirs in zip(here, there, strict=False)
        if ours != theirs
    ] + [f"{len(here)} lines, undisturbed: {len(there)}"] * (len(here) != len(there))


def _story(records: list[Record]) -> list[Any]:
    story: list[Any] = []
    seen: set[tuple[str, int]] = set()
    for record in records:
        match record:
            case TrialRecord(attempt=0):
                story.append((record.trial, record.stage, record.label, record.config, record.seed))
            case ReportRecord() if (record.trial, record.epoch) not in seen:
                seen.add((record.trial, record.epoch))
                story.append((record.trial, record.epoch, timeless(record.metrics)))
            case RungRecord() | EndRecord():
                story.append((type(record).__name__, fields(record)))
            case SelectRecord():
                story.append((record.confirmed, record.reference, record.default_ce))
            case StudyRecord() | _:
                pass
    return story
