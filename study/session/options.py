"""The options of a study: one model for the flags of `study.run` and for `run_study`."""

from __future__ import annotations

import argparse
import math
import re
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from study.core.durations import seconds
from study.core.errors import InputError, shown
from study.core.names import MOST_RANKS
from study.core.validation import validate

if TYPE_CHECKING:
    from study.storage.studies import Storage

LEAST_FRACTION = 0.01  # of a CPU or a GPU; Ray counts in steps of 0.0001
AUTO = "auto"
COUNT_LIMIT = 10**18  # other numbers are counted up from these, in 64 bits


def _number(value: Any) -> Any:
    """Convert the text of a number, and a number of NumPy, to a number of Python."""
    if isinstance(value, str):
        try:
            return int(value) if re.fullmatch(r"[+-]?[0-9]+", value) else float(value)
        except ValueError:
            return value
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _duration(value: Any, info: ValidationInfo) -> Any:
    """Convert `90s`, `30m` and `2h` to seconds. A bare number is in seconds already."""
    if not isinstance(value, str) or not isinstance(_number(value), str):
        return _number(value)
    found = seconds(value)
    if found is None:
        rule = "must be a duration such as 90s, 30m or 2h, or a number of seconds"
        raise ValueError(f"{info.field_name} {rule}, got {value!r}")
    return found


def _below_limit(value: int, info: ValidationInfo) -> int:
    if value >= COUNT_LIMIT:
        raise ValueError(f"{info.field_name} must be below 10^18, got {value}")
    return value


def _few_enough(value: int) -> int:
    if value > 10**6:
        raise ValueError(f"num_trials must be at most 10^6, got {value}")
    return value


def _few_enough_seeds(value: int) -> int:
    if value > 10**4:
        raise ValueError(f"confirm_seeds must be at most 10^4, got {value}")
    return value


def _countable(value: float, info: ValidationInfo) -> float:
    if value != 0 and not value >= LEAST_FRACTION:
        raise ValueError(f"{info.field_name} must be 0 or at least {LEAST_FRACTION}, got {value:g}")
    return value


def _part_or_whole(value: float, info: ValidationInfo) -> float:
    if value > 1 and value != int(value):
        rule = f"must be 0, from {LEAST_FRACTION} to 1, or a whole number of GPUs"
        raise ValueError(f"{info.field_name} {rule}, got {value:g}")
    return value


def _gpus(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    return AUTO if isinstance(value, str) and value == AUTO else check(value)


def _few_enough_ranks(value: int) -> int:
    if value > MOST_RANKS:
        raise ValueError(f"ranks must be at most {MOST_RANKS}, got {value}")
    return value


def _known_device(value: str) -> str:
    if value not in ("gpu", "cpu"):
        raise ValueError(f"device must be gpu or cpu, got {value!r}")
    return value


def _not_empty(value: Any, info: ValidationInfo) -> Any:
    if value == "":
        raise ValueError(f"{info.field_name} must not be empty")
    return value


def _path(value: Any, info: ValidationInfo) -> str | Path:
    if not isinstance(value, (str, Path)):
        raise ValueError(f"{info.field_name} must be a path, got {shown(value)}")
    return value


def _folder(value: Any, info: ValidationInfo) -> Path | None:
    return None if value is None else Path(_not_empty(_path(value, info), info))


def _studies(value: Any, info: ValidationInfo) -> tuple[str, ...]:
    given = [value] if isinstance(value, (str, Path)) else value
    if not isinstance(given, Sequence) or not all(isinstance(one, (str, Path)) for one in given):
        rule = "must be names or paths of studies"
        raise ValueError(f"{info.field_name} {rule}, got {shown(value)}")
    names = tuple(str(_not_empty(one, info)) for one in given)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{info.field_name} names the study {name!r} twice")
    return names


def _space(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, (str, Path, Mapping)):
        return value
    rule = "must be a name, a path or a mapping"
    raise ValueError(f"{info.field_name} {rule}, got {_kind(value)}")


def _task(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, (str, Path, Mapping)):
        return value
    from study.config.task import NamedTask, Task

    if isinstance(value, Task):
        return NamedTask("custom", None, value)
    if isinstance(value, NamedTask):
        return value
    rule = "must be a name, a path, a mapping or a TaskConfig"
    raise ValueError(f"{info.field_name} {rule}, got {_kind(value)}")


def _confirm_task(value: Any, info: ValidationInfo) -> Any:
    return None if value is None else _task(value, info)


def _kind(value: Any) -> str:
    """A plain value as errors show it, and any other object by its class."""
    plain = type(value).__module__ == "builtins"
    return shown(value) if plain else f"a {type(value).__name__}"


def _option(default: Any, text: str, *, metavar: str | None = None) -> Any:
    """A field with its default, its text in `--help` and the name of its value there."""
    return Field(default, description=text, json_schema_extra={"metavar": metavar})


_Number = BeforeValidator(_number)
Count = Annotated[int, Field(ge=1), AfterValidator(_below_limit), _Number]
Seed = Annotated[int, Field(ge=0), AfterValidator(_below_limit), _Number]
Seconds = Annotated[float, Field(gt=0), BeforeValidator(_duration)]
Timeout = Annotated[float, Field(ge=1), BeforeValidator(_duration)]
Hours = Annotated[float, Field(ge=0), _Number]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False), _Number]
Cpus = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_countable), _Number]
Gpus = Annotated[Cpus, AfterValidator(_part_or_whole)]
Text = Annotated[str, AfterValidator(_not_empty)]
NotEmpty = AfterValidator(_not_empty)


