"""Checks everything before a study starts or continues. Writes nothing but the data cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from study.config.own_training import OwnTrainingTask
from study.config.task import (
    Data,
    FileData,
    NamedTask,
    Task,
    TaskConfig,
    TrialConfig,
    load_task,
    refuse_code,
    task_of,
)
from study.core.errors import InputError
from study.core.names import GRID, RANDOM
from study.ledger.journal import LEDGER
from study.ledger.plan import Plan
from study.ledger.records import AmendRecord, StudyRecord, encode
from study.ledger.state import State
from study.losses.config import FactoryLoss
from study.scheduler.planning import amended, make_plan, with_comparisons
from study.scheduler.teachers import NO_TEACHERS, Teachers
from study.search.warm_start import STUDIES, taken_from
from study.session import own_training
from study.session import teachers as of_teachers
from study.session.options import Options, flag_of
from study.session.roots import with_root
from study.session.sharing import AT_START, ON_CPUS, refuse_own_training
from study.space.search_space import SearchSpace, load_space
from study.storage.s3.bucket import S3Prefix
from study.storage.studies import Storage, load

if TYPE_CHECKING:
    from study.data import SegmentationData
    from study.engine.cluster import Resources

TRACKING_TIMEOUT = 10.0
LEAST_TAKEN = 4  # trials of each earlier study of a warm start
MOST_CLASSES = 8  # that an error names
SEEDS_WITH_GPUS = 5  # of each confirmed config, where trials get GPUs and none are given


@dataclass(frozen=True)
class Prepared:
    """A study whose inputs have all been checked.

    Args:
        folder: The folder of the study.
        first_line: The first line of its ledger, if the study is new.
        state: The state of the study, if it is resumed.
        target: The task that confirmations train, if it is not `task`.
        seeds_are_open: Whether the number of seeds depends on what trials get.
        data_faults: What a new study would be refused for, if the study is resumed.
        teachers: Of distilled losses.
        amendment: What the resume changes, if anything.
    """

    folder: Path
    space: SearchSpace
    task: NamedTask
    plan: Plan
    tracking_uri: str
    storage: Storage
    first_line: StudyRecord | None = None
    state: State = field(default_factory=State)
    target: NamedTask | None = None
    seeds_are_open: bool = False
    data_faults: tuple[str, ...] = ()
    teachers: Teachers = NO_TEACHERS
    amendment: AmendRecord | None = None

    def with_gpus(self, gpus: float) -> Prepared:
        """The same with the number of seeds that is for trials with so many GPUs."""
        if not self.seeds_are_open or not gpus or self.first_line is None:
            return self
        most = self.plan.confirm_max_seeds or SEEDS_WITH_GPUS
        plan = replace(self.plan, confirm_seeds=min(SEEDS_WITH_GPUS, most))
        return replace(self, plan=plan, first_line=replace(self.first_line, plan=plan.as_dict()))

    @property
    def name(self) -> str:
        """The name of the study, which is that of its folder."""
        return self.folder.name

    @property
    def tasks_to_train(self) -> list[NamedTask]:
        """The tasks of the trials that are left to run; none where there are none."""
        tasks = [self.task] if self.target is None else [self.task, self.target]
        return tasks if self.has_trials_to_run else []

    @property
    def has_trials_to_run(self) -> bool:
        """Whether the session may start trials: the study is not finished, or goes on changed."""
        return self.amendment is not None or not self.state.finished

    @property
    def data_of_trials(self) -> tuple[tuple[Data, str], ...]:
        """What trials read, with the fingerprint that it has here; nothing of own trainings."""
        first = self.first_line or self.state.study
        assert first is not None
        found = [(self.task, first.data), (self.target, first.judged_data)]
        return tuple(
            (task.config.data, str(facts["fingerprint"]))
            for task, facts in found
            if task is not None and isinstance(task.config, TaskConfig)
        )

    @property
    def names_code(self) -> bool:
        """Whether a task or the space names factories."""
        own = self.space.settings.own_baselines.values()
        tasks = (self.task, self.target)
        of_tasks = any(task.config.factories for task in tasks if task is not None)
        of_losses = any(isinstance(o, FactoryLoss) for o in own)
        return of_tasks or of_losses or bool(of_teachers.factories(self.space, self.teachers))

    @property
    def prefix(self) -> S3Prefix | None:
        """The prefix of the study, if its storage is in a bucket."""
        return self.storage.prefix_of(self.folder)


def _with_roots(
    options: Options, task: NamedTask, target: NamedTask | None
) -> tuple[NamedTask, NamedTask | None]:
    """Both tasks with the paths of their data: `--data-root` serves all that read files, but for a
    target with `--confirm-data-root`."""
    root, flag = options.confirm_data_root, "--confirm-data-root"
    if target is None and root is not None:
        raise InputError("there is no target", hint="name it by --confirm-task", key=flag)
    target_reads = target is not None and _reads_files(target.config)
    serves_target_alone = target_reads and not _reads_files(task.config)
    with _in_file_of(task):
        own = None if serves_target_alone else options.data_root
        task = replace(task, config=with_root(task.config, own))
    if target is None:
        return task, None
    if root is None and target_reads:
        root, flag = options.data_root, "--data-root"
    with _in_file_of(target):
        return task, replace(target, config=with_root(target.config, root, flag))


def _reads_files(task: Task) -> bool:
    return isinstance(task, TaskConfig) and isinstance(task.data, FileData)


@contextmanager
def _in_file_of(task: NamedTask) -> Iterator[None]:
    """Give an error of a task its file and line."""
    try:
        yield
    except InputError as error:
        raise error.of_file(task.file, task.lines) from error


def prepare(options: Options, begin: Callable[[], None] = lambda: None) -> Prepared:
    """Check the space, the task, the name, the data and the model of a new study.

    Args:
        options: What the user gave.
        begin: Called after the quick checks, before the data and the model are checked.
    """
    from study.tracking import absolute, check, default_uri

    space = load_space(options.space)
    given = options.task if isinstance(options.task, NamedTask) else load_task(options.task)
    refuse_own_training(options, given)
    space = own_training.with_objectives(space, given.config)
    task, target = _with_roots(options, given, _target(options, space))
    if target is not None and target.config == task.config:
        target = None
    teachers = of_teachers.study_teachers(space, task.config, options.data_root)
    plan = make_plan(
        space,
        task.config,
        target=target.config if target is not None else None,
        num_trials=options.num_trials,
        seed=options.seed,
        confirm_seeds=options.confirm_seeds,
        longer=options.longer,
        ablate=options.ablate,
        teachers=teachers,
    )
    storage = options.studies
    earlier = _warm_start(options, space, plan)
    folder = storage.new_folder(options.name, f"{space.name}-{task.name}")
    uri = absolute(options.tracking_uri or default_uri(folder.parent))
    check(uri, timeout=TRACKING_TIMEOUT)
    begin()
    first_line = _first_line(folder, space, task, target, plan, teachers)
    first_line = replace(first_line, prior=earlier)
    _check_plain(first_line)
    return Prepared(
        folder,
        space,
        task,
        plan,
        uri,
        storage,
        first_line=first_line,
        target=target,
        seeds_are_open=(options.confirm_seeds or space.settings.confirm.num_seeds) is None,
        teachers=teachers,
    )


def _warm_start(options: Options, space: SearchSpace, plan: Plan) -> dict[str, Any] | None:
    """What the ledger says of the earlier studies of a warm start, where there is one: by the
    options, or else by the space."""
    names, key = options.warm_start, "--warm-start"
    if not names:
        names, key = space.settings.warm_start, "study/warm_start"
    if not names:
        return None

    def refused(message: str, hint: str = "") -> InputError:
        return InputError(message, hint=hint, key=key).of_file(space.file, space.lines)

    if plan.sampler in (GRID, RANDOM):
        message = f"nothing learns from earlier studies where the sampler is {plan.sampler}"
        raise refused(message, "leave it out, or use sampler: model")
    found: list[dict[str, Any]] = []
    folders: list[Path] = []
    for name in names:
        try:
            folder = options.studies.find(name, whole=False)
        except InputError as error:
            raise refused(error.message) from error
        if folder.resolve() in folders:
            raise refused(f"the study {folder.name} is named twice")
        folders.append(folder.resolve())
        one = taken_from(folder.name, load(folder), space)
        if len(one["points"]) < LEAST_TAKEN:
            why = ", ".join(f"{count} {reason}" for reason, count in one["left_out"].items())
            raise refused(
                f"of {folder.name} {len(one['points'])} trials can be taken over, and a warm start "
                f"needs {LEAST_TAKEN} (left out: {why or 'none'})"
            )
        found.append(one)
    return {STUDIES: found}


def _target(options: Options, space: SearchSpace) -> NamedTask | None:
    """The task that confirmations are to train, where one is given: by the options, or else by the
    space."""
    given, key = options.confirm_task, "--confirm-task"
    if given is None:
        given, key = space.settings.confirm.task, "study/confirm/task"
    if given is None or isinstance(given, NamedTask):
        return given
    try:
        return load_task(given)
    except InputError as error:
        if error.key != "task":
            raise
        found = InputError(error.message, key=key)
        raise found.of_file(space.file, space.lines) from error


def reopen(
    name: str,
    options: Options,
    begin: Callable[[], None] = lambda: None,
    *,
    trust: bool = False,
    more_trials: int = 0,
    changed_space: Any = None,
) -> Prepared:
    """Check a study that is resumed. Its ledger says everything but the resources, and what is
    changed here.

    The data may have moved. The tracking server need not answer: it gets the missing lines later.

    Args:
        name: The study in the storage, or the path of its folder.
        options: What the user gave.
        begin: Called after the quick checks, before the data are checked.
        trust: Whether factories that the ledger names may be imported; else they are refused.
        more_trials: Searched trials to add to the plan.
        changed_space: What is searched from now on, as for `load_space`; its `study:` block must be
            the one that the study has.
    """
    from study.tracking import absolute, check_form

    storage = options.studies
    folder = storage.find(name)
    state = load(folder)
    assert state.study is not None
    first = state.study
    try:
        task = NamedTask(first.task_name, None, task_of(first.task))
        target = None
        if first.confirm_task is not None:
            config = task_of(first.confirm_task)
            target = NamedTask(first.judged_task_name, None, config)
        plan = Plan.from_dict(first.plan)
        space = load_space(first.space)
        settings = space.settings.model_copy(update={"objectives": plan.objectives})
        space = replace(space, name=first.space_name, settings=settings)
        fingerprints = first.data["fingerprint"], first.judged_data["fingerprint"]
        teachers = of_teachers.recorded(space, first.teachers, options.data_root)
    except (ValidationError, KeyError, TypeError, InputError) as error:
        raise InputError(
            f"cannot resume from the ledger's first line: {error!r}",
            file=folder / LEDGER,
            line=1,
        ) from error
    if not trust:
        place = folder / LEDGER
        for above, one in (("task/", task), ("confirm_task/", target)):
            code = one.config.factories if one is not None else {}
            refuse_code(code, "a ledger", file=place, line=1, above=above)
        of_teachers.refuse_untrusted(space, teachers, place)
        refuse_code(_loss_factories(space, state), "a ledger", file=place)
    refuse_own_training(options, task)
    if options.data_root is not None or options.confirm_data_root is not None:
        task, target = _with_roots(options, task, target)
    amendment = None
    longer, ablate = options.longer, options.ablate
    wanted = with_comparisons(plan, space, longer, ablate=ablate)
    if more_trials or changed_space is not None or wanted != plan:
        plan, space, amendment = amended(
            plan, space, state, more_trials, changed_space, longer=longer, ablate=ablate
        )
    if changed_space is not None:
        of_teachers.refuse_new(space, teachers)
    begin()
    if changed_space is not None:
        _facts_of_own(space, task.config)
    faults: tuple[str, ...] = ()
    if amendment is not None or not state.finished:
        faults = _check_data(task.config, fingerprints[0], "--data-root")
        if target is not None:
            faults += _check_data(target.config, fingerprints[1], "--confirm-data-root")
        for one, recorded in ((task, first.data), (target, first.judged_data)):
            if one is not None and isinstance(one.config, OwnTrainingTask):
                faults += own_training.changes(one.config, recorded.get("code", ()))
    uri = options.tracking_uri or tracked_at(state, storage, folder)
    check_form(uri)
    uri = absolute(uri)
    for key in ("num_trials", "confirm_seeds"):
        asked, planned = getattr(options, key), getattr(plan, key)
        if asked is not None and asked != planned:
            raise InputError(
                f"{key} of this study is {planned} and cannot change, got {asked}",
                hint="--more-trials N adds some" if key == "num_trials" else "",
                key=flag_of(key),
            )
    return Prepared(
        folder,
        space,
        task,
        plan,
        uri,
        storage,
        state=state,
        target=target,
        data_faults=faults,
        teachers=teachers,
        amendment=amendment,
    )


def _loss_factories(space: SearchSpace, state: State) -> dict[str, str]:
    """The losses by factory among the space's baselines, and of the trials: any that a ledger with
    changed lines may hold."""
    found = {
        f"space/study/baselines/{place}/factory": loss.factory
        for place, loss in space.settings.own_baselines.items()
        if isinstance(loss, FactoryLoss)
    }
    losses = {trial.id: trial.config.get("loss") for trial in state.trials.values()}
    return found | {
        f"{trial}/config/loss/factory": str(loss["factory"])
        for trial, loss in losses.items()
        if isinstance(loss, dict) and "factory" in loss
    }


def tracked_at(state: State, storage: Storage, folder: Path) -> str:
    """Where the study was tracked last.

    A study in a bucket may have been tracked in a database file of another machine. Then it is the
    default file of this machine, because `study.track` rebuilds MLflow from the ledger.
    """
    from study.tracking.uri import default_uri, sqlite_path

    uri = state.sessions[-1].tracking_uri if state.sessions else default_uri(folder.parent)
    file = sqlite_path(uri)
    if storage.prefix is not None and file is not None and not file.parent.is_dir():
        return default_uri(folder.parent)
    return uri


def _check_plain(line: StudyRecord) -> None:
    """Refuse what a ledger cannot hold. YAML also knows dates and bytes."""
    try:
        encode(line)
    except TypeError as error:
        raise InputError(
            f"a task and a space must consist of numbers, text, lists and mappings: {error}"
        ) from error


def _check_data(task: Task, fingerprint: str, flag: str) -> tuple[str, ...]:
    """Refuse other images than those that the study began with: its trials are compared; and a
    training of the user's own that is gone. Returns what a new study would be refused for."""
    if isinstance(task, OwnTrainingTask):
        own_training.check_begins(task)
        return ()
    from study.data import data_faults, open_data

    data = open_data(task.data, begun=True)
    found = data.fingerprint
    if found != fingerprint:
        raise InputError(
            f"the data are not those of the study: fingerprint {found[:12]}, "
            f"expected {fingerprint[:12]}",
            key=flag if isinstance(task.data, FileData) else "data",
        )
    return tuple(str(fault) for fault in data_faults(data, task.data))


