"""The lines of a ledger: frozen records, and their JSON.

pydantic reads a line and validates every field. A record that the program makes is validated when
the ledger appends it, because the ledger reads back what it writes. Records are therefore plain
dataclasses: building the report of an epoch costs no validation of its own.

Lines of older formats are always read; `OLDER` lists what each format called its keys. The format
number in the first line is that of the version that began the study. When a newer version resumes
the study, the ledger holds lines of both formats, and MLflow's projection reads single lines from
the middle of the file. So `decode` accepts the keys of all known formats in every line: a line
needs no other line to be understood, and no old key has a second meaning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    StrictBool,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
)

from study.core.names import (
    BASELINE,
    COMPLETED,
    CONFIRM,
    FAILED,
    REFERENCE,
    SEARCH,
    STOPPED_EARLY,
    TEACHER,
)
from study.ledger.chain import parts

FORMAT = 4
# For each older format and kind of line: the path of a key, and its present name (None: dropped).
# Format 1, which wrote infinities outside of metrics as text, is refused. Format 4 has checksums.
OLDER: dict[int, dict[str, dict[str, str | None]]] = {
    2: {
        "study": {"data/class_share": "class_fraction", "task/data/val_share": "val_fraction"},
        "trial": {"resume_from": None, "config/task/data/val_share": "val_fraction"},
        "report": {"checkpoint": None},
        "rung": {"ladder": "bracket"},
        "select": {"stated": "default_ce"},
    },
    3: {},
}
NUMBERS = ("metrics", "values", "expected", "likely")
INFINITE = "$float"


def _known_format(number: int) -> int:
    if number != FORMAT:
        known = ", ".join(map(str, (*OLDER, FORMAT)))
        raise ValueError(f"unknown ledger format {number} (known: {known})")
    return number


def _number(value: str | None) -> float:
    return math.nan if value is None else float(value)


_InJson = Annotated[
    StrictFloat | Annotated[Literal["inf", "-inf"] | None, AfterValidator(_number)],
    Field(union_mode="left_to_right"),
]
Number = Annotated[float, GetPydanticSchema(lambda _, handler: handler(_InJson))]
Numbers = dict[str, Number]
Tree = dict[str, Any]
Epoch = Annotated[StrictInt, Field(ge=1)]
STAGES = (TEACHER, BASELINE, REFERENCE, SEARCH, CONFIRM)
Stage = Annotated[str, Field(pattern=f"^({'|'.join(STAGES)})$")]
TrialId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]  # names files
Status = Annotated[str, Field(pattern=f"^({COMPLETED}|{STOPPED_EARLY}|{FAILED})$")]


class _Line:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class StudyRecord(_Line):
    """First line: what is studied. `plan` is the whole resolved plan.

    `confirm_task_name`, `confirm_task`, `confirm_data`: of the target, the task that confirmations
    train; None where that is the study's own. `teachers`: of distilled losses: the tasks and the
    weights that the space names, each by its name there; None where there are none. `prior`: what
    a warm start takes over from earlier studies (`study.search.warm_start`), if anything.
    """

    kind: Literal["study"] = field(default="study", kw_only=True)
    name: str
    seed: StrictInt
    task_name: str
    task: Tree
    space_name: str
    space: Tree
    plan: Tree
    data: Tree
    environment: Tree
    format: Annotated[StrictInt, AfterValidator(_known_format)] = FORMAT
    time: StrictFloat = 0.0
    confirm_task_name: str | None = None
    confirm_task: Tree | None = None
    confirm_data: Tree | None = None
    teachers: Tree | None = None
    prior: Tree | None = None

    @property
    def judged_task_name(self) -> str:
        """The name of the task that confirmations train."""
        return self.task_name if self.confirm_task_name is None else self.confirm_task_name

    @property
    def judged_task(self) -> Tree:
        """The task that confirmations train."""
        return self.task if self.confirm_task is None else self.confirm_task

    @property
    def has_own_training(self) -> bool:
        """Whether trials are trained by code of the user's own, and not by this package."""
        return "trial" in self.judged_task

    @property
    def judged_data(self) -> Tree:
        """The data of the task that confirmations train."""
        return self.data if self.confirm_data is None else self.confirm_data

    @property
    def warnings(self) -> list[str]:
        """What limits the use of the data; where there is a target, its lines first, and the task
        of each by its name."""
        if self.confirm_data is None:
            return list(self.data.get("warnings", ()))
        of_target = self.confirm_data.get("warnings", ())
        return [
            *(f"target {self.confirm_task_name}: {line}" for line in of_target),
            *(f"proxy {self.task_name}: {line}" for line in self.data.get("warnings", ())),
        ]


