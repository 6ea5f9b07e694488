"""The pictures of a folder, and whether they look like labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from study.data.formats.folder_classes import SPLIT, SYNONYMS
from study.data.formats.folder_hints import pictures_in, walk
from study.data.splits import SPLITS

BESIDE = re.compile(
    r"__macosx|thumb|overlay|collage|visuali[sz]ation|viz|preview|blend|depth|SegmentationObject",
    re.IGNORECASE,
)  # what lies beside images and labels and is neither
OBJECTS = re.compile(r"instance|panoptic|(?<![a-z])inst(?![a-z])", re.IGNORECASE)
_CLASSES = re.compile(r"segm|semantic|categor|class|binary", re.IGNORECASE)
PHOTO = re.compile(r"rgb|image|img|photo|jpeg|original", re.IGNORECASE)
FEW_COLOURS = 64  # a picture with no more is a label
_GREY = ("L", "P", "1", "I", "I;16")
LOOKED_AT = 5  # pictures of each folder
SAME = 0.9  # of the pixels of each value, from which two labels are the same
MOST_OVERLAP = 0.2  # share of the pixels of an image's masks that several of them have


def kind_order(name: str) -> tuple[bool, bool, str]:
    """What sorts folders of labels of one image: those of classes first, of objects last."""
    return bool(OBJECTS.search(name)), not _CLASSES.search(name), name


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


def are_masks(files: Sequence[Path]) -> bool:
    """Whether the first of the files are binary masks: of two colours at most, one of them 0."""
    some = [label for file in files[:LOOKED_AT] if (label := _label(file)) is not None]
    return look_like_labels(files, 2) and all(
        one.min() == 0 or one.min() == one.max() for one in some
    )


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


def are_alike(files: Sequence[Path]) -> bool:
    """Whether several labels are nearly the same, such as the field of view of a camera."""
    labels = [label for file in files[:LOOKED_AT] if (label := _label(file)) is not None]
    if len(labels) < 3 or len({label.shape for label in labels}) > 1:
        return False
    return all(
        (one & other).sum() >= SAME * (one | other).sum()
        for a, b in pairwise(labels)
        for value in np.union1d(a, b)
        for one, other in [(a == value, b == value)]
    )


def are_recoloured(files: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether labels have the same areas as others, in other values or colours."""
    pairs = [
        np.stack([label.ravel(), other.ravel()])
        for one, two in zip(files[:LOOKED_AT], others[:LOOKED_AT], strict=False)
        if (label := _label(one)) is not None and (other := _label(two)) is not None
        if label.shape == other.shape
    ]
    if len(pairs) < min(LOOKED_AT, len(files), len(others)) or not pairs:
        return False
    seen = np.unique(np.concatenate(pairs, 1), axis=1)
    return all(len(np.unique(one)) == seen.shape[1] > 1 for one in seen)


def is_grey(file: Path) -> bool:
    """Whether a label stores values, and not colours."""
    try:
        with Image.open(file) as picture:
            return picture.mode in _GREY
    except (OSError, ValueError, SyntaxError):
        return False


def _label(file: Path) -> NDArray[np.int64] | None:
    """(H, W) of values or of the codes of colours."""
    try:
        with Image.open(file) as picture:
            found = np.asarray(picture if picture.mode in _GREY else picture.convert("RGB")).astype(
                np.int64
            )
    except (OSError, ValueError, SyntaxError):
        return None
    return found if found.ndim == 2 else found @ (1 << 16, 1 << 8, 1)


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