class Options(BaseModel):
    """Where a study runs and how much it may use; hyperparameters are in the two YAML files.

    A number may also be given as text, and the time budget as a duration such as `30m`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    space: Annotated[Any, PlainValidator(_space), NotEmpty] = _option(
        "joint", "search space: a path or the name of a shipped file (default: joint)"
    )
    task: Annotated[Any, PlainValidator(_task), NotEmpty] = _option(
        "synthetic", "task: a path or the name of a shipped file (default: synthetic)"
    )
    data_root: Annotated[Path | None, PlainValidator(_folder)] = _option(
        None, "folder that holds the task's data", metavar="DIR"
    )
    confirm_task: Annotated[Any, PlainValidator(_confirm_task), NotEmpty] = _option(
        None,
        "confirm on this task, and search on --task, which is then a small proxy of it (default: "
        "as in the search space, else --task)",
        metavar="TASK",
    )
    confirm_data_root: Annotated[Path | None, PlainValidator(_folder)] = _option(
        None, "folder that holds the data of --confirm-task (default: --data-root)", metavar="DIR"
    )
    num_trials: Annotated[Count, AfterValidator(_few_enough)] | None = _option(
        None, "number of searched trials (default: as in the search space)", metavar="N"
    )
    confirm_seeds: Annotated[Count, AfterValidator(_few_enough_seeds)] | None = _option(
        None,
        "number of fresh seeds of each confirmed config (default: as in the search space, else 5 "
        "where trials get GPUs and 3 on CPUs)",
        metavar="N",
    )
    longer: Annotated[int, Field(ge=2, le=1000), _Number] | None = _option(
        None,
        "also train tuned cross entropy and the best other loss for N times the budget, on the "
        "same seeds; with --resume, a finished study too (default: as in the search space)",
        metavar="N",
    )
    ablate: bool = _option(
        False,
        "also train the best loss with each of its parts switched off, one at a time, on the same "
        "seeds; with --resume, a finished study too (default: as in the search space)",
    )
    warm_start: Annotated[tuple[str, ...], PlainValidator(_studies)] = _option(
        (),
        "earlier studies, by name or folder. The search model starts from their trials, even if "
        "their task and search space differ (default: as in the search space)",
        metavar="STUDY",
    )
    time_budget: Seconds = _option(
        math.inf,
        "end this session within this time, including exports and report: 30m, 2h. If time is "
        "short, searched trials are left out first, then baselines, then seeds. --resume continues "
        "the study",
        metavar="T",
    )
    max_gpu_hours: Hours = _option(
        math.inf,
        "limit the GPU-hours of training, summed over all sessions of the study",
        metavar="H",
    )
    price_per_gpu_hour: Price | None = _option(
        None,
        "price of a GPU-hour; the report then also says what the GPU-hours cost",
        metavar="PRICE",
    )
    device: Annotated[str, AfterValidator(_known_device)] | None = _option(
        None,
        "where trials train: on the gpu or on the cpu. With gpu they wait for a GPU and never use "
        "a CPU instead (default: a GPU if a node has one, else a CPU)",
        metavar="gpu|cpu",
    )
    gpus_per_trial: Annotated[Gpus | None, WrapValidator(_gpus)] = _option(
        None,
        "GPUs for each trial: 1; 0.5 if two trials fit into the memory of one GPU; 2 or more to "
        "split each batch over them; 0 to train on CPUs; auto to measure how many trials share a "
        "GPU (default: 1 if there is a GPU)",
        metavar="G",
    )
    ranks: Annotated[Count, AfterValidator(_few_enough_ranks)] | None = _option(
        None,
        "number of processes that split each batch of a trial, all on one node. Each gets its own "
        "GPU, or an equal part of the trial's CPUs (default: one for each GPU of a trial)",
        metavar="N",
    )
    cpus_per_trial: Cpus | None = _option(
        None, "CPUs for each trial, which is also its number of CPU threads", metavar="C"
    )
    max_concurrent: Count | None = _option(
        None,
        "run at most N trials at once. If the study joins a cluster that may grow (KubeRay, "
        "machines that run `ray start`), it plans for exactly N, because Ray cannot tell how far "
        "such a cluster grows",
        metavar="N",
    )
    address: Text | None = _option(
        None,
        "Ray cluster to join (default: the cluster running on this machine, else a new one)",
        metavar="HOST:PORT",
    )
    trial_timeout: Timeout | None = _option(
        None,
        "end a trial that gives no sign of life for this time, and try it again: 30m, 2h; inf for "
        "never (default: 10 times the median epoch, at least 10m, once an epoch was measured)",
        metavar="T",
    )
    storage: Annotated[str | Path, PlainValidator(_path), NotEmpty] = _option(
        "studies",
        "folder of all studies, or s3://BUCKET/PREFIX (default: ./studies)",
        metavar="DIR",
    )
    tracking_uri: Text | None = _option(
        None,
        "MLflow server or database (default: an SQLite file in the storage)",
        metavar="URI",
    )
    keep_checkpoints: bool = _option(
        False, "keep the last checkpoint of every trial, even after it has ended"
    )
    no_weights: bool = _option(
        False, "do not keep the weights of confirmed trainings; exports then have no weights"
    )
    name: Text | None = _option(None, "name of the new study (default: made from the two files)")
    seed: Seed = _option(0, "seed of proposals and trainings (default: 0)")

    _given_at: float = PrivateAttr(default_factory=time.monotonic)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Validate what a user gave. Raises InputError for the first option that is wrong."""
        for name in given:
            if name not in cls.model_fields:
                raise InputError.unknown("option", name, cls.model_fields)
        try:
            options = validate(cls, dict(given))
        except InputError as error:
            raise InputError(error.message, key=flag_of(str(error.key))) from error
        device, gpus = options.device, options.gpus
        if options.finds_gpus:
            options._check_gpus_are_open()
        if device is not None and gpus is not None and (device == "gpu") != (gpus > 0):
            message = f"device is {device}, and a trial gets {gpus:g} GPUs"
            raise InputError(message, hint="leave one out", key=flag_of("device"))
        if options.ranks is not None and gpus and options.ranks != max(1, gpus):
            message = f"each rank has a GPU of its own, got {options.ranks} ranks and {gpus:g} GPUs"
            raise InputError(message, hint="leave one out", key=flag_of("ranks"))
        _ = options.studies
        return options

    @property
    def finds_gpus(self) -> bool:
        """Whether the study finds out itself how many GPUs a trial gets."""
        given: object = self.gpus_per_trial
        return given == AUTO

    @property
    def gpus(self) -> float | None:
        """GPUs of a trial, where their number is given."""
        return None if self.finds_gpus else self.gpus_per_trial

    def _check_gpus_are_open(self) -> None:
        if self.device == "cpu":
            message = "device is cpu, and how many trials share a GPU is to be measured"
            raise InputError(message, hint="leave one out", key=flag_of("device"))
        if self.ranks is not None and self.ranks > 1:
            message = f"each rank has a GPU of its own, got {self.ranks} ranks and gpus_per_trial"
            raise InputError(f"{message} {AUTO}", hint="leave one out", key=flag_of("ranks"))

    @property
    def given_at(self) -> float:
        """When the options were given, by the monotonic clock. The time budget starts here."""
        return self._given_at

    @cached_property
    def studies(self) -> Storage:
        """The storage of the studies. Raises InputError for an address of an unknown kind."""
        from study.storage.studies import Storage

        return Storage.of(self.storage)


