"""Weights of a trained model as safetensors: for a user's own code, read without running any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save
from torch import Tensor, nn

from study.core.files import write_bytes

if TYPE_CHECKING:
    from study.data import SegmentationData

METADATA = "data"  # one entry, as several come in no fixed order


def save_weights(path: Path, model: nn.Module, data: SegmentationData) -> None:
    """Write the model's state atomically, under the names of its `state_dict`.

    The file's metadata have one entry, `data`: JSON with `class_names`, the `mean` and `std` (RGB
    on a scale of 0..1) that the model's images were normalised with, and the `palette` of the
    classes (RGB in 0..255). Equal weights give equal bytes.

    Raises:
        ValueError: if the model's state holds something else than tensors.
        OSError: if the disk refuses the file.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(f"safetensors hold tensors alone, {name!r} is {type(value).__name__}")
        tensors[name] = value.detach().cpu().contiguous().clone()  # a tensor may have two names
    about = {
        "class_names": list(data.class_names),
        "mean": list(map(float, data.mean)),
        "std": list(map(float, data.std)),
        "palette": data.palette.tolist(),
    }
    write_bytes(path, save(tensors, {METADATA: json.dumps(about, ensure_ascii=False)}))
