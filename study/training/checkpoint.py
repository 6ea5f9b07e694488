"""Checkpoint files of a trial: written atomically, read without running code from them."""

from __future__ import annotations

import textwrap
import zipfile
from pathlib import Path
from typing import Any

import torch

from study.core.errors import InputError, is_out_of_memory
from study.core.files import whole

FORMAT = "segmentation-loss-study/checkpoint/2"
CHECKPOINT = "checkpoint.pt"  # file name inside a folder


class IncompatibleCheckpoint(InputError):
    """An intact checkpoint of this training that the present code cannot load."""

    def __init__(self, path: Path, reason: Exception) -> None:
        text = textwrap.shorten(str(reason), 300, placeholder=" ...")
        super().__init__(f"the checkpoint does not fit the model's present code: {text}", file=path)


def save_checkpoint(path: Path, state: dict[str, Any], *, identity: str) -> None:
    """Write `state` (tensors and plain values) atomically: `path` is the old file or the new one.

    Makes missing parent folders. Raises OSError naming `path` if the disk refuses it.
    """
    with whole(Path(path)) as file:
        try:
            torch.save({"format": FORMAT, "identity": identity, "state": state}, file)
        except RuntimeError as error:
            reason = error.__context__  # torch's writer hides the disk's error
            if isinstance(reason, OSError):
                raise OSError(reason.errno, reason.strerror) from error
            raise


def copied(state: Any) -> Any:
    """A copy of a state in the machine's memory, which training does not change any more."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        copy = type(state)((key, copied(value)) for key, value in state.items())
        vars_of = getattr(state, "__dict__", {})  # the versions of a model's modules
        for name, value in vars_of.items():
            setattr(copy, name, value)
        return copy
    if type(state) in (list, tuple):
        return type(state)(copied(value) for value in state)
    return state


def load_checkpoint(path: Path, *, identity: str, device: torch.device) -> dict[str, Any]:
    """Return the state in `path`, with its tensors on `device`.

    Raises InputError naming the file if it is missing, truncated, not a checkpoint of this package,
    or one of another config or data set.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load verifies no checksum
            damaged = archive.testzip()
            marked = [record.filename for record in archive.infolist() if record.external_attr]
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} has another checksum")
        if marked:  # torch.load takes it for a folder, and leaves its tensor unread
            raise zipfile.BadZipFile(f"{marked[0]} has attributes that torch does not write")
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise InputError("checkpoint not found", file=path) from error
    except Exception as error:  # arbitrary bytes make the unpickler raise anything
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read the checkpoint: {reason}", file=path) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"not a checkpoint of format {FORMAT}", file=path)
    if content.get("identity") != identity:
        raise InputError("the checkpoint is of another config or other data", file=path)
    return content.get("state")  # type: ignore[return-value]  # the caller reports missing keys
