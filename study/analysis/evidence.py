"""What a confirmation trial leaves for the comparison: counts per image and per decision rule.

One file per confirmation trial, ``evidence/<trial>.npz``, with ``class_names`` (C,) and, of each
split, ``<split>_<field>`` for the fields of `study.metrics.evidence.SplitEvidence`.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from study.core.errors import InputError
from study.core.files import write_bytes
from study.metrics.evidence import SplitEvidence

FOLDER = "evidence"


@dataclass(frozen=True)
class Evidence:
    """The splits of one trial, by name (`val`, `test`)."""

    class_names: tuple[str, ...]
    splits: Mapping[str, SplitEvidence]


def path_of(folder: Path, trial: str) -> Path:
    """Where the evidence of a trial lies in a study's folder."""
    return folder / FOLDER / f"{trial}.npz"


def pack(class_names: Sequence[str], splits: Mapping[str, SplitEvidence]) -> bytes:
    """The bytes of an evidence file."""
    arrays: dict[str, npt.NDArray[Any]] = {"class_names": np.asarray(class_names, dtype=np.str_)}
    for name, split in splits.items():
        for field in fields(SplitEvidence):
            value = getattr(split, field.name)
            if value is not None:
                arrays[f"{name}_{field.name}"] = np.asarray(value, dtype=np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def write(path: Path, class_names: Sequence[str], splits: Mapping[str, SplitEvidence]) -> None:
    """Write the file as a whole or not at all."""
    write_bytes(path, pack(class_names, splits))


def read(path: Path) -> Evidence | None:
    """The evidence in the file; None where there is no file."""
    if path.exists() and not path.is_file():  # a pipe would be read for ever
        raise InputError("not a regular file", file=path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [key.removesuffix("_confusion") for key in arrays if key.endswith("_confusion")]
            splits = {name: _split(arrays, name) for name in names}
            return Evidence(tuple(str(name) for name in arrays["class_names"]), splits)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read the evidence file: {error}", file=path) from error


def _split(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> SplitEvidence:
    keys = {field.name: f"{name}_{field.name}" for field in fields(SplitEvidence)}
    later = ("curve", "tuned_counts", "tuned_macc_counts")
    return SplitEvidence(
        **{field: arrays[key] for field, key in keys.items() if key in arrays or field not in later}
    )