def flag_of(name: str) -> str:
    """How an option is spelled on the command line."""
    return "SPACE" if name == "space" else f"--{name.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every option. The values stay text; `Options.of` converts and checks them."""
    for name, field in Options.model_fields.items():
        if name == "space":
            parser.add_argument(name, nargs="?", help=field.description)
        elif field.annotation is bool:
            text = field.description
            parser.add_argument(flag_of(name), action="store_true", default=None, help=text)
        else:
            extra: Any = field.json_schema_extra
            parser.add_argument(
                flag_of(name),
                metavar=extra["metavar"],
                nargs="+" if isinstance(field.default, tuple) else None,
                help=field.description,
            )


def arguments_text() -> str:
    """The options as the `Args` of a docstring."""
    lines = ["    Args:"]
    for name, field in Options.model_fields.items():
        text = f"{name}: {field.description}"
        lines += textwrap.wrap(text, 96, initial_indent=" " * 8, subsequent_indent=" " * 12)
    return "\n".join(lines)


@contextmanager
def argument_names() -> Iterator[None]:
    """Name options in errors as Python does (`num_trials`) instead of by flag (`--num-trials`)."""
    names = {flag_of(name): name for name in Options.model_fields}
    try:
        yield
    except InputError as error:
        if error.key not in names:
            raise
        raise InputError(error.message, file=error.file, key=names[error.key]) from error
