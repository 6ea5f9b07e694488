"""labelme: one JSON file beside each image, with its shapes.

Polygons, rectangles, circles and masks are areas, as in labelme's own masks; lines and points are
none. Later shapes cover earlier ones. The label `__ignore__` is ignored, `_background_` is the
background. The image is the one that `imagePath` (or `imageName`) names, else that in `imageData`;
without such a key the one that is called like the JSON file.
"""

from __future__ import annotations

import base64
import binascii
import io
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from study.core.errors import InputError
from study.data.convert import raster
from study.data.convert.export import (
    Export,
    FloatArray,
    Picture,
    Place,
    Region,
    Source,
    need,
    other_tool,
    points,
    read_json,
    split_of_path,
)

_AREAS = ("polygon", "rectangle", "circle", "mask")
_NO_AREAS = ("line", "linestrip", "point", "points")
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg"}


def read_labelme(source: Source) -> Export:
    """Read each JSON file that has shapes."""
    export = Export()
    hint = ""
    for file in source.suffixed(".json"):
        tree = read_json(file)
        if isinstance(tree, dict) and "shapes" in tree:
            export.pictures.append(_picture(source, export, tree, Place(file)))
        else:
            hint = hint or other_tool(tree)
            export.notes["JSON files without `shapes`, left out"] += 1
    if not export.pictures:
        raise InputError("found no JSON file with `shapes`", hint=hint, file=source.given)
    return export.take_labels()


def _picture(source: Source, export: Export, tree: dict[str, Any], place: Place) -> Picture:
    shapes = need(tree, "shapes", list, place)
    regions = [_region(export, one, place.at("shapes").at(i)) for i, one in enumerate(shapes)]
    size = None
    if tree.get("imageHeight") is not None and tree.get("imageWidth") is not None:
        size = need(tree, "imageHeight", int, place), need(tree, "imageWidth", int, place)
    file, content = None, None
    split = split_of_path(place.file, source.root)
    key = next((one for one in ("imagePath", "imageName") if one in tree), "")
    if key:
        reference = need(tree, key, str, place)
        file = source.find(reference, place.at(key), near=place.file.parent, split=split)
    else:
        file = source.named(place.file.stem, place, split=split)
    if file is None:
        if not tree.get("imageData"):
            raise source.missing(reference, place.at(key))
        at = place.at("imageData")
        content = _bytes(need(tree, "imageData", str, place), at)
        file = place.file.with_suffix(_SUFFIXES.get(_opened(content, at).format or "", ".png"))
        export.notes["images taken from the imageData of JSON files"] += 1
    kept = [one for one in regions if one]
    return Picture(file, place, kept, split, size, content)


def _region(export: Export, shape: Any, place: Place) -> Region | None:
    label = need(shape, "label", str, place)
    kind = shape.get("shape_type") or "polygon"
    if kind in _NO_AREAS:
        export.notes["lines and points, which have no area, left out"] += 1
        return None
    if kind not in _AREAS:
        allowed = (*_AREAS, *_NO_AREAS)
        raise place.at("shape_type").fault(f"unknown shape {kind!r}", allowed=allowed)
    at = place.at("points")
    given = points(need(shape, "points", list, place), at)
    if kind == "mask":
        at = place.at("mask")
        image = _opened(_bytes(need(shape, "mask", str, place), at), at)
        left, top = np.floor(given.min(0)).astype(int).tolist()
        part = np.asarray(image.convert("L")) > 0
        return Region(label, partial(raster.bitmap, part, place=at, left=left, top=top))
    if kind == "rectangle":
        export.notes["rectangles, filled as in labelme's own masks"] += 1
    return Region(label, partial(raster.polygons, [_ring(kind, given, at)], place=at))


def _ring(kind: str, given: FloatArray, place: Place) -> FloatArray:
    if kind == "rectangle" and len(given) == 2:
        return raster.rectangle(*given.ravel().tolist())
    if kind == "circle":
        if len(given) != 2:
            raise place.fault(f"a circle must have 2 points, got {len(given)}")
        centre, border = given
        radius = float(np.hypot(*(border - centre)))
        x, y = centre.tolist()
        return raster.ellipse(x, y, radius, radius)
    return given


def _bytes(text: str, place: Place) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise place.fault(f"must be base64: {error}") from error


def _opened(content: bytes, place: Place) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        image.load()
    except Exception as error:  # damaged bytes make the reader raise anything
        raise place.fault(
            f"holds no PNG or JPEG that can be read ({type(error).__name__})"
        ) from error
    return image