def _first_line(
    folder: Path,
    space: SearchSpace,
    task: NamedTask,
    target: NamedTask | None,
    plan: Plan,
    teachers: Teachers,
) -> StudyRecord:
    """Check the data, the losses and the model of both tasks, and record what is studied."""
    from study.training.environment import environment

    with _in_file_of(task):
        facts, data = _facts_of_own(space, task.config)
        line = StudyRecord(
            name=folder.name,
            seed=plan.seed,
            task_name=task.name,
            task=task.config.model_dump(),
            space_name=space.name,
            space=dict(space.data),
            plan=plan.as_dict(),
            data=facts,
            environment=environment(TrialConfig(task=task.config)),
        )
    if target is not None:
        with _in_file_of(target):
            facts = _facts_of_target(space, task, data, target)
        line = replace(
            line,
            confirm_task_name=target.name,
            confirm_task=target.config.model_dump(),
            confirm_data=facts,
        )
    return line if data is None else _with_teachers(line, space, task, data, target, teachers)


def _with_teachers(
    line: StudyRecord,
    space: SearchSpace,
    task: NamedTask,
    data: SegmentationData,
    target: NamedTask | None,
    teachers: Teachers,
) -> StudyRecord:
    """Check the teachers of distilled losses, and record them."""
    from study.data import open_data

    of_target = None
    if target is not None:
        of_target = open_data(target.trained_here.data, begun=True)
    costs, warnings = of_teachers.check(space, teachers, task.trained_here, data, of_target)
    facts = {**line.data, "warnings": [*line.data["warnings"], *warnings]}
    return replace(line, data=facts, teachers=of_teachers.record(teachers, costs))


