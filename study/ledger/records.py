"""The lines of a ledger: frozen records, and their JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from study.core.names import BASELINE, COMPLETED, CONFIRM, FAILED, REFERENCE, SEARCH, STOPPED_EARLY

FORMAT = 2  # 1 wrote infinities outside of metrics as text


@dataclass(frozen=True)
class StudyRecord:
    """First line: what is studied. `plan` is the whole resolved plan."""

    kind: ClassVar[str] = "study"
    name: str
    seed: int
    task_name: str
    task: dict[str, Any]
    space_name: str
    space: dict[str, Any]
    plan: dict[str, Any]
    data: dict[str, Any]
    environment: dict[str, Any]
    format: int = FORMAT
    time: float = 0.0


@dataclass(frozen=True)
class SessionRecord:
    """One start of the driver."""

    kind: ClassVar[str] = "session"
    number: int
    cluster: str
    slots: int
    cpus_per_trial: float
    gpus_per_trial: float
    tracking_uri: str
    keep_checkpoints: bool = False
    time: float = 0.0


@dataclass(frozen=True)
class TrialRecord:
    """A trial is handed out, or handed out again (`attempt` > 0).

    `gpus`: its share of a GPU, or its GPUs; larger than the session's after it ran out of memory.
    """

    kind: ClassVar[str] = "trial"
    trial: str
    number: int
    stage: str
    label: str
    family: str
    params: dict[str, Any] | None
    config: dict[str, Any]
    seed: int
    attempt: int = 0
    source: str | None = None
    resume_from: str | None = None
    gpus: float | None = None
    time: float = 0.0


@dataclass(frozen=True)
class ReportRecord:
    """An epoch of a trial.

    `checkpoint` is a path below the study's folder. `environment` says where the trial is trained;
    it stands in the first report of each attempt.
    """

    kind: ClassVar[str] = "report"
    trial: str
    attempt: int
    epoch: int
    metrics: Mapping[str, float]
    checkpoint: str | None = None
    environment: dict[str, Any] | None = None
    time: float = 0.0


@dataclass(frozen=True)
class RungRecord:
    """A trial reached a rung of a bracket: the best of each objective so far, and the decision."""

    kind: ClassVar[str] = "rung"
    trial: str
    epoch: int
    bracket: str
    values: dict[str, float]
    keep: bool
    reason: str
    time: float = 0.0


@dataclass(frozen=True)
class FaultRecord:
    """The machine ended an attempt at a trial, which will be tried again after its `epochs`.

    `cause`: lost (its process or node is gone), memory, gpu_memory, or preempted (its node is
    drained).
    """

    kind: ClassVar[str] = "fault"
    trial: str
    attempt: int
    epochs: int
    cause: str
    reason: str
    time: float = 0.0


@dataclass(frozen=True)
class WaitRecord:
    """A trial that was handed out has to wait for a machine that can hold it."""

    kind: ClassVar[str] = "wait"
    trial: str
    attempt: int
    time: float = 0.0


@dataclass(frozen=True)
class EndRecord:
    """A trial's end. `by_machine`: it failed by no fault of its own."""

    kind: ClassVar[str] = "end"
    trial: str
    status: str
    reason: str
    epochs: int
    by_machine: bool = False
    time: float = 0.0


@dataclass(frozen=True)
class SelectRecord:
    """The search is over: which trials are confirmed, and which one is tuned cross entropy.

    `searched`: trials of the search so far. A search that a budget ended may go on in a later
    session; what is confirmed is then chosen anew.
    """

    kind: ClassVar[str] = "select"
    confirmed: list[str]
    reference: str | None
    default_ce: str | None
    searched: int | None = None
    time: float = 0.0


@dataclass(frozen=True)
class FinishRecord:
    """Nothing is left to do."""

    kind: ClassVar[str] = "finish"
    time: float = 0.0


