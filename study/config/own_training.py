"""A task whose trials are a training of the user's own: a function, or a command."""

from __future__ import annotations

import hashlib
import json
import shlex
import string
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Strict, Tag, field_validator

from study.config.budget import Budgeted, EpochBudget
from study.core.names import VAL
from study.losses.config import Config

PLACEHOLDERS = {
    "loss_file": "the loss as YAML",
    "loss_python": "the loss as a Python file that needs torch alone",
    "seed": "the seed of the trial",
    "lr_scale": "the factor on your learning rate",
    "epochs": "the epochs of the full budget",
    "folder": "the trial's own folder",
    "stop_file": "a file that appears when the trial is to stop",
    "test": "1 in a confirmation, which must report test metrics, too; else 0",
    "threads": "its CPU threads",
}
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Strict(False)]


class Classes(Config):
    """The classes that the training predicts.

    names: in the order of the labels. pixels: how often each occurs in the training images, which
    class weights and decision rules are made from. ignore: the label of pixels that do not count.
    """

    names: Names = Field(min_length=2, max_length=254)
    pixels: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Strict(False)] | None = None
    ignore: int = Field(255, ge=-(2**31), lt=2**31)

    @field_validator("names")
    @classmethod
    def _each_name_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"names must be different, got {name!r} twice")
        return names

    @field_validator("pixels")
    @classmethod
    def _one_number_for_each(cls, pixels: tuple[float, ...] | None, info: Any) -> Any:
        names = info.data.get("names", ())
        if pixels is not None and names and len(pixels) != len(names):
            raise ValueError(
                f"pixels must be one number for each name, {len(names)}, got {len(pixels)}"
            )
        if pixels is not None and not sum(pixels):
            raise ValueError("pixels must not all be 0")
        return pixels


class FunctionTrial(Config):
    """`package.module:function`, called with a `study.trials.TrialContext` and the kwargs."""

    function: str
    kwargs: dict[str, Any] = Field(default_factory=dict)


class CsvReports(Config):
    """A CSV file in which the command adds a row for each epoch.

    csv: its path, in the trial's folder. epoch: the column of the epoch. columns: the column of
    each metric, such as `val/miou: "metrics/mIoU"`.
    """

    csv: str = Field(min_length=1)
    epoch: str = "epoch"
    columns: dict[str, str] = Field(min_length=1)


class LineReports(Config):
    """A file of JSON lines, such as `{"epoch": 3, "val/miou": 0.41}`. jsonl: its path, in the
    trial's folder."""

    jsonl: str = Field(min_length=1)


def _reports_tag(value: Any) -> str:
    if isinstance(value, str):
        return "stdout"
    has = "csv" in value if isinstance(value, dict) else isinstance(value, CsvReports)
    return "csv" if has else "jsonl"


Reports = Annotated[
    Annotated[Literal["stdout"], Tag("stdout")]
    | Annotated[LineReports, Tag("jsonl")]
    | Annotated[CsvReports, Tag("csv")],
    Discriminator(_reports_tag),
]


class CommandTrial(Config):
    """A command line, which is run without a shell.

    command: with placeholders such as `{loss_file}`. reports: where it writes an epoch's metrics:
    JSON lines among its output, such as `{"epoch": 3, "val/miou": 0.41}`, a file of such lines, or
    a CSV file. first_epoch: the number that it gives its first epoch. grace_s: seconds between
    stop file, SIGTERM and SIGKILL. env: environment variables to add. cwd: the folder that it runs
    in, in place of the trial's own; relative paths are then from there.
    """

    command: str = Field(min_length=1)
    reports: Reports = "stdout"
    first_epoch: Literal[0, 1] = 1
    grace_s: float = Field(10.0, ge=0, le=3600)
    env: dict[str, str] = Field(default_factory=dict)
    cwd: str | None = Field(None, min_length=1)

    @property
    def placeholders(self) -> set[str]:
        """The names of those that the command has."""
        return {name for _, name, _, _ in string.Formatter().parse(self.command) if name}

    @property
    def words(self) -> list[str]:
        """The words of the command line."""
        return shlex.split(self.command)

    @field_validator("command")
    @classmethod
    def _a_command_line(cls, command: str) -> str:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"command must be a command line: {error}") from error
        if not words:
            raise ValueError("command must name a program")
        try:
            found = [name for _, name, _, _ in string.Formatter().parse(command)]
        except ValueError as error:
            message = f"command must be text with placeholders: {error}; a brace is written {{{{"
            raise ValueError(message) from error
        for name in found:
            if name is not None and name not in PLACEHOLDERS:
                known = ", ".join(PLACEHOLDERS)
                raise ValueError(
                    f"command has the unknown placeholder {{{name}}} (known: {known}); a brace "
                    "that is meant is written {{"
                )
        try:
            command.format(**dict.fromkeys(PLACEHOLDERS, ""))
        except ValueError as error:
            raise ValueError(f"command has a placeholder with a wrong format: {error}") from error
        if "loss_file" not in found and "loss_python" not in found:
            raise ValueError(
                "command must have {loss_file} or {loss_python}: without, all trials would train "
                "the same loss"
            )
        return command


def _trial(value: Any) -> Any:
    return {"function": value} if isinstance(value, str) else value


def _trial_tag(value: Any) -> str:
    has = "command" in value if isinstance(value, dict) else isinstance(value, CommandTrial)
    return "command" if has else "function"


Trial = Annotated[
    Annotated[FunctionTrial, Tag("function")] | Annotated[CommandTrial, Tag("command")],
    Discriminator(_trial_tag),
    BeforeValidator(_trial),
]


class OwnTrainingTask(Budgeted):
    """A training of the user's own, its budget, and what a study should know of it.

    trial: `package.module:function`, or `{command: ...}`. classes: with them the losses are checked
    before the study begins, and the report has class tables. objectives: in place of the space's,
    where the training does not measure those: metrics in 0..1 of which more is better.
    """

    trial: Trial
    budget: EpochBudget
    classes: Classes | None = None
    objectives: Names | None = None
    asks_teachers: ClassVar[bool] = False  # whether a distilled loss may be trained

    @field_validator("objectives")
    @classmethod
    def _measured_on_val(cls, objectives: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if objectives is None:
            return None
        if not objectives:
            raise ValueError("objectives must not be empty")
        for name in objectives:
            if not name.startswith(f"{VAL}/"):
                raise ValueError(f"objectives must be measured on val, as val/miou, got {name!r}")
            if objectives.count(name) > 1:
                raise ValueError(f"objectives must be different, got {name!r} twice")
        return objectives

    @property
    def fingerprint(self) -> str:
        """Tells two trainings apart by what they run; their data are not seen."""
        tree = self.model_dump(mode="json", include={"trial", "classes"})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    @property
    def trained_by(self) -> str:
        """The function, or the program and its script, in words."""
        if isinstance(self.trial, FunctionTrial):
            return f"the function {self.trial.function}"
        return f"the command {' '.join(self.trial.words[:2])} ..."

    @property
    def if_interrupted(self) -> str:
        """What becomes of an interrupted trial, in words."""
        if isinstance(self.trial, FunctionTrial):
            return "an interrupted trial starts again, unless it calls context.resume"
        return "an interrupted trial starts again, in its own folder"

    @property
    def factories(self) -> dict[str, str]:
        """The function or the command."""
        if isinstance(self.trial, FunctionTrial):
            return {"trial/function": self.trial.function}
        return {"trial/command": self.trial.command}
