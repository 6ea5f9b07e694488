"""The teachers that a study's losses name: found in the space, checked, recorded in the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.config.own_training import OwnTrainingTask
from study.config.task import FileData, Task, TaskConfig, load_task, refuse_code, task_of
from study.core.errors import InputError
from study.losses.config import (
    ExportTeacher,
    FactoryLoss,
    FactoryTeacher,
    LossConfig,
    TaskTeacher,
    Teacher,
    WeightsTeacher,
)
from study.scheduler.teachers import Teachers
from study.session.roots import with_root
from study.space.search_space import SearchSpace

if TYPE_CHECKING:
    from study.data import SegmentationData

DEFAULT = "study/teacher"  # the key of the teacher of all losses that name none
TASKS, EXPORTS, COSTS = "tasks", "exports", "costs"  # of `teachers` in a ledger's first line


@dataclass(frozen=True)
class Found:
    """A teacher and the key at which a space names it."""

    key: str
    teacher: Teacher


def study_teachers(space: SearchSpace, task: Task, data_root: Path | None = None) -> Teachers:
    """The teachers of a new study. data_root: where the data of teachers' tasks are, if they read
    files.

    Raises:
        InputError: at its line of the space, for a teacher that is not there, or not given.
    """
    tasks: dict[str, TaskConfig] = {}
    exports: dict[str, WeightsTeacher] = {}
    if isinstance(task, OwnTrainingTask):
        return Teachers()  # its distilled losses are refused
    named = list(_named(space))
    if space.settings.teacher is not None and all(one.key != DEFAULT for one in named):
        raise InputError(
            "no loss of the study learns from it",
            hint="leave it out, or add `distillation: {}` to the loss, or kd to the baselines",
            key=DEFAULT,
        ).of_file(space.file, space.lines)
    for found in named:
        try:
            match found.teacher:
                case TaskTeacher(task=name) if name not in tasks:
                    tasks[name] = _task(name, found.key, data_root)
                case ExportTeacher(export=path) if path not in exports:
                    exports[path] = _export(found)
        except InputError as error:
            raise error.of_file(space.file, space.lines) from error
    return Teachers(space.settings.teacher, tasks, exports)


def _named(space: SearchSpace) -> Iterator[Found]:
    """Every teacher that a loss of the space or a baseline names."""
    settings = space.settings
    losses: list[tuple[str, LossConfig | FactoryLoss]] = [
        ("loss", corner.loss) for corner in space.corners
    ]
    for place, own in settings.own_baselines.items():
        losses.append((f"study/baselines/{place}/loss", own))
    losses += [(DEFAULT, settings.baseline_loss(name)) for name in settings.baseline_names]
    for key, loss in losses:
        if isinstance(loss, FactoryLoss) or loss.distillation is None:
            continue
        if loss.distillation.teacher is not None:
            yield Found(f"{key}/distillation/teacher", loss.distillation.teacher)
        elif settings.teacher is not None:
            yield Found(DEFAULT, settings.teacher)
        else:
            raise InputError(
                "missing required key 'teacher': a loss of the study is distilled",
                hint="add one, as {export: FILE.yaml}, {task: NAME} or {factory: package.module:"
                "function}",
                key=DEFAULT,
            ).of_file(space.file, space.lines)


def refuse_new(space: SearchSpace, teachers: Teachers) -> None:
    """Raise InputError where a space that a study is to search from now on names a teacher that the
    study has not."""
    for found in _named(space):
        match found.teacher:
            case TaskTeacher(task=name):
                is_known = name in teachers.tasks
            case ExportTeacher(export=name):
                is_known = name in teachers.exports
            case _:
                continue
        if not is_known:
            known = ", ".join([*teachers.tasks, *teachers.exports]) or "none"
            error = InputError(f"a study keeps its teachers ({known}), got {name}", key=found.key)
            raise error.of_file(space.file, space.lines)


def _task(name: str, key: str, data_root: Path | None) -> TaskConfig:
    try:
        config = load_task(name).config
    except InputError as error:
        if error.key != "task":
            raise
        raise InputError(error.message, key=f"{key}/task") from error
    if isinstance(config, OwnTrainingTask):
        message = "a teacher's task must be trained by this package, got one with a `trial`"
        raise InputError(message, key=f"{key}/task")
    return _here(config, data_root)


def _here(task: Task, data_root: Path | None) -> TaskConfig:
    """The task with the place of its data, if it reads files."""
    reads = isinstance(task, TaskConfig) and isinstance(task.data, FileData)
    moved = with_root(task, data_root if reads else None)
    assert isinstance(moved, TaskConfig)
    return moved


def _export(found: Found) -> WeightsTeacher:
    from study.training.teachers import resolved

    assert isinstance(found.teacher, ExportTeacher)
    teacher = resolved(found.teacher, trust=True, key=found.key)  # which imports nothing
    if "factory" in teacher.model:
        raise InputError(
            f"the network of the export is code that would be run: {teacher.model['factory']}",
            hint="if you trust it, give it as {factory: ...}, a function that loads its weights",
            key=f"{found.key}/export",
        )
    return teacher


def check(
    space: SearchSpace,
    teachers: Teachers,
    task: TaskConfig,
    own: SegmentationData,
    target: SegmentationData | None = None,
) -> tuple[dict[str, float], list[str]]:
    """Check that the teachers fit the data that students are trained on, and what is trained of
    them.

    task, own: of the study, and its data. target: likewise, if there is one.

    Returns:
        How many trials of the study's task are the work of each teacher's training, by its task,
        in multiplications of a forward pass; and warnings.

    Raises:
        InputError: at its line of the space, for a teacher of other classes or another
            normalisation, and for a task that cannot be trained.
    """
    from study.data import open_data
    from study.training.models import check_task, work_of_training
    from study.training.teachers import check_fits, open_teacher

    warnings: list[str] = []
    costs: dict[str, float] = {}
    data = [own] if target is None else [own, target]
    own_work = work_of_training(task, own) if teachers.tasks else 1.0
    checked: set[str] = set()
    for found in _named(space):
        if str(found.teacher) in checked:
            continue
        checked.add(str(found.teacher))
        try:
            if not isinstance(found.teacher, TaskTeacher):
                given = found.teacher
                if isinstance(given, ExportTeacher):
                    given = teachers.exports[given.export]
                for one in data:
                    open_teacher(given, one, key=found.key)
                continue
            name = found.teacher.task
            larger = teachers.tasks[name]
            theirs = open_data(larger.data, begun=True)
            for one in data:
                check_fits(theirs, one, name, found.key)
                warnings += _leaks(name, theirs, one)
            try:
                check_task(larger, theirs.num_classes, theirs.train.images.shape[1:3])
            except InputError as error:
                raise InputError(
                    f"the teacher {name}: {error.message}", key=f"{found.key}/task"
                ) from error
            costs[name] = work_of_training(larger, theirs) / own_work
        except InputError as error:
            raise error.of_file(space.file, space.lines) from error
    return costs, warnings


def _leaks(name: str, own: SegmentationData, data: SegmentationData) -> Iterator[str]:
    """Warn of a teacher that learns from images on which its students are judged."""
    if own.name != data.name:
        return
    judged = {*data.val.names, *data.test.names}
    seen = len(judged.intersection(own.train.names))
    if seen and own.rule:  # generated images have names of no meaning
        yield (
            f"the teacher {name} is trained on {seen} images that are val or test here: what its "
            "students gain on them is no gain"
        )


def record(teachers: Teachers, costs: Mapping[str, float]) -> dict[str, Any] | None:
    """What the first line of a ledger says of the teachers; None where there are none."""
    if not teachers.tasks and not teachers.exports:
        return None
    return {
        TASKS: {name: task.model_dump() for name, task in teachers.tasks.items()},
        EXPORTS: {path: one.model_dump() for path, one in teachers.exports.items()},
        COSTS: dict(costs),
    }


def recorded(
    space: SearchSpace, tree: Mapping[str, Any] | None, data_root: Path | None
) -> Teachers:
    """The teachers of a study that is resumed; its data may have moved."""
    tree = tree or {TASKS: {}, EXPORTS: {}}
    tasks = {}
    for name, one in tree[TASKS].items():
        tasks[name] = _here(task_of(one), data_root)
    exports = {path: WeightsTeacher.model_validate(one) for path, one in tree[EXPORTS].items()}
    return Teachers(space.settings.teacher, tasks, exports)


def factories(space: SearchSpace, teachers: Teachers) -> dict[str, str]:
    """The code that the teachers of a study name, by its keys."""
    found = {
        f"teachers/tasks/{name}/{key}": code
        for name, task in teachers.tasks.items()
        for key, code in task.factories.items()
    }
    for path, one in teachers.exports.items():
        if "factory" in one.model:
            found[f"teachers/exports/{path}/model/factory"] = str(one.model["factory"])
    for named in _named(space):
        if isinstance(named.teacher, FactoryTeacher):
            found[f"space/{named.key}/factory"] = named.teacher.factory
    return found


def refuse_untrusted(space: SearchSpace, teachers: Teachers, ledger: Path) -> None:
    """Raise InputError for a ledger whose teachers are code."""
    refuse_code(factories(space, teachers), "a ledger", file=ledger, line=1)


def lines(teachers: Teachers, tree: Mapping[str, Any] | None) -> list[str]:
    """The plan's lines about the tasks that are trained first. tree: what `record` made."""
    costs = (tree or {}).get(COSTS, {})
    found = []
    for name, task in teachers.tasks.items():
        epochs = task.num_epochs
        cost = f", about the work of {costs[name]:.2g} trials" if name in costs else ""
        found.append(
            f"teacher, trained first: {name} with cross entropy, {epochs} "
            f"epoch{'s' * (epochs != 1)}{cost}"
        )
    return found