def _facts_of_own(space: SearchSpace, task: Task) -> tuple[dict[str, Any], SegmentationData | None]:
    """What a ledger says of the study's own task, whose training is checked; and its data, if this
    package opens them."""
    if isinstance(task, OwnTrainingTask):
        own_training.check(space, task)
        return own_training.facts(task, space), None
    from study.data import open_data
    from study.training.evaluation import measured_names

    data = open_data(task.data)
    _check_trains(space, task, data)
    space.check_objectives(measured_names(data, task.evaluation))
    return _facts(task, data), data


def _check_trains(space: SearchSpace, task: TaskConfig, data: SegmentationData) -> None:
    """Refuse data with which a loss of the space or the task's model cannot train."""
    from study.training.models import check_task
    from study.training.trainer import loss_for

    space.check(lambda loss: loss_for(loss, data))
    check_task(task, data.num_classes, data.train.images.shape[1:3])


def _facts(task: TaskConfig, data: SegmentationData) -> dict[str, Any]:
    """What a ledger says of a task's data."""
    from study.data import data_warnings
    from study.training.models import task_warnings

    counts = data.train.class_counts.sum(axis=0)
    return {
        "fingerprint": data.fingerprint,
        "class_names": list(data.class_names),
        "num_images": {
            split: len(getattr(data, split).names) for split in ("train", "val", "test")
        },
        "split_rule": data.rule,
        "warnings": [
            *data_warnings(data, task.model),
            *task_warnings(task, len(data.train), data.train.images.shape[1:3]),
        ],
        "class_images": {
            split: (getattr(data, split).class_counts > 0).sum(axis=0).tolist()
            for split in ("train", "val", "test")
        },
        "class_counts": counts.tolist(),
        "class_fraction": [round(float(count) / float(counts.sum()), 8) for count in counts],
    }


