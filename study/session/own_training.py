"""Checks a task whose trials are a training of the user's own, before a study starts."""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from study.config.own_training import CommandTrial, FunctionTrial, OwnTrainingTask
from study.config.task import refuse_distillation
from study.core.errors import InputError
from study.losses.config import FactoryLoss, LossConfig, MedianFrequency
from study.space.search_space import SearchSpace

OF_A_SHELL = ("cd", "source", ".", "export", "set", "module", "alias", "eval", "exec", "ulimit")
LARGEST_FILE = 2**20  # bytes of a file of code or settings
MOST_FILES = 200
DIGITS = 16  # of a digest
UNUSED = {  # what follows where a command lacks a placeholder
    "seed": "the command has no {seed}: where it always seeds itself alike, trainings of a config "
    "are equal, and intervals over seeds say nothing",
    "lr_scale": "the command has no {lr_scale}: the learning rate of cross entropy is not tuned, "
    "nor that of any loss",
}


def with_objectives(space: SearchSpace, task: object) -> SearchSpace:
    """The space with the objectives of the task, where that names some."""
    if not isinstance(task, OwnTrainingTask) or task.objectives is None:
        return space
    settings = space.settings.model_copy(update={"objectives": task.objectives})
    return replace(space, settings=settings)


def check(space: SearchSpace, task: OwnTrainingTask) -> None:
    """Refuse a function or a program that is not there, and losses that do not fit the classes.

    Raises:
        InputError: with the key of the task or of the space.
    """
    check_begins(task)
    if isinstance(task.trial, CommandTrial):
        _check_reports(task.trial)
        if "loss_python" in task.trial.placeholders:
            _check_written(space, task)
    space.check(refuse_distillation)
    for name in space.settings.baseline_names:
        refuse_distillation(space.settings.baseline_loss(name))
    if task.classes is not None:
        space.check(lambda loss: _fits(loss, task))


def check_begins(task: OwnTrainingTask) -> None:
    """Refuse a function or a program that is not there, or no more."""
    if isinstance(task.trial, FunctionTrial):
        from study.trials.function import load_function

        load_function(task.trial)
    else:
        _check_command(task.trial)


def _check_command(trial: CommandTrial) -> None:
    program, *words = trial.words
    folder = Path(trial.cwd or ".").absolute()
    if not folder.is_dir():
        raise InputError(f"no folder {trial.cwd!r} to run in", key="trial/cwd")
    place = str(folder / program) if os.sep in program else program
    if "{" not in program and shutil.which(place) is None:
        raise InputError(
            f"no program {program!r} to run", hint=_without_a_shell(program), key="trial/command"
        )
    for word in words[:1]:
        if word.endswith(".py") and "{" not in word and not (folder / word).is_file():
            raise InputError(f"no file {word!r} in {folder}", key="trial/command")


def _check_reports(trial: CommandTrial) -> None:
    """Refuse reports outside of the trial's folder; ledgers of before hold such paths."""
    for name in ("csv", "jsonl"):
        path = getattr(trial.reports, name, "")
        if os.path.isabs(path) or ".." in Path(path).parts:
            raise InputError(
                f"{name} must be a path in the trial's own folder, got {path!r}: trials may run at "
                "once",
                hint="let the command write below {folder}",
                key=f"trial/reports/{name}",
            )


def _without_a_shell(program: str) -> str:
    """What to do where a program is a word that a shell alone knows."""
    name, sign, value = program.partition("=")
    if sign and name.isidentifier():
        return f"write env: {{{name}: {value!r}}} beside the command"
    if program in OF_A_SHELL:
        return "a command has no shell; for one write bash -c '...'"
    return "write the whole path" if program.startswith("~") else ""


def _check_written(space: SearchSpace, task: OwnTrainingTask) -> None:
    if task.classes is None:
        hint = "add classes: {names: [...], pixels: [...]}"
        raise InputError("{loss_python} needs the classes of the task", hint=hint, key="classes")
    for place, loss in space.settings.own_baselines.items():
        if isinstance(loss, FactoryLoss):
            message = f"{{loss_python}} cannot hold a loss of your own: {place} of the baselines"
            raise InputError(message, hint="use {loss_file}", key="trial/command")


