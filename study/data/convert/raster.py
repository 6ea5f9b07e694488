"""From outlines and run-length codes to masks, by pycocotools.

Coordinates are continuous: pixel (row r, column c) is the square [c, c + 1) x [r, r + 1), so that a
rectangle from (2, 2) to (6, 5) has 12 pixels. What lies outside the image is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import InputError
from study.data.convert.export import FloatArray, Place, Rle, Size, need, numbers

BoolArray = NDArray[np.bool_]
_FAR = 1.0  # sizes of the image that a point may lie outside of it: annotators drag beyond edges


def require() -> None:
    """Raise InputError where pycocotools is missing."""
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        hint = "install it: pip install -e '.[convert]', or pip install pycocotools"
        raise InputError("`convert` needs the package pycocotools", hint=hint) from error


def polygons(rings: Sequence[FloatArray], size: Size, place: Place) -> Rle:
    """The union of polygons, each (N, 2) of (x, y) in pixels. A polygon that crosses itself is
    filled by the even-odd rule."""
    from pycocotools import mask

    bounds = np.array(size[::-1])
    for ring in rings:
        if len(ring) < 3:
            raise place.fault(
                f"a polygon must have at least 3 points, got {len(ring)}",
                hint="delete it in the tool",
            )
        outside = np.flatnonzero(((ring < -_FAR * bounds) | (ring > (1 + _FAR) * bounds)).any(1))
        if len(outside):  # pycocotools would take memory for each pixel on the way there
            x, y = ring[outside[0]].tolist()
            raise place.fault(
                f"the point ({x:g}, {y:g}) lies far outside the image of {size[0]}x{size[1]}",
                hint="are these the images that were labelled?",
            )
    coded = mask.frPyObjects([ring.ravel().tolist() for ring in rings], *size)
    return _as_rle(mask.merge(coded))


def with_holes(rings: Sequence[FloatArray], size: Size, place: Place) -> Rle:
    """What an odd number of polygons hold: an outline without the holes in it."""
    from pycocotools import mask

    if not rings:
        raise place.fault("a polygon must have a ring")
    inside = [mask.decode(polygons([ring], size, place)).astype(bool) for ring in rings]
    return bitmap(np.logical_xor.reduce(inside), size, place)


def rectangle(left: float, top: float, right: float, bottom: float) -> FloatArray:
    """Its corners, (4, 2), in pixels."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> FloatArray:
    """Points on an ellipse, whose polygon lacks less than 1e-4 of its area."""
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    return np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], 1)


def turned(ring: FloatArray, degrees: float, centre: tuple[float, float]) -> FloatArray:
    """Turn points clockwise, as the image is seen, about a centre."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray((ring - centre) @ matrix + centre)


def inside(part: tuple[int, ...], size: Size, place: Place, *, left: int, top: int) -> None:
    """Raise InputError for a part that is not in the image."""
    height, width = part
    fits = 0 <= left <= left + width <= size[1] and 0 <= top <= top + height <= size[0]
    if not fits:
        raise place.fault(
            f"the mask of {height}x{width} at ({left}, {top}) leaves the image of "
            f"{size[0]}x{size[1]}",
            hint="are these the images that were labelled?",
        )


def bitmap(part: BoolArray, size: Size, place: Place, *, left: int = 0, top: int = 0) -> Rle:
    """A mask of which only a part is given, at (left, top)."""
    from pycocotools import mask

    height, width = part.shape
    inside(part.shape, size, place, left=left, top=top)
    whole = np.zeros(size, np.uint8, order="F")
    whole[top : top + height, left : left + width] = part
    return _as_rle(mask.encode(whole))


def runs(counts: Any, length: int, place: Place) -> NDArray[np.int64]:
    """Lengths of runs of 0 and 1 by turns, 0 first; they must add up to the mask's pixels."""
    found = numbers(counts, place)
    if found.ndim != 1 or (found < 0).any() or (found % 1).any():
        raise place.fault("the mask's runs must be a list of whole numbers >= 0")
    if found.sum() != length:
        raise place.fault(
            f"the mask's runs must add up to its {length} pixels, got {found.sum():g}",
            hint="the file is damaged: export it again",
        )
    return found.astype(np.int64)


def from_runs(counts: Any, shape: Size, place: Place, *, order: str) -> BoolArray:
    """The mask of runs, row by row (`order` C) or column by column (F)."""
    found = runs(counts, shape[0] * shape[1], place)
    values = np.arange(len(found)) % 2 == 1
    return np.repeat(values, found).reshape(shape, order="F" if order == "F" else "C")


def coco_counts(text: str, place: Place) -> list[int]:
    """The runs in COCO's text: numbers of 5 bits a character, from the fourth on as differences to
    the last but one.

    pycocotools reads such a text, too, but for a damaged one it returns memory that nobody has
    written.
    """
    found: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise place.fault("the mask is no run-length code of COCO", hint="export it again")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value = shift = 0
    if shift:
        raise place.fault("the mask's run-length code ends too early", hint="export it again")
    return found


def coco_mask(segmentation: dict[str, Any], size: Size, place: Place) -> Rle:
    """COCO's {counts, size}: runs as numbers or as text, column by column."""
    stated = need(segmentation, "size", list, place)
    if stated != list(size):
        raise place.at("size").fault(
            f"the mask must be as large as its image, {list(size)}, got {stated}"
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = coco_counts(counts, place.at("counts"))
    mask = from_runs(counts, size, place.at("counts"), order="F")
    return bitmap(mask, size, place)


def area(coded: Rle) -> int:
    """The number of pixels."""
    from pycocotools import mask

    return int(mask.area(coded))


def decoded(coded: Rle) -> tuple[tuple[slice, slice], BoolArray]:
    """The rows and columns that hold the mask, and the mask there."""
    from pycocotools import mask

    left, top, width, height = (int(one) for one in mask.toBbox(coded))
    part = slice(top, top + height), slice(left, left + width)
    return part, np.asarray(mask.decode(coded)[part], bool)


def _as_rle(coded: Any) -> Rle:
    found: Rle = coded
    return found