def _facts_of_target(
    space: SearchSpace, proxy: NamedTask, data: SegmentationData | None, target: NamedTask
) -> dict[str, Any]:
    """What a ledger says of the target's data. Raises InputError where it has other classes than
    its proxy, or does not measure an objective."""
    task, config = proxy.config, target.config
    if isinstance(task, OwnTrainingTask) or isinstance(config, OwnTrainingTask) or data is None:
        own, of_target = own_training.both(task, config)
        own_training.check(space, of_target)
        names = (one.classes.names if one.classes else () for one in (own, of_target))
        _check_classes(proxy.name, next(names), target.name, next(names))
        return own_training.facts(of_target, space)
    from study.data import data_faults, open_data
    from study.training.evaluation import measured_names

    found = open_data(config.data, begun=True)
    _check_classes(proxy.name, data.class_names, target.name, found.class_names)
    if faults := data_faults(found, config.data):
        raise faults[0]
    _check_trains(space, config, found)
    measured = measured_names(found, config.evaluation)
    for name in space.settings.objectives:
        if name not in measured:
            group = name.rpartition("/")[2]
            hint = "its val has no pixel of that class"
            if group in task.evaluation.groups:
                hint = f"name the group {group!r} in its evaluation/groups, too"
            message = f"the target {target.name} does not measure the objective {name!r}"
            raise InputError(message, hint=hint, key="evaluation/groups")
    facts = _facts(config, found)
    facts["warnings"] += _unequal_groups(space, (task, data), (config, found))
    return facts