def _fits(loss: LossConfig | FactoryLoss, task: OwnTrainingTask) -> None:
    import torch

    from study.losses.own import build_any_loss

    assert task.classes is not None
    pixels = task.classes.pixels
    build_any_loss(
        loss,
        num_classes=len(task.classes.names),
        # counts of single images, which some schemes take, are known to the training alone
        class_counts=torch.tensor([pixels or [1.0] * len(task.classes.names)]),
        ignore_index=task.classes.ignore,
    )


def both(task: object, target: object) -> tuple[OwnTrainingTask, OwnTrainingTask]:
    """A task and its target, which must be of one kind."""
    if isinstance(task, OwnTrainingTask) and isinstance(target, OwnTrainingTask):
        return task, target
    raise InputError(
        "a target must be trained as its proxy is: both by this package, or both by a training of "
        "your own",
        key="trial" if isinstance(target, OwnTrainingTask) else "data",
    )


def code(task: OwnTrainingTask) -> dict[str, str]:
    """The digest of each file of the training, by its path from here: those that a command names,
    or that of the function, and the Python files beside them. What they import from elsewhere is
    not among them."""
    if isinstance(task.trial, FunctionTrial):
        from study.trials.function import load_function

        try:
            named = [Path(inspect.getfile(inspect.unwrap(load_function(task.trial))))]
        except TypeError:  # of a callable object or a builtin
            return {}
    else:
        folder = Path(task.trial.cwd or ".")
        named = [folder / word for word in task.trial.words[1:] if "{" not in word]
    files = [file.absolute() for file in named if file.is_file()]
    beside = [one for file in files if file.suffix == ".py" for one in file.parent.glob("*.py")]
    found = {}
    for file in [*files, *sorted(beside)[:MOST_FILES]]:
        with suppress(OSError):
            if file.stat().st_size <= LARGEST_FILE:
                name = os.path.relpath(file)
                found[name] = hashlib.sha256(file.read_bytes()).hexdigest()[:DIGITS]
    return found


def changes(task: OwnTrainingTask, recorded: Sequence[str]) -> tuple[str, ...]:
    """A line where files of the training are not those that the ledger recorded."""
    now = code(task)
    then = {name: digest for digest, _, name in (line.partition(" ") for line in recorded)}
    kinds = {
        "changed": [name for name in then if name in now and now[name] != then[name]],
        "gone": [name for name in then if name not in now],
    }
    found = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
    if not found:
        return ()
    return (
        f"the training is not the one that the study began with ({found}): its trials from before "
        "and those from now may not be comparable",
    )


def facts(task: OwnTrainingTask, space: SearchSpace) -> dict[str, Any]:
    """What a ledger says of a task whose data the study does not see."""
    found: dict[str, Any] = {
        "fingerprint": task.fingerprint,
        "code": [f"{digest} {name}" for name, digest in code(task).items()],
        "warnings": warnings(task, space),
    }
    if task.classes is not None:
        found["class_names"] = list(task.classes.names)
        if task.classes.pixels is not None:
            total = sum(task.classes.pixels)
            found["class_counts"] = list(task.classes.pixels)
            found["class_fraction"] = [round(one / total, 8) for one in task.classes.pixels]
    return found


def warnings(task: OwnTrainingTask, space: SearchSpace) -> list[str]:
    """What a study cannot do for such a task."""
    found = ["the study does not see the data: that all trials have the same is up to the training"]
    tuned = task.objectives is None and (task.classes is None or task.classes.pixels is None)
    if tuned or (task.objectives is None and isinstance(task.trial, CommandTrial)):
        found.append(
            "the space's objectives are measured at tuned decision rules, which the training must "
            "report, as context.metrics() does with classes/pixels; else add objectives: [val/miou]"
        )
    baselines = map(space.settings.baseline_loss, space.settings.baseline_names)
    if any(_counts_images(loss) for loss in (*baselines, *(one.loss for one in space.corners))):
        found.append(
            "median_frequency is made from the pixels of each image, (images, C): its trials fail "
            "unless the training gives such class_counts to the loss"
        )
    if isinstance(task.trial, CommandTrial):
        found += [why for name, why in UNUSED.items() if name not in task.trial.placeholders]
    if task.classes is None:
        found.append("the task names no classes: no class tables, and losses are checked in trials")
    return found


def _counts_images(loss: LossConfig | FactoryLoss) -> bool:
    return isinstance(loss, LossConfig) and isinstance(loss.class_weights, MedianFrequency)
