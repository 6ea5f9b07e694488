"""The losses of exports as files for other trainers: Python that needs torch alone, mmseg, smp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study.analysis.answer import Answer
from study.config.own_training import OwnTrainingTask
from study.config.task import FactoryData, TrialConfig, refuse_code
from study.core.errors import InputError
from study.core.files import write_text
from study.core.yaml_file import read_yaml
from study.ledger.state import State
from study.losses.config import AXES, FactoryLoss, LossConfig, MedianFrequency
from study.losses.standalone.equivalents import LIBRARIES, equivalent_source
from study.losses.standalone.source import StandaloneLoss, loss_source
from study.metrics import build_decision
from study.reporting.exports import data_of, export, wanted_exports

PYTHON = "python"
ENDINGS = {PYTHON: "loss", **{library: library for library in LIBRARIES}}
Faults = Callable[[InputError], InputError]


@dataclass(frozen=True)
class DataAccess:
    """How the data of an export are opened, where its class counts have to be counted anew.

    root: the folder that holds the files. trust: whether a factory that makes them may be imported.
    """

    root: Path | None = None
    trust: bool = False


@dataclass(frozen=True)
class _Exported:
    """An export, and what is known of its classes. file: its name, for messages."""

    file: str
    config: TrialConfig
    decision: tuple[float, tuple[float, ...]] | None
    origin: Mapping[str, Any]
    in_its_file: Faults
    class_names: tuple[str, ...] = ()
    class_counts: Any = None


def loss_files_of_study(
    exports: Path, out: Path, state: State, answer: Answer, library: str, access: DataAccess
) -> tuple[Path, ...]:
    """Write a file for each export of a study, below `out` as the exports are below `exports`.

    Args:
        library: a key of `ENDINGS`.

    Raises:
        InputError: for a loss without an equal; then nothing is written.
    """
    texts = {}
    for path, (_, source, rule) in wanted_exports(exports, answer).items():
        content = export(state, answer, source, rule)
        assert state.study is not None
        data = data_of(state.study, state.trials[content["provenance"]["trial"]])
        file = path.relative_to(exports)
        exported = _Exported(
            str(file),
            TrialConfig.model_validate({key: content[key] for key in TrialConfig.model_fields}),
            _rule(content),
            content["provenance"],
            _in(str(file)),
            tuple(data.get("class_names", ())),
            data.get("class_counts"),
        )
        texts[_beside(out / file, library)] = _text(exported, library, access)
    return _written(texts)


def loss_file_of_export(
    path: Path, out: Path, library: str, access: DataAccess
) -> tuple[Path, ...]:
    """Write the file of one export into the folder `out`. Raises InputError as above."""
    from study.inference.loading import read_about
    from study.training.config_file import read_config

    read = read_config(path, trust=True)  # which imports nothing yet
    names: tuple[str, ...] = ()
    if read.weights is not None and (path.parent / read.weights.file).is_file():
        names = read_about(path.parent / read.weights.file).class_names
    tree = read_yaml(path).data
    exported = _Exported(
        str(path),
        read.config,
        _rule(tree, path),
        tree.get("provenance") or {},
        read.in_its_file,
        names,
    )
    text = _text(exported, library, access)
    return _written({_beside(out / path.name, library): text})


def _in(file: str) -> Faults:
    def in_its_file(error: InputError) -> InputError:
        is_loss = str(error.key).startswith("loss/")
        return (error if is_loss else error.below("task")).of_file(file, {})

    return in_its_file


def _beside(export: Path, library: str) -> Path:
    return export.with_name(f"{export.stem}_{ENDINGS[library]}.py")


def _written(texts: Mapping[Path, str]) -> tuple[Path, ...]:
    for path, text in texts.items():
        write_text(path, text)
    return tuple(texts)


def _rule(
    tree: Mapping[str, Any], path: Path | None = None
) -> tuple[float, tuple[float, ...]] | None:
    rule = build_decision(tree if path is None else path)
    return (rule.tau, tuple(rule.log_prior)) if rule.log_prior else None


def _text(exported: _Exported, library: str, access: DataAccess) -> str:
    config = exported.config.loss
    if isinstance(config, FactoryLoss):
        message = f"the loss is code of your own, {config.factory}: there is nothing to write"
        raise exported.in_its_file(InputError(message, key="loss/factory"))
    num_classes = len(exported.class_names or (exported.decision or (0, ()))[1])
    counted = exported.class_counts is not None and not _per_image(config)
    if not num_classes or (_reads_counts(config) and not counted):
        exported = _counted(exported, access)
        num_classes = len(exported.class_names)
    loss = StandaloneLoss(
        config,
        num_classes,
        exported.class_names,
        exported.class_counts,
        exported.decision,
        exported.config.optimizer.lr_scale,
        _origin(exported),
    )
    try:
        return loss_source(loss) if library == PYTHON else equivalent_source(library, loss)
    except InputError as error:
        known = str(error.key).startswith("loss/")
        raise exported.in_its_file(error if known else error.below("loss")) from error
    except ValueError as error:
        raise exported.in_its_file(InputError(str(error), key="loss")) from error


def _reads_counts(config: LossConfig) -> bool:
    """Whether numbers of the loss come from pixel counts."""
    return any(axis.needs_counts(config) for axis in AXES.values())


def _per_image(config: Any) -> bool:
    return isinstance(config.class_weights, MedianFrequency)


def _counted(exported: _Exported, access: DataAccess) -> _Exported:
    """With the class names and counts of the data themselves."""
    from study.data import open_data

    if isinstance(exported.config.task, OwnTrainingTask):
        hint = "add classes: {names: [...], pixels: [...]} to the task, or export the whole study"
        error = InputError("the classes of the task are not known", hint=hint, key="classes")
        raise exported.in_its_file(error)
    data = exported.config.trained_here.data
    if isinstance(data, FactoryData) and exported.origin and not access.trust:
        try:
            refuse_code({"data/factory": data.factory}, "the export")
        except InputError as error:
            raise exported.in_its_file(error) from error
    try:
        found = open_data(data, data_root=access.root, begun=bool(exported.origin))
    except InputError as error:
        raise exported.in_its_file(error) from error
    recorded = (exported.origin.get("data") or {}).get("fingerprint")
    if recorded not in (None, found.fingerprint):
        raise InputError(
            "the data are not those of the export, and the numbers of its loss come from them",
            file=exported.file,
            key="provenance/data/fingerprint",
        )
    return replace(
        exported,
        class_names=tuple(found.class_names),
        class_counts=found.train.class_counts,
    )


def _origin(exported: _Exported) -> list[str]:
    """What the head of a file says of where its loss comes from."""
    origin = exported.origin
    if not {"study", "trial", "task"} <= origin.keys():
        return [f"From {Path(exported.file).name}."]
    confirmed = origin.get("confirmed") or {}
    seeds = len(confirmed.get("seeds", ()))
    judged = f"confirmed with {seeds} seeds" if seeds > 1 else "not confirmed with further seeds"
    return [
        f"From study {origin['study']} on task {origin['task']}, trial {origin['trial']} "
        f"({Path(exported.file).name}), {judged}."
    ]
