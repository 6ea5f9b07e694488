"""Tables of run-length codes (CSV or Parquet), as competitions have them.

    ImageId,EncodedPixels          one object a row, or all of an image's
    ImageId,ClassId,EncodedPixels  or Image_Label,EncodedPixels with names such as a.jpg_Fish
    id,annotation,width,height     or id,class,segmentation

A code is start and length by turns. Starts count from 1; pixels go down the columns (`rle`) or
along the rows (`rle-rows`). A row without a code names an image without an object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from study.core.errors import InputError
from study.data.convert import raster
from study.data.convert.export import (
    IMAGE_SUFFIXES,
    Export,
    Picture,
    Place,
    Region,
    Rle,
    Size,
    Source,
    read_text,
    split_of,
)
from study.data.formats.folder_pairs import cells

CODE = re.compile(r"\d+ +\d+(?: +\d+ +\d+)*")
Order = Literal["C", "F"]
_COMPARED, _RAGGED = 100, 1.5  # codes; edges of their areas over those in the other order
_OBJECT = "object"  # the class of a table without classes
_CLASS = re.compile(r"class|label|category|attribute|type", re.IGNORECASE)
_TABLES = (".csv", ".parquet")
_SUBMISSION = re.compile(r"submission", re.IGNORECASE)
_NONE = ("", "-1", "nan", "1 0")  # what stands for no code


def read_rle(source: Source, order: Order = "F") -> Export:
    """Read each table that has a column of codes.

    order: of the pixels, F down the columns, C along the rows.
    """
    export = Export()
    hint = ""
    codes: dict[Path, tuple[Place, list[Region]]] = {}
    drawn: list[tuple[Path, NDArray[np.int64], Place]] = []
    files = {file for suffix in _TABLES for file in source.suffixed(suffix)}
    for file in sorted(one for one in files if not _SUBMISSION.search(one.name)):
        rows = _rows(file)
        columns = _columns(source, rows)
        if columns is None:
            export.notes["tables without run-length codes, left out"] += 1
            hint = hint or _no_image(source, file, rows)
            continue
        image, code, label = columns
        for number, row in enumerate(rows[1:], start=2):
            place = Place(file, line=number)
            if len(row) <= max(image, code):
                raise place.fault(f"the row must have {len(rows[0])} columns, got {len(row)}")
            found, name = _image(source, row[image])
            if found is None:
                raise source.missing(row[image], place)
            _, regions = codes.setdefault(found, (place, []))
            if row[code].lower() in _NONE:
                continue
            if not CODE.fullmatch(row[code]):
                raise place.fault("the code must be start and length by turns")
            name = name or (row[label] if label is not None else _OBJECT)
            runs = np.array(row[code].split(), np.int64).reshape(-1, 2)
            regions.append(Region(name, partial(_drawn, runs, order=order, place=place)))
            drawn.append((found, runs, place))
    if not any(regions for _, regions in codes.values()):
        message = "found no table with run-length codes of images"
        raise InputError(message, hint=hint, file=source.given)
    _check_order(drawn, order)
    for file, (place, regions) in codes.items():
        export.pictures.append(Picture(file, place, regions, split_of(file.parent.name)))
    return export.take_labels()


def _rows(file: Path) -> Sequence[Sequence[str]]:
    """The rows of a table, the first of which names the columns."""
    if file.suffix.lower() != ".parquet":
        return cells(read_text(file).splitlines())
    import pandas as pd

    try:
        table = pd.read_parquet(file)
    except Exception as error:  # a damaged file makes the reader raise anything
        message = f"cannot read the table ({type(error).__name__})"
        raise InputError(message, file=file) from error
    kept = [key for key in table if not table[key].map(lambda one: isinstance(one, dict)).any()]
    rows = table[kept].map(_text).to_numpy().tolist()
    return [[str(key) for key in kept], *rows]


def _text(value: Any) -> str:
    """A cell as CSV has it; numbers that a list holds, as a code."""
    if isinstance(value, np.ndarray | list):
        return " ".join(map(str, np.ravel(value).tolist()))
    if isinstance(value, float):  # whole numbers become fractions where one is missing
        return str(int(value)) if value.is_integer() else str(value)
    return "" if value is None else str(value).strip()


def _check_order(drawn: Sequence[tuple[Path, NDArray[np.int64], Place]], order: Order) -> None:
    """Raise InputError if the other order makes much more solid areas of some of the codes."""
    edges = {"C": 0, "F": 0}
    for file, runs, place in drawn[:: max(1, len(drawn) // _COMPARED)]:
        with Image.open(file) as image:
            size = image.height, image.width
        for one in edges:
            mask = _mask(runs, size, "F" if one == "F" else "C", place)
            edges[one] += sum(int(np.count_nonzero(np.diff(mask, axis=axis))) for axis in (0, 1))
    other = "C" if order == "F" else "F"
    if edges[order] > _RAGGED * edges[other]:
        words = {"F": ("down the columns", "rle"), "C": ("along the rows", "rle-rows")}
        message = f"read {words[order][0]} the codes make ragged areas"
        hint = f"`convert {words[other][1]}` reads them {words[other][0]}"
        raise InputError(message, hint=hint, file=drawn[0][2].file)


def _columns(source: Source, rows: Sequence[Sequence[str]]) -> tuple[int, int, int | None] | None:
    """The columns of images, codes and classes; None for another table."""
    if len(rows) < 2:
        return None
    head, body = rows[0], rows[1:]

    def share(at: int, fits: Mapping[str, bool]) -> float:
        return sum(fits[row[at]] for row in body if at < len(row)) / len(body)

    def of(test: Callable[[str], object]) -> list[float]:
        fits = {cell: bool(test(cell)) for row in body for cell in row}
        return [share(at, fits) for at in range(len(head))]

    coded = of(lambda cell: CODE.fullmatch(cell) or cell.lower() in _NONE)
    has_code = of(CODE.fullmatch)
    named = of(lambda cell: _image(source, cell)[0] is not None)
    code = max(range(len(head)), key=lambda at: (has_code[at] > 0) * coded[at])
    image = max((at for at in range(len(head)) if at != code), key=named.__getitem__, default=code)
    if has_code[code] == 0 or coded[code] < 1 or image == code or named[image] < 0.5:
        return None
    others = [at for at, name in enumerate(head) if at not in (image, code) and _CLASS.search(name)]
    return image, code, others[0] if others else None


def _no_image(source: Source, file: Path, rows: Sequence[Sequence[str]]) -> str:
    """What to do about a table of codes whose rows name no image; "" for another table."""
    coded = next((row for row in rows if any(map(CODE.fullmatch, row))), None)
    if coded is None:
        return ""
    named = next((cell for cell in coded if not CODE.fullmatch(cell)), "")
    there = min(source.images, default="none")
    return f"{file.name} has codes, but no image is called {named!r}, as {there!r} is: rename them"


def _image(source: Source, cell: str) -> tuple[Path | None, str]:
    """The image that a cell names, with or without suffix, and the class behind its name."""
    for name, behind in ((cell, ""), cell.rpartition("_")[::2]):
        for one in (name, *(f"{name}{suffix}" for suffix in IMAGE_SUFFIXES)):
            if len(found := source.images.get(one, ())) == 1:
                return found[0], behind
    return None, ""


def _drawn(pairs: NDArray[np.int64], size: Size, order: Order, place: Place) -> Rle:
    return raster.bitmap(_mask(pairs, size, order, place), size, place)


def _mask(pairs: NDArray[np.int64], size: Size, order: Order, place: Place) -> NDArray[np.bool_]:
    starts, lengths = pairs.T
    mask = np.zeros(size[0] * size[1], bool)
    if starts.min() < 1 or (starts - 1 + lengths).max() > mask.size:
        raise place.fault(
            f"the code leaves the image of {size[0]}x{size[1]}",
            hint="are these the images that were labelled?",
        )
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        mask[start - 1 : start - 1 + length] = True
    return mask.reshape(size, order=order)
