"""The pictures of a folder, and whether they look like labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from study.data.formats.folder_classes import SPLIT, SYNONYMS
from study.data.formats.folder_hints import pictures_in, walk
from study.data.splits import SPLITS

FEW_COLOURS = 64  # a picture with no more is a label
LOOKED_AT = 5  # pictures of each folder
MOST_OVERLAP = 0.2  # share of the pixels of an image's masks that several of them have


def folder_of(root: Path, template: str) -> Path:
    """The first split's folder that is there."""
    words = [word for split in SPLITS for word in (split, *SYNONYMS[split])]
    forms = [form for word in words for form in (word, word.capitalize(), word.upper())]
    paths = [root / template.replace(SPLIT, form) for form in forms]
    return next((path for path in paths if path.is_dir()), root / template)


def pictures(root: Path, template: str) -> list[Path]:
    """The pictures in that folder; where it has none, those in the first below it that has."""
    for folder, _ in walk(folder_of(root, template)):
        if names := pictures_in(folder, below=False):
            return [folder / name for name in names]
    return []


def look_like_labels(files: Sequence[Path], colours: int = FEW_COLOURS) -> bool:
    """Whether there are files, and each of the first has no more colours than a label."""
    return bool(files) and all(_has_few_colours(file, colours) for file in files[:LOOKED_AT])


def are_classes(files: Sequence[Path]) -> bool:
    """Whether an image's binary masks are those of classes: they hardly overlap, or each lies in
    the next larger one. Those of several annotators do neither."""
    masks = [mask for file in files if (mask := _mask(file)) is not None]
    if len(masks) < len(files) or len({mask.shape for mask in masks}) > 1:
        return False
    times = np.sum(masks, axis=0)
    if (times > 1).sum() <= MOST_OVERLAP * (times > 0).sum():
        return True
    masks.sort(key=lambda mask: -int(mask.sum()))
    return not any((inner & ~outer).any() for outer, inner in pairwise(masks))


def by_area(masks: Mapping[str, Sequence[Path]]) -> list[str]:
    """The names of masks, those of the largest area first, as they are drawn over each other."""
    areas = {
        name: sum(int(mask.sum()) for file in files if (mask := _mask(file)) is not None)
        for name, files in masks.items()
    }
    return sorted(areas, key=lambda name: (-areas[name], name))


def _mask(file: Path) -> NDArray[np.bool_] | None:
    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("L")) > 0
    except (OSError, ValueError, SyntaxError):
        return None


def _has_few_colours(file: Path, most: int) -> bool:
    try:
        with Image.open(file) as picture:
            if picture.mode in ("P", "1") and most > 2:
                return True
            return picture.convert("RGB").getcolors(most) is not None
    except (OSError, ValueError, SyntaxError):
        return False
