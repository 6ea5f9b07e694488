"""All that is checked before a study starts, or goes on. Nothing is written here but caches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from study.config.task import FileData, NamedTask, TaskConfig, TrialConfig, load_task
from study.core.errors import InputError
from study.core.files import expanded
from study.core.names import GRID
from study.core.yaml_file import parse_yaml
from study.ledger.journal import LEDGER
from study.ledger.plan import Plan
from study.ledger.records import StudyRecord, encode
from study.ledger.state import State
from study.search.asha import rung_epochs
from study.space.search_space import SearchSpace, load_space
from study.storage.s3.bucket import S3Prefix
from study.storage.studies import Storage, load

if TYPE_CHECKING:
    from study.engine.cluster import Resources

TRACKING_TIMEOUT = 10.0
TOO_LARGE = 10**18  # for a whole number that others are counted up from


def _refusal(key: str, rule: str, got: object) -> InputError:
    return InputError(f"{key} {rule}, got {got!r}", key=f"--{key.replace('_', '-')}")


@dataclass(frozen=True)
class Options:
    """Where and how much; hyperparameters are in the two YAML files. A time budget counts from
    `given_at`, by the monotonic clock.

    Raises InputError for what is no number, and for a number that is too small or too large.
    """

    space: str | Path | Mapping[str, Any] = "joint"
    task: str | Path | Mapping[str, Any] = "synthetic"
    data_root: Path | None = None
    num_trials: int | None = None
    time_budget: float = math.inf
    max_gpu_hours: float = math.inf
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    max_concurrent: int | None = None
    address: str | None = None
    storage: str | Path = "studies"
    tracking_uri: str | None = None
    keep_checkpoints: bool = False
    name: str | None = None
    seed: int = 0
    given_at: float = field(default_factory=time.monotonic, init=False, compare=False)

    def __post_init__(self) -> None:
        for key, least in (("num_trials", 1), ("max_concurrent", 1), ("seed", 0)):
            number: Any = getattr(self, key)
            if number is None and key != "seed":
                continue
            if isinstance(number, bool) or not isinstance(number, Integral):
                raise _refusal(key, "must be a whole number", number)
            if int(number) < least:
                raise _refusal(key, f"must be >= {least}", number)
            if int(number) >= TOO_LARGE:
                raise _refusal(key, "must be < 10^18", number)
            object.__setattr__(self, key, int(number))
        for key in ("time_budget", "max_gpu_hours"):
            amount = getattr(self, key)
            if isinstance(amount, bool) or not isinstance(amount, Real) or not float(amount) >= 0:
                raise _refusal(key, "must be a number >= 0", amount)
            object.__setattr__(self, key, float(amount))
        for key in ("gpus_per_trial", "cpus_per_trial"):
            share: Any = getattr(self, key)
            number = isinstance(share, Real) and not isinstance(share, bool)
            if share is not None and not (number and 0 <= float(share) < math.inf):
                raise _refusal(key, "must be a number >= 0", share)
        for key in ("address", "name", "storage", "tracking_uri"):
            text: Any = getattr(self, key)
            if isinstance(text, Path) and key == "storage":
                continue
            if not isinstance(text, str) and (text is not None or key == "storage"):
                raise _refusal(key, "must be text", text)
            if text == "":
                raise _refusal(key, "must not be empty", text)
        for key in ("space", "task"):
            given = getattr(self, key)
            if not isinstance(given, (str, Path, Mapping)):
                raise _refusal(key, "must be a name, a path or a mapping", given)
        Storage.of(self.storage)

    @property
    def studies(self) -> Storage:
        """Where the studies are."""
        return Storage.of(self.storage)


@dataclass(frozen=True)
class Prepared:
    """A study whose every input has been checked."""

    folder: Path
    space: SearchSpace
    task: NamedTask
    plan: Plan
    tracking_uri: str
    storage: Storage
    first_line: StudyRecord | None = None
    state: State = field(default_factory=State)

    @property
    def name(self) -> str:
        """The study's name: its folder's."""
        return self.folder.name

    @property
    def prefix(self) -> S3Prefix | None:
        """Where the study is shipped to, with storage in a bucket."""
        return self.storage.prefix_of(self.folder)


def with_root(task: TaskConfig, data_root: Path | None) -> TaskConfig:
    """The task with its data below `data_root`, as an absolute path."""
    if not isinstance(task.data, FileData):
        if data_root is not None:
            hint = "leave --data-root out"
            raise InputError("the task reads no data folder", hint=hint, key="--data-root")
        return task
    root, key = task.data.root, "data/root"
    if data_root is not None:
        root, key = str(data_root), "--data-root"
    if root is None:
        hint = "add it, or give --data-root DIR"
        raise InputError("missing required key 'root'", hint=hint, key="data/root")
    data = task.data.model_copy(update={"root": str(expanded(root, key).resolve())})
    return task.model_copy(update={"data": data})


def make_plan(space: SearchSpace, task: TaskConfig, *, num_trials: int | None, seed: int) -> Plan:
    """Resolve the study's numbers from the space's settings and the task's budget."""
    if num_trials is not None:
        asked = space.settings.model_copy(update={"num_trials": num_trials})
        space = replace(space, settings=asked)
    settings, references = space.settings, space.num_reference_trials
    grid = space.grid if settings.sampler == GRID else None
    if grid is not None and settings.num_trials - references > len(grid):
        raise InputError(
            f"num_trials must be at most {len(grid) + references} (a grid of {len(grid)} points "
            f"and {references} reference trials), got {settings.num_trials}",
            key="--num-trials",
        )
    rungs = settings.rungs
    return Plan(
        seed=seed,
        epochs=task.num_epochs,
        objectives=settings.objectives,
        sampler=settings.sampler,
        num_trials=settings.num_trials,
        reference_trials=references,
        baselines=settings.baselines,
        rungs=(
            tuple(rung_epochs(rungs.first, rungs.reduction_factor, task.num_epochs))
            if rungs
            else ()
        ),
        reduction_factor=rungs.reduction_factor if rungs else 0,
        split_by=rungs.by if rungs else None,
        confirm_top=settings.confirm.top,
        confirm_seeds=settings.confirm.num_seeds,
    )


