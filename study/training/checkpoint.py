"""Checkpoints of a trial: written whole or not at all, read without running anything from them."""

from __future__ import annotations

import textwrap
import zipfile
from pathlib import Path
from typing import Any

import torch

from study.core.errors import InputError
from study.core.files import whole

FORMAT = "segmentation-loss-study/checkpoint/2"
CHECKPOINT = "checkpoint.pt"  # its name inside a folder


class IncompatibleCheckpoint(InputError):
    """A whole checkpoint of this training that its code, as it is now, cannot take up."""

    def __init__(self, path: Path, reason: Exception) -> None:
        text = textwrap.shorten(str(reason), 300, placeholder=" ...")
        message = (
            f"must fit the model's code as it was when the checkpoint was written, but: {text}"
        )
        super().__init__(message, file=path)


def save_checkpoint(path: Path, state: dict[str, Any], *, identity: str) -> None:
    """Write `state` (tensors and plain values) so that `path` is the old file or the new one.

    Missing parent folders are made. Raises OSError naming `path` where the disk does not take it.
    """
    with whole(Path(path)) as file:
        try:
            torch.save({"format": FORMAT, "identity": identity, "state": state}, file)
        except RuntimeError as error:
            reason = error.__context__  # torch's writer hides it behind a remark on positions
            if isinstance(reason, OSError):
                raise OSError(reason.errno, reason.strerror) from error
            raise


def load_checkpoint(path: Path, *, identity: str, device: torch.device) -> dict[str, Any]:
    """The state in `path`, with its tensors on `device`.

    Raises InputError naming the file when it is missing, truncated, no checkpoint of this
    package, or one of another config or data set.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load looks at no checksum
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} has another checksum")
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise InputError("must be a checkpoint, but there is no such file", file=path) from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # any bytes can be tried as a pickle, and fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"must be a whole checkpoint, but cannot be read: {reason}"
        raise InputError(message, file=path) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        message = f"must be a checkpoint of format {FORMAT}, but is another file"
        raise InputError(message, file=path)
    if content.get("identity") != identity:
        message = "must be a checkpoint of this config and data, but belongs to another training"
        raise InputError(message, file=path)
    return content.get("state")  # type: ignore[return-value]  # whoever takes it up says what lacks