def _check_classes(
    proxy: str, classes: Sequence[str], target: str, of_target: Sequence[str]
) -> None:
    if tuple(classes) == tuple(of_target):
        return
    lacks = [name for name in classes if name not in of_target]
    adds = [name for name in of_target if name not in classes]
    differs = [
        f"{verb} {', '.join(names[:MOST_CLASSES])}{' and others' * (len(names) > MOST_CLASSES)}"
        for verb, names in (("lacks", lacks), ("adds", adds))
        if names
    ]
    if not differs:
        index = next(i for i, name in enumerate(classes) if name != of_target[i])
        differs = [f"has {of_target[index]} as class {index}, where that has {classes[index]}"]
    raise InputError(
        f"the classes of the target {target} are not those of its proxy {proxy}: it "
        f"{' and '.join(differs)}",
        key="data",
    )


def _unequal_groups(
    space: SearchSpace, *tasks: tuple[TaskConfig, SegmentationData]
) -> Iterator[str]:
    """Warn of groups of an objective that hold other classes on the target than on the proxy."""
    members, of_target = (
        task.evaluation.members(data.class_names, data.train.class_counts.sum(axis=0))
        for task, data in tasks
    )
    for group in members:
        used = any(name.endswith(f"/{group}") for name in space.settings.objectives)
        if used and set(members[group]) != set(of_target[group]):
            here, there = (", ".join(one[group]) for one in (of_target, members))
            yield f"the group {group} of an objective is {here}; on the proxy it is {there}"


