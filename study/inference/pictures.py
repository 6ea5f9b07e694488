"""Pictures to predict, found in files and folders, and the files that are written for each."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from study.core.errors import InputError
from study.core.files import write_bytes, write_text
from study.inference.predictor import Prediction, Predictor

SUFFIXES = (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MASKS, OVERLAYS, PROBABILITIES, LEGEND = "masks", "overlays", "probabilities", "classes.json"
OPACITY = 0.5


@dataclass(frozen=True)
class Found:
    """A picture, and the name (a relative path without suffix) of what is written for it."""

    file: Path
    name: str


def find_pictures(given: Sequence[Path]) -> list[Found]:
    """The pictures among files and below folders, in name order, hidden ones left out.

    Where two would have one name, as a.jpg and a.png, each keeps its suffix.

    Raises:
        InputError: for a path that does not exist, and a folder without a picture.
    """
    files: list[tuple[Path, Path]] = []  # the file, and its place below what was given
    for path in given:
        if os.path.isdir(path):
            below = [*_below(path)]
            if not below:
                raise InputError(f"no picture ({', '.join(SUFFIXES)}) in this folder", file=path)
            files += below
        elif os.path.lexists(path):
            files.append((path, Path(path.name)))
        else:
            raise InputError("no such file or folder", file=path)
    count = Counter(place.with_suffix("") for _, place in files)
    found = [
        Found(file, str(place if count[place.with_suffix("")] > 1 else place.with_suffix("")))
        for file, place in files
    ]
    twice = [name for name, often in Counter(one.name for one in found).items() if often > 1]
    if twice:
        message = f"several pictures would be written as {twice[0]!r}"
        raise InputError(message, hint="give their folders one at a time", key="IMAGES")
    return found


def _below(folder: Path) -> Iterator[tuple[Path, Path]]:
    for at, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                path = Path(at) / name
                yield path, path.relative_to(folder)


class Writer:
    """Writes predictions below a folder.

        masks/<name>.png            (H, W) class ids, with the palette of the classes
        overlays/<name>.png         the picture, half covered with these colours
        probabilities/<name>.npz    (C, H, W) float16, if they were asked for
        classes.json                the name and colour of each class id

    Args:
        folder: exists.
        predictor: whose class names and colours are used.
    """

    def __init__(self, folder: Path, predictor: Predictor) -> None:
        self._folder = folder
        self._palette = predictor.palette
        rows = [
            {"id": index, "name": name, "color": colour.tolist()}
            for index, (name, colour) in enumerate(
                zip(predictor.class_names, self._palette, strict=True)
            )
        ]
        write_text(folder / LEGEND, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")

    def write(self, name: str, picture: NDArray[np.uint8], found: Prediction) -> None:
        """Write what is predicted of a picture (H, W, 3)."""
        mask = Image.fromarray(found.classes)
        mask.putpalette(self._palette.ravel().tolist())
        self._save(f"{MASKS}/{name}.png", mask)
        colours = self._palette[found.classes]
        mixed = (1 - OPACITY) * picture + OPACITY * colours
        self._save(f"{OVERLAYS}/{name}.png", Image.fromarray(mixed.round().astype(np.uint8)))
        if found.probabilities is not None:
            self._save(f"{PROBABILITIES}/{name}.npz", found.probabilities)

    def _save(self, name: str, content: Any) -> None:
        buffer = io.BytesIO()
        if isinstance(content, Image.Image):
            content.save(buffer, format="PNG")
        else:
            np.savez_compressed(buffer, probabilities=content)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, buffer.getvalue())