def prepare(options: Options, begin: Callable[[], None] = lambda: None) -> Prepared:
    """Check the two files, the name, the data and the model. Writes nothing but the data cache.

    begin: called once the quick checks are over, before the data and the model are looked at.
    """
    space = load_space(options.space)
    task = load_task(options.task)
    try:
        return _prepare(options, space, task, begin)
    except InputError as error:
        raise error.of_file(task.file, task.lines) from error


def _prepare(
    options: Options, space: SearchSpace, task: NamedTask, begin: Callable[[], None]
) -> Prepared:
    from study.tracking import absolute, check, default_uri

    config = with_root(task.config, options.data_root)
    task = replace(task, config=config)
    plan = make_plan(space, config, num_trials=options.num_trials, seed=options.seed)
    storage = options.studies
    folder = storage.new_folder(options.name, f"{space.name}-{task.name}")
    uri = absolute(options.tracking_uri or default_uri(folder.parent))
    check(uri, timeout=TRACKING_TIMEOUT)
    begin()
    first_line = _first_line(folder, space, task, plan)
    _check_plain(first_line)
    return Prepared(folder, space, task, plan, uri, storage, first_line=first_line)


def reopen(name: str, options: Options, begin: Callable[[], None] = lambda: None) -> Prepared:
    """A study that was begun: everything but the resources, and where the data lie by now, comes
    from its ledger. A tracking server need not answer: what it misses is sent later. begin: as for
    `prepare`."""
    from study.tracking import absolute, check_form

    storage = options.studies
    folder = storage.find(name)
    state = load(folder)
    assert state.study is not None
    first = state.study
    try:
        task = NamedTask(first.task_name, None, TaskConfig.model_validate(first.task))
        plan = Plan.from_dict(first.plan)
        space = replace(load_space(first.space), name=first.space_name)
        fingerprint = first.data["fingerprint"]
    except (ValidationError, KeyError, TypeError, InputError) as error:
        raise InputError(
            f"cannot resume from the ledger's first line: {error!r}",
            file=folder / LEDGER,
            line=1,
        ) from error
    if options.data_root is not None:
        task = replace(task, config=with_root(task.config, options.data_root))
    begin()
    if not state.finished:
        _check_data(task.config, fingerprint)
    uri = options.tracking_uri or tracked_at(state, storage, folder)
    check_form(uri)
    uri = absolute(uri)
    if options.num_trials is not None and options.num_trials != plan.num_trials:
        raise InputError(
            f"num_trials of this study is {plan.num_trials} and cannot change, "
            f"got {options.num_trials}",
            key="--num-trials",
        )
    return Prepared(folder, space, task, plan, uri, storage, state=state)


