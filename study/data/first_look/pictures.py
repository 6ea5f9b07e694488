"""The pictures of a folder, and whether they look like labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from study.data.formats.folder_classes import SPLIT, SYNONYMS
from study.data.formats.folder_hints import pictures_in, walk
from study.data.splits import SPLITS

FEW_COLOURS = 64  # a picture with no more is a label
LOOKED_AT = 5  # pictures of each folder


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


def _has_few_colours(file: Path, most: int) -> bool:
    try:
        with Image.open(file) as picture:
            if picture.mode in ("P", "1") and most > 2:
                return True
            return picture.convert("RGB").getcolors(most) is not None
    except (OSError, ValueError, SyntaxError):
        return False