Record = (
    StudyRecord
    | SessionRecord
    | TrialRecord
    | ReportRecord
    | RungRecord
    | FaultRecord
    | WaitRecord
    | EndRecord
    | SelectRecord
    | FinishRecord
)
_KINDS: dict[str, type[Any]] = {
    cls.kind: cls
    for cls in (
        StudyRecord,
        SessionRecord,
        TrialRecord,
        ReportRecord,
        RungRecord,
        FaultRecord,
        WaitRecord,
        EndRecord,
        SelectRecord,
        FinishRecord,
    )
}


# What fields may hold, by the first word of their annotation.
_HOLDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "dict": (dict,),
    "Mapping": (dict,),
    "list": (list,),
}
_FIELDS = {
    cls: [
        (
            field.name,
            _HOLDS[str(field.type).partition("[")[0].partition(" ")[0]],
            "None" in str(field.type),
        )
        for field in dataclasses.fields(cls)
    ]
    for cls in _KINDS.values()
}
_KNOWN = {
    "stage": (BASELINE, REFERENCE, SEARCH, CONFIRM),
    "status": (COMPLETED, STOPPED_EARLY, FAILED),
}
NUMBERS = ("metrics", "values")
INFINITE = "$float"


def _plain(value: Any, *, numbers: bool = False) -> Any:
    """JSON has no NaN and no infinity: null stands for NaN, and where there are `numbers` alone,
    text for infinities; elsewhere a mapping that nothing else is, as a text may say anything."""
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        return str(value) if numbers else {INFINITE: str(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item, numbers=numbers) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, numbers=numbers) for item in value]
    return value


def _revived(value: Any) -> Any:
    """The inverse of `_plain` for infinities outside of metrics and values."""
    if isinstance(value, dict):
        if list(value) == [INFINITE]:
            return float(value[INFINITE])
        return {key: _revived(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_revived(item) for item in value]
    return value


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """A NaN where the line has null, an infinity where it has its name."""
    if set(map(type, values.values())) <= {float, int}:
        return values
    return {key: math.nan if item is None else _number(item) for key, item in values.items()}


def _number(value: Any) -> float:
    if type(value) in (float, int) or value in ("inf", "-inf"):
        return float(value)
    raise TypeError(f"a number is expected, got {value!r}")


def _check(record: Any) -> None:
    """Raise TypeError or ValueError unless every field holds what it says."""
    for name, kinds, optional in _FIELDS[type(record)]:
        value = getattr(record, name)
        wrong = not isinstance(value, kinds) or (type(value) is bool and bool not in kinds)
        if wrong and not (optional and value is None):
            raise TypeError(f"invalid {name} {value!r:.100}")
        if name in _KNOWN and value not in _KNOWN[name]:
            raise ValueError(f"invalid {name} {value!r:.100}")
    if isinstance(record, (ReportRecord, RungRecord)) and record.epoch < 1:
        raise ValueError(f"epoch must be >= 1, got {record.epoch}")
    if isinstance(record, StudyRecord) and record.format != FORMAT:
        raise ValueError(f"format {record.format}")


_ENCODER = json.JSONEncoder(allow_nan=False)
_DECODER = json.JSONDecoder()


def encode(record: Record) -> str:
    """One line of JSON, without the newline."""
    fields = {"kind": record.kind, **vars(record)}
    try:
        return _ENCODER.encode(fields)
    except (ValueError, TypeError):  # a NaN, an infinity or a mapping that is no dict
        plain = {key: _plain(item, numbers=key in NUMBERS) for key, item in fields.items()}
        return _ENCODER.encode(plain)


def decode(line: str) -> Record:
    """The record of one line."""
    fields, end = _DECODER.raw_decode(line)
    if line[end:].strip():
        raise ValueError(f"one object per line is expected, got {line[end:]!r} after it")
    if INFINITE in line:
        fields = _revived(fields)
    cls = _KINDS[fields.pop("kind")]
    if "trial" in fields:
        fields["trial"] = sys.intern(fields["trial"])  # thousands of lines name it
    for key in NUMBERS:
        if key in fields:
            fields[key] = _numbers(fields[key])
    record: Record = cls(**fields)
    _check(record)
    return record
