"""Checkpoints of a trial: written whole or not at all, read without running anything from them."""

from __future__ import annotations

import hashlib
import json
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import torch

from study.config.task import TrialConfig
from study.core.errors import InputError
from study.core.files import whole

FORMAT = "segmentation-loss-study/checkpoint/2"
CHECKPOINT = "checkpoint.pt"  # its name inside a folder


class IncompatibleCheckpoint(InputError):
    """A whole checkpoint of this training that its code, as it is now, cannot take up."""

    def __init__(self, path: Path, reason: Exception) -> None:
        text = textwrap.shorten(str(reason), 300, placeholder=" ...")
        super().__init__(f"the checkpoint does not fit the model's present code: {text}", file=path)


def digest(config: TrialConfig, fingerprint: str) -> str:
    """Identity of a training: its resolved config, and its data by content, not by place."""
    content = config.model_dump(mode="json")
    content["task"]["data"] = fingerprint
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
        raise InputError("checkpoint not found", file=path) from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # any bytes can be tried as a pickle, and fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read the checkpoint: {reason}", file=path) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"not a checkpoint of format {FORMAT}", file=path)
    if content.get("identity") != identity:
        raise InputError("the checkpoint is of another config or other data", file=path)
    return content.get("state")  # type: ignore[return-value]  # whoever takes it up says what lacks
