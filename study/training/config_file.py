"""The file of one training: a config, or an export with its rule, weights and provenance."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator

from study.config.task import NamedTask, TrialConfig, load_task, refuse_code
from study.core.errors import InputError
from study.core.names import TAU_MACC, TAU_MIOU, VAL
from study.core.yaml_file import read_yaml, validate
from study.losses.config import LossConfig, WeightsTeacher
from study.training.provenance import Provenance

DECISION, WEIGHTS, PROVENANCE = "decision", "weights", "provenance"
BESIDE = (DECISION, WEIGHTS)  # what an export holds for after the training


class Weights(BaseModel):
    """The weights beside an export."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: str
    sha256: str

    @field_validator("file")
    @classmethod
    def _is_beside_the_export(cls, file: str) -> str:
        if file in ("", ".", "..") or "/" in file or "\\" in file:
            raise ValueError(f"file must be the name of a file beside the export, got {file!r}")
        return file


@dataclass(frozen=True)
class ConfigFile:
    """What is in such a file.

    tau: which metric of the training is the strength of its rule. in_its_file: adds file and line
    to an error about the config.
    """

    config: TrialConfig
    provenance: Provenance | None
    weights: Weights | None
    tau: str
    in_its_file: Callable[[InputError], InputError]


def read_config(path: Path, *, seed: int | None = None, trust: bool = False) -> ConfigFile:
    """Read the file.

    Args:
        path: of the file.
        seed: instead of the file's own.
        trust: whether factories that an export names may be imported.

    Raises:
        InputError: with the file, the line and the key of the first fault; also for an export that
            names a factory, unless you `trust` it.
    """
    file = read_yaml(path)
    tree = dict(file.data)
    is_export = any(key in tree for key in (PROVENANCE, *BESIDE))
    origin, decision, weights = (tree.pop(key, None) for key in (PROVENANCE, *BESIDE))
    provenance = beside = None
    if origin is not None:
        provenance = validate(Provenance, origin, file=path, lines=file.lines, root=PROVENANCE)
    if weights is not None:
        beside = validate(Weights, weights, file=path, lines=file.lines, root=WEIGHTS)
    named: NamedTask | None = None
    if isinstance(tree.get("task"), str):
        try:
            named = load_task(tree["task"])
        except InputError as error:
            raise error.of_file(str(path), file.lines) from error
        tree["task"] = named.config
    if seed is not None:
        tree["seed"] = seed

    def in_its_file(error: InputError) -> InputError:
        if str(error.key).partition("/")[0] == "loss":
            return error.of_file(str(path), file.lines)
        if named is not None:
            return error.of_file(named.file, named.lines)
        return error.below("task").of_file(str(path), file.lines)

    config = validate(TrialConfig, tree, file=path, lines=file.lines)
    config = _with_teacher_beside(config, path.parent)
    if is_export and not trust:
        try:
            refuse_code(config.factories, "an export")
        except InputError as error:
            raise in_its_file(error) from error
    return ConfigFile(config, provenance, beside, _tau(decision, provenance), in_its_file)


def _with_teacher_beside(config: TrialConfig, folder: Path) -> TrialConfig:
    """The config with the place of its teacher's weights, which it names as seen from its folder;
    those that are not there may be beside it."""
    loss = config.loss
    if not isinstance(loss, LossConfig) or not isinstance(loss.teacher, WeightsTeacher):
        return config
    named = folder.absolute() / loss.teacher.weights  # which an absolute path replaces
    beside = folder.absolute() / named.name
    place = beside if beside.is_file() and not named.is_file() else named
    found = loss.teacher.model_copy(update={"weights": os.path.normpath(place)})
    return config.model_copy(update={"loss": loss.taught_by(found)})


def _tau(decision: object, provenance: Provenance | None) -> str:
    """`tau_macc` where an export's rule is at that tau and not at the other."""
    if provenance is None or not isinstance(decision, Mapping):
        return TAU_MIOU
    miou, macc = (provenance.metrics.get(f"{VAL}/{tau}") for tau in (TAU_MIOU, TAU_MACC))
    return TAU_MACC if decision.get("tau") == macc != miou else TAU_MIOU
