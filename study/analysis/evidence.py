"""What a confirmation trial leaves for the comparison: confusion matrices and per-image counts.

One file per confirmation trial, ``evidence/<trial>.npz``, with the arrays of each split:
``<split>_confusion`` (C, C) int64, rows are the target; ``<split>_counts`` (n, 3, C) int64, the
true positives, false positives and false negatives of each image; ``<split>_groups`` (n,) int64,
equal for neighbouring images; and ``class_names`` (C,).
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from study.core.errors import InputError
from study.core.files import write_bytes

Ints = npt.NDArray[np.int64]
FOLDER = "evidence"


@dataclass(frozen=True)
class SplitEvidence:
    """One split: confusion (C, C), counts (n, 3, C) = (tp, fp, fn) per image, groups (n,)."""

    confusion: Ints
    counts: Ints
    groups: Ints


@dataclass(frozen=True)
class Evidence:
    """The splits of one trial, by name (`val`, `test`)."""

    class_names: tuple[str, ...]
    splits: Mapping[str, SplitEvidence]


def path_of(folder: Path, trial: str) -> Path:
    """Where the evidence of a trial lies in a study's folder."""
    return folder / FOLDER / f"{trial}.npz"


def write(path: Path, class_names: Sequence[str], splits: Mapping[str, SplitEvidence]) -> None:
    """Write the file as a whole or not at all."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "class_names": np.asarray(class_names, dtype=np.str_)
    }
    for name, split in splits.items():
        arrays[f"{name}_confusion"] = np.asarray(split.confusion, dtype=np.int64)
        arrays[f"{name}_counts"] = np.asarray(split.counts, dtype=np.int64)
        arrays[f"{name}_groups"] = np.asarray(split.groups, dtype=np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def read(path: Path) -> Evidence | None:
    """The evidence in the file; None where there is no file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [key.removesuffix("_confusion") for key in arrays if key.endswith("_confusion")]
            splits = {
                name: SplitEvidence(
                    arrays[f"{name}_confusion"], arrays[f"{name}_counts"], arrays[f"{name}_groups"]
                )
                for name in names
            }
            return Evidence(tuple(str(name) for name in arrays["class_names"]), splits)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read the evidence file: {error}", file=path) from error
