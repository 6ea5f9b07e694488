"""The checkpoint of a training of the user's own: the file it writes, and its loss's state."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from study.core.errors import InputError

TRAINING, LOSS = "training", "loss.pt"


def write_checkpoint(
    path: Path, save: Callable[[Path], None], epoch: int, loss: Mapping[str, Any]
) -> None:
    """Write a checkpoint after an epoch as a whole or not at all.

    Raises InputError where `save` writes no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own, state, whole = (path.with_suffix(suffix) for suffix in (".own", ".loss", ".part"))
    try:
        save(own)
        if not own.is_file():
            raise InputError("the function that saves the training has written no file")
        torch.save(dict(loss), state)
        with zipfile.ZipFile(whole, "w") as archive:
            archive.comment = str(epoch).encode()
            archive.write(own, TRAINING)
            archive.write(state, LOSS)
        os.replace(whole, path)
    finally:
        for left in (own, state, whole):
            left.unlink(missing_ok=True)


def read_checkpoint(
    path: Path, load: Callable[[Path], object], folder: Path
) -> tuple[int, dict[str, Any]] | None:
    """Read the training by `load`; return the epoch after which it was written, and the state of
    its loss. None where the file is damaged. `folder` has room for a copy."""
    try:
        with zipfile.ZipFile(path) as archive:
            epoch = int(archive.comment)
            with archive.open(LOSS) as file:
                state = torch.load(file, map_location="cpu", weights_only=True)
            training = Path(archive.extract(TRAINING, folder))
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile):
        return None
    try:
        load(training)
    finally:
        training.unlink(missing_ok=True)
    return epoch, state