@dataclass(frozen=True)
class SessionRecord(_Line):
    """One start of the driver."""

    kind: Literal["session"] = field(default="session", kw_only=True)
    number: StrictInt
    cluster: str
    slots: StrictInt
    cpus_per_trial: StrictFloat
    gpus_per_trial: StrictFloat
    tracking_uri: str
    keep_checkpoints: StrictBool = False
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class AmendRecord(_Line):
    """What a study is from here on, after a resume that changes it: its whole plan, and its search
    space, or None where that stays. `kept`: of the `searched` trials before, those whose configs
    the space still holds; the sampler learns from them."""

    kind: Literal["amend"] = field(default="amend", kw_only=True)
    plan: Tree
    space: Tree | None = None
    kept: StrictInt = 0
    searched: StrictInt = 0
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class NodesRecord(_Line):
    """The cluster has changed: the nodes that get trials, and how many trials run at once on them.

    `slots` may be 0; then the trials wait. `change`: what joined and left, in words.
    """

    kind: Literal["nodes"] = field(default="nodes", kw_only=True)
    nodes: StrictInt
    slots: StrictInt
    change: str
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class TrialRecord(_Line):
    """A trial starts, or starts again (`attempt` > 0).

    `gpus`: its GPUs, or its fraction of one; more than the session's after it ran out of memory.
    `budget`: for how many times the plan's epochs it is trained. `ablated`: the axis of its source
    that is switched off. `on_target`: whether it trains the study's target instead of its own task.
    `proposed_by`: of a searched trial, `model`, `warm_start` (the earlier studies),
    `random` or `grid`; None where that is not known.
    """

    kind: Literal["trial"] = field(default="trial", kw_only=True)
    trial: TrialId
    number: StrictInt
    stage: Stage
    label: str
    family: str
    params: Tree | None
    config: Tree
    seed: StrictInt
    attempt: StrictInt = 0
    source: TrialId | None = None
    gpus: StrictFloat | None = None
    time: StrictFloat = 0.0
    budget: Annotated[StrictInt, Field(ge=1)] = 1
    ablated: str = ""
    on_target: StrictBool = False
    proposed_by: str | None = None


@dataclass(frozen=True)
class ReportRecord(_Line):
    """An epoch of a trial.

    `environment` says where the trial is trained; the first report of each attempt has it.
    """

    kind: Literal["report"] = field(default="report", kw_only=True)
    trial: TrialId
    attempt: StrictInt
    epoch: Epoch
    metrics: Numbers
    environment: Tree | None = None
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class RungRecord(_Line):
    """A trial has reached a rung of a bracket: its best of each objective so far, the decision."""

    kind: Literal["rung"] = field(default="rung", kw_only=True)
    trial: TrialId
    epoch: Epoch
    bracket: str
    values: Numbers
    keep: StrictBool
    reason: str
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class FaultRecord(_Line):
    """The machine ended an attempt at a trial, which starts again after its `epochs`.

    `cause`: lost (its process or node is gone), hung (it was ended, as it gave no sign of life),
    memory, gpu_memory, preempted (its node is drained) or unfit (its node lacks this package or has
    another version).
    """

    kind: Literal["fault"] = field(default="fault", kw_only=True)
    trial: TrialId
    attempt: StrictInt
    epochs: StrictInt
    cause: str
    reason: str
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class WaitRecord(_Line):
    """A trial that has been started waits for a machine that can hold it."""

    kind: Literal["wait"] = field(default="wait", kw_only=True)
    trial: TrialId
    attempt: StrictInt
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class EndRecord(_Line):
    """A trial's end. `by_machine`: the machine is to blame for its failure."""

    kind: Literal["end"] = field(default="end", kw_only=True)
    trial: TrialId
    status: Status
    reason: str
    epochs: StrictInt
    by_machine: StrictBool = False
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class SearchEndRecord(_Line):
    """The sampler proposes no more, as the plan's `stop_gain` has it.

    `searched`: the trials of the search that were begun, those that tune cross entropy among them.
    `expected`, `likely`: what going on was expected to gain of each objective, and what it exceeds
    with a chance of 5 %, in points.
    """

    kind: Literal["search_end"] = field(default="search_end", kw_only=True)
    searched: StrictInt
    expected: Numbers
    likely: Numbers
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class SelectRecord(_Line):
    """The search is over: the trials to confirm.

    `reference` and `runner_up` are the two best cross entropies by val, `default_ce` that at the
    task's own settings; the confirmation decides between them. `searched`
    counts the trials of the search. If a budget ended the search, a later session may continue it
    and then selects anew.
    """

    kind: Literal["select"] = field(default="select", kw_only=True)
    confirmed: list[TrialId]
    reference: TrialId | None
    default_ce: TrialId | None
    searched: StrictInt | None = None
    time: StrictFloat = 0.0
    runner_up: TrialId | None = None

    @property
    def cross_entropies(self) -> list[str]:
        """The cross entropies to confirm, each once."""
        named = dict.fromkeys((self.reference, self.runner_up, self.default_ce))
        return [trial for trial in named if trial is not None]

    @property
    def sources(self) -> list[str]:
        """All trials to confirm, in the order in which a seed is confirmed."""
        return [*self.cross_entropies, *self.confirmed]