def describe_plan(prepared: Prepared, options: Options) -> str:
    """The plan and the resources of a trial as text. Starts nothing."""
    from study.engine import cluster as clusters
    from study.reporting.plan_text import data_lines, plan_text, warm_lines
    from study.search.sampler import model_takes_over_at

    address, cluster = clusters.where(options.address)
    resources = None
    if address is None:
        resources = resources_for(options, cluster, [clusters.this_machine()])
        resources = ranked(prepared, options, resources)
    gpus = resources.gpus_per_trial if resources else options.gpus
    if resources is None and options.device is not None:
        gpus = (gpus or 1.0) if options.device == "gpu" else 0.0
    prepared = prepared.with_gpus(gpus or 0.0)
    plan = prepared.plan
    losses = map(prepared.space.settings.baseline_loss, plan.baselines)
    learned = [loss for loss in losses if prepared.space.params_of(loss) is not None]
    takes_over = model_takes_over_at(len(learned))
    text = plan_text(
        plan,
        prepared.space,
        prepared.task,
        name=prepared.name,
        takes_over=takes_over,
        target=prepared.target,
        teachers=of_teachers.lines(prepared.teachers, _recorded_teachers(prepared)),
    )
    if (line := prepared.first_line or prepared.state.study) is not None:
        text = "\n".join([text, *warm_lines(line)])
    if prepared.first_line is not None:
        text = "\n".join([text, *data_lines(prepared.first_line)])
    text = "\n".join([text, *(f"warning: {fault}" for fault in prepared.data_faults)])
    if options.finds_gpus and prepared.has_trials_to_run:
        text = f"{text}\n{AT_START if gpus is None or gpus else ON_CPUS}"
    if resources is not None:
        return f"{text}\n{resources.text}"
    seeds = ""
    if prepared.seeds_are_open and gpus is None:
        seeds = f"; {SEEDS_WITH_GPUS} seeds if its nodes have GPUs"
    return f"{text}\n{cluster}: as many trials at once as its nodes hold{seeds}"


def _recorded_teachers(prepared: Prepared) -> dict[str, Any] | None:
    line = prepared.first_line or prepared.state.study
    return None if line is None else line.teachers


def resources_for(
    options: Options,
    cluster: str,
    nodes: Sequence[Mapping[str, float]],
    *,
    grows: bool = False,
    found_gpus: float | None = None,
) -> Resources:
    """What a trial gets on these nodes, and how many trials run at once. grows: whether there may
    be more of them later, and nobody can tell how many. found_gpus: of a trial, where that was
    measured."""
    from study.engine.cluster import fit

    resources = fit(
        cluster,
        nodes,
        gpus_per_trial=options.gpus if found_gpus is None else found_gpus,
        cpus_per_trial=options.cpus_per_trial,
        max_concurrent=options.max_concurrent,
        device=options.device,
        ranks=options.ranks,
        grows=grows,
    )
    if math.isfinite(options.max_gpu_hours) and not resources.gpus_per_trial:
        message = "GPU-hours cannot be counted: the trials run on CPUs"
        raise InputError(message, hint="use --time-budget", key="--max-gpu-hours")
    return resources


def ranked(prepared: Prepared, options: Options, resources: Resources) -> Resources:
    """The resources with the ranks that train a trial: one where a training of the user's own does.

    Raises:
        InputError: where such a training is to have ranks, or a batch is too small for them.
    """
    from study.training.ranks import check_ranks

    if isinstance(prepared.task.config, OwnTrainingTask):
        if options.ranks is not None:
            message = "a training of your own starts its ranks itself"
            raise InputError(message, hint="leave it out", key="--ranks")
        return replace(resources, ranks=1)
    record = prepared.first_line or prepared.state.study
    assert record is not None
    facts = [(prepared.task, record.data), (prepared.target, record.judged_data)]
    for task, data in facts:
        if task is not None and isinstance(task.config, TaskConfig):
            key = "--gpus-per-trial" if options.ranks is None else "--ranks"
            check_ranks(task.config, resources.ranks, int(data["num_images"]["train"]), key=key)
    return resources
