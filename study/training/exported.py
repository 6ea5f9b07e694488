"""An export of this package: what its files say, and its network with the trained weights."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, Strict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as read_tensors
from torch import nn

from study.config.task import FactoryModel, SmpModel
from study.core.errors import InputError
from study.core.validation import validate
from study.training.config_file import ConfigFile, read_config
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


@dataclass(frozen=True)
class Exported:
    """An export whose weights are beside it. file: of the weights; sha256: of its content."""

    read: ConfigFile
    file: Path
    sha256: str


def read_exported(path: Path, *, trust: bool = False) -> Exported:
    """Read an export that names weights.

    Raises:
        InputError: for an export that cannot be read or has no weights, and for one that names a
            factory, unless you `trust` it.
    """
    read = read_config(path, trust=trust)
    if read.weights is None:
        raise InputError(
            "the export has no weights",
            hint=f"`python -m study.train {shlex.quote(str(path))} --out DIR` trains them",
            file=path,
            key="weights",
        )
    file = path.parent / read.weights.file
    if not os.path.isfile(file):
        hint = "keep the two files together"
        raise InputError(f"its weights are not there: {file.name}", hint=hint, file=path)
    return Exported(read, file, read.weights.sha256)


def weights_content(file: Path, sha256: str, named_by: str = "that the export names") -> bytes:
    """The bytes of a file of weights. Raises InputError where they are others."""
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        message = f"the weights are not those {named_by} (another sha256)"
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


def trained_model(
    config: SmpModel | FactoryModel, num_classes: int, content: bytes, file: Path
) -> nn.Module:
    """The model of an export with its trained weights, on the CPU; no random state advances.

    content: the bytes of `file`. Raises InputError for a model that cannot be built, below the key
    `model`, and for weights that do not fit it.
    """
    if isinstance(config, SmpModel):  # nothing is downloaded: the weights are replaced
        config = config.model_copy(update={"encoder_weights": None})
    with torch.random.fork_rng(devices=[]):
        model = build_model(config, num_classes)
    try:
        model.load_state_dict(read_tensors(content))
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).split("\n")[-1].strip()
        raise InputError(
            f"the weights do not fit the export's model: {reason}", file=file
        ) from error
    return model