@dataclass(frozen=True)
class SeedsRecord(_Line):
    """How many seeds the latest selection is confirmed with, chosen once after those of the plan.

    `half_width`: of the watched interval after these, in points; None where there is none.
    """

    kind: Literal["seeds"] = field(default="seeds", kw_only=True)
    seeds: Annotated[StrictInt, Field(ge=1)]
    half_width: StrictFloat | None = None
    time: StrictFloat = 0.0


@dataclass(frozen=True)
class FinishRecord(_Line):
    """The study is finished."""

    kind: Literal["finish"] = field(default="finish", kw_only=True)
    time: StrictFloat = 0.0


Record = (
    StudyRecord
    | SessionRecord
    | AmendRecord
    | NodesRecord
    | TrialRecord
    | ReportRecord
    | RungRecord
    | FaultRecord
    | WaitRecord
    | EndRecord
    | SearchEndRecord
    | SelectRecord
    | SeedsRecord
    | FinishRecord
)
_LINE: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def _plain(value: Any, *, numbers: bool = False) -> Any:
    """The value without NaN and infinities, which JSON cannot hold.

    A NaN becomes null. An infinity becomes text where there are `numbers` alone, and elsewhere,
    where any text is possible, a mapping with the one key `$float`.
    """
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
        if list(value) == [INFINITE] and isinstance(value[INFINITE], str):
            return float(value[INFINITE])
        return {key: _revived(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_revived(item) for item in value]
    return value


def _upgraded(line: Any) -> Any:
    """A line of any known format, with the keys of the present one."""
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return line
    for number, renamed in OLDER.items():
        for path, name in renamed.get(line["kind"], {}).items():
            *parents, old = path.split("/")
            tree: Any = line
            for key in parents:
                tree = tree.get(key) if isinstance(tree, dict) else None
            if isinstance(tree, dict) and old in tree:
                _rename(tree, old, name)
        if line.get("format") == number:
            line["format"] = FORMAT
    return line


def _rename(tree: dict[str, Any], old: str, name: str | None) -> None:
    """Rename a key of a mapping, which keeps its order, or drop it."""
    if name in tree:
        raise ValueError(f"both `{name}` and its old name `{old}` are given")
    items = [(name if key == old else key, value) for key, value in tree.items()]
    tree.clear()
    tree.update((key, value) for key, value in items if key is not None)


def _offence(error: ValidationError) -> str:
    """The first error of a line, in one line of text."""
    fault = error.errors(include_url=False, include_context=False)[0]
    said, path = fault["msg"].removeprefix("Value error, "), "/".join(map(str, fault["loc"][1:3]))
    match fault["type"]:
        case "missing":
            return f"missing key `{path}`"
        case "unexpected_keyword_argument":
            return f"unknown key `{path}`"
        case "value_error":
            return said
    return f"`{path}` is {fault['input']!r:.100}: {said}" if path else said


_ENCODER = json.JSONEncoder(allow_nan=False)


def encode(record: Record) -> str:
    """One line of JSON, without the newline."""
    fields = {"kind": record.kind, **vars(record)}
    try:
        return _ENCODER.encode(fields)
    except (ValueError, TypeError):  # a NaN, an infinity or a mapping that is no dict
        plain = {key: _plain(item, numbers=key in NUMBERS) for key, item in fields.items()}
        return _ENCODER.encode(plain)


def decode(line: str) -> Record:
    """The record of one line, of this format or an older one; its check is not verified.

    Raises:
        ValueError: the line is no record.
    """
    line, _ = parts(line)
    try:
        if INFINITE not in line:
            return _LINE.validate_json(line)
    except ValidationError:
        pass  # perhaps it is of an older format, or holds half a character, which pydantic refuses
    try:
        fields = json.loads(line)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if INFINITE in line:
        fields = _revived(fields)
    try:
        return _LINE.validate_python(_upgraded(fields))
    except ValidationError as error:
        raise ValueError(_offence(error)) from None
