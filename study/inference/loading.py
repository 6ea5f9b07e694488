"""Opens an export of a study as a network that is ready to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from study.config.task import FileData, SyntheticData, TaskConfig
from study.core.errors import InputError
from study.data.splits import default_palette
from study.inference.predictor import Predictor
from study.metrics import build_decision
from study.training.exported import (
    read_about,
    read_exported,
    trained_model,
    weights_content,
)


def load(
    export: str | Path, *, device: str | torch.device = "cpu", trust: bool = False
) -> Predictor:
    """Open an export: its network with the trained weights, normalisation and decision rule.

    Args:
        export: the path of an export, such as ``exports/best_miou.yaml``, with its weights beside
            it.
        device: of the network.
        trust: import a model factory that the export names; without it such an export is refused.

    Returns:
        A module in eval mode: ``predictor(images)`` gives classes, ``predictor.predict(picture)``
        those of a file of any size.

    Raises:
        InputError: for an export that cannot be read or has no weights. Also for weights that the
            export does not name, or that do not fit its model.
    """
    path = Path(export)
    exported = read_exported(path, trust=trust)
    read, file = exported.read, exported.file
    content = weights_content(file, exported.sha256)
    about = read_about(file)
    try:
        task = read.config.trained_here
    except InputError as error:
        raise read.in_its_file(error) from error
    num_classes = len(about.class_names)
    decision = build_decision(path)
    known = len(decision.log_prior)
    if known not in (0, num_classes):
        message = f"the rule is for {known} classes, the weights are for {num_classes}"
        raise InputError(message, file=path, key="decision/log_prior")
    try:
        model = trained_model(task.model, num_classes, content, file)
    except InputError as error:
        raise (error if error.file else read.in_its_file(error)) from error
    size, fit = _frame(task)
    palette: Any = about.palette
    if palette is None or len(palette) != num_classes:
        palette = default_palette(num_classes)
    return Predictor(
        model,
        decision,
        class_names=about.class_names,
        palette=palette,
        mean=about.mean,
        std=about.std,
        size=size,
        fit=fit,
    ).to(device)


def _frame(task: TaskConfig) -> tuple[tuple[int, int] | None, Any]:
    """The size that the network's images have, and how they were brought to it."""
    if isinstance(task.data, FileData):
        return task.data.size, task.data.fit
    if isinstance(task.data, SyntheticData):
        return task.data.size, "stretch"
    return None, "stretch"