def tracked_at(state: State, storage: Storage, folder: Path) -> str:
    """Where the study was tracked last. The database file of another machine, which a study in a
    bucket may have left, gives way to the default one here: MLflow is rebuilt from the ledger."""
    from study.tracking.uri import default_uri, sqlite_path

    uri = state.sessions[-1].tracking_uri if state.sessions else default_uri(folder.parent)
    file = sqlite_path(uri)
    if storage.prefix is not None and file is not None and not file.parent.is_dir():
        return default_uri(folder.parent)
    return uri


def _check_plain(line: StudyRecord) -> None:
    """YAML also knows dates and bytes, and a mapping of a notebook may hold anything."""
    try:
        encode(line)
    except TypeError as error:
        raise InputError(
            f"a task and a space must consist of numbers, text, lists and mappings: {error}"
        ) from error


def _check_data(task: TaskConfig, fingerprint: str) -> None:
    """Trials of a study are compared, so all of them must see the same images."""
    from study.data import open_data

    found = open_data(task.data).fingerprint
    if found != fingerprint:
        raise InputError(
            f"the data are not those of the study: fingerprint {found[:12]}, "
            f"expected {fingerprint[:12]}",
            key="--data-root" if isinstance(task.data, FileData) else "data",
        )


def _first_line(folder: Path, space: SearchSpace, task: NamedTask, plan: Plan) -> StudyRecord:
    from study.data import open_data
    from study.data.splits import class_warnings
    from study.training.environment import environment
    from study.training.models import check_task
    from study.training.trainer import loss_for

    data = open_data(task.config.data)
    space.check(lambda loss: loss_for(loss, data))
    check_task(task.config, data.num_classes, data.train.images.shape[1:3])
    counts = data.train.class_counts.sum(axis=0)
    return StudyRecord(
        name=folder.name,
        seed=plan.seed,
        task_name=task.name,
        task=task.config.model_dump(),
        space_name=space.name,
        space=parse_yaml(space.text).data,
        plan=plan.as_dict(),
        data={
            "fingerprint": data.fingerprint,
            "class_names": list(data.class_names),
            "num_images": {
                split: len(getattr(data, split).names) for split in ("train", "val", "test")
            },
            "split_rule": data.rule,
            "warnings": class_warnings(data),
            "class_fraction": [round(float(count) / float(counts.sum()), 8) for count in counts],
        },
        environment=environment(TrialConfig(task=task.config)),
    )


def describe_plan(prepared: Prepared, options: Options) -> str:
    """The plan and the resources of a trial in words. Starts nothing."""
    from study.engine import cluster as clusters
    from study.losses import PRESETS
    from study.reporting.plan_text import data_lines, plan_text
    from study.search.sampler import model_takes_over_at

    plan = prepared.plan
    learned = [
        name
        for name in plan.baselines
        if prepared.space.params_of({"loss": PRESETS[name].config}) is not None
    ]
    takes_over = model_takes_over_at(len(learned))
    text = plan_text(plan, prepared.space, prepared.task, name=prepared.name, takes_over=takes_over)
    if prepared.first_line is not None:
        text = "\n".join([text, *data_lines(prepared.first_line.data)])
    there, words = clusters.where(options.address)
    if there is not None:
        return f"{text}\n{words}: as many trials at once as its nodes hold"
    return f"{text}\n{fit(words, [clusters.this_machine()], options).text}"


def fit(cluster: str, nodes: Sequence[Mapping[str, float]], options: Options) -> Resources:
    """What a trial gets on these nodes, and how many run at once."""
    from study.engine import cluster as clusters

    resources = clusters.fit(
        cluster,
        nodes,
        gpus_per_trial=options.gpus_per_trial,
        cpus_per_trial=options.cpus_per_trial,
        max_concurrent=options.max_concurrent,
    )
    if math.isfinite(options.max_gpu_hours) and not resources.gpus_per_trial:
        message = "GPU-hours cannot be counted: the trials run on CPUs"
        raise InputError(message, hint="use --time-budget", key="--max-gpu-hours")
    return resources
