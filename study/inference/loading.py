"""Opens an export of a study as a network that is ready to use."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, Strict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as read_tensors

from study.config.task import FileData, SmpModel, SyntheticData, TaskConfig
from study.core.errors import InputError
from study.core.validation import validate
from study.data.splits import default_palette
from study.inference.predictor import Predictor
from study.metrics import build_decision
from study.training.config_file import read_config
from study.training.models import build_model
from study.training.weights import METADATA

Three = Annotated[tuple[float, float, float], Strict(False)]
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = Annotated[tuple[Byte, Byte, Byte], Strict(False)]


class About(BaseModel):
    """What a file of weights says of its data."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    class_names: Annotated[tuple[str, ...], Strict(False)] = Field(min_length=1, max_length=255)
    mean: Three
    std: Three
    palette: Annotated[tuple[Colour, ...], Strict(False)] | None = None


def load(
    export: str | Path, *, device: str | torch.device = "cpu", trust: bool = False
) -> Predictor:
    """Open an export: its network with the trained weights, normalisation and decision rule.

    Args:
        export: the path of an export, such as ``exports/best_miou.yaml``, with its weights beside
            it.
        device: where the network is put.
        trust: whether a model factory that the export names may be imported; else it is refused.

    Returns:
        A module in eval mode: ``predictor(images)`` gives classes, ``predictor.predict(picture)``
        those of a file of any size.

    Raises:
        InputError: for an export that cannot be read or has no weights, and for weights that are
            not those that it names or do not fit its model.
    """
    path = Path(export)
    read = read_config(path, trust=trust)
    if read.weights is None:
        raise InputError(
            "the export has no weights",
            hint=f"`python -m study.train {shlex.quote(str(path))} --out DIR` trains them",
            file=path,
            key="weights",
        )
    file = path.parent / read.weights.file
    content = _content(file, path, read.weights.sha256)
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
        with torch.random.fork_rng(devices=[]):  # the random weights are replaced
            model = build_model(_without_download(task), num_classes)
    except InputError as error:
        raise read.in_its_file(error) from error
    try:
        model.load_state_dict(read_tensors(content))
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).split("\n")[-1].strip()
        raise InputError(
            f"the weights do not fit the export's model: {reason}", file=file
        ) from error
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


def _content(file: Path, export: Path, digest: str) -> bytes:
    if not os.path.isfile(file):
        hint = "keep the two files together"
        raise InputError(f"its weights are not there: {file.name}", hint=hint, file=export)
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        message = "the weights are not those that the export names (another sha256)"
        raise InputError(message, file=file)
    return content


def read_about(file: Path) -> About:
    """What the file of weights says. Raises InputError where it does not."""
    try:
        with safe_open(file, "pt") as content:
            told = json.loads((content.metadata() or {})[METADATA])
    except (SafetensorError, KeyError, ValueError) as error:
        message = "the file does not say which classes and normalisation its weights are for"
        raise InputError(message, file=file) from error
    return validate(About, told, file=file)


def _without_download(task: TaskConfig) -> Any:
    if isinstance(task.model, SmpModel):
        return task.model.model_copy(update={"encoder_weights": None})
    return task.model


def _frame(task: TaskConfig) -> tuple[tuple[int, int] | None, Any]:
    """The size that the network's images have, and how they were brought to it."""
    if isinstance(task.data, FileData):
        return task.data.size, task.data.fit
    if isinstance(task.data, SyntheticData):
        return task.data.size, "stretch"
    return None, "stretch"
