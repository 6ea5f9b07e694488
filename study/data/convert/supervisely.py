"""Supervisely: `ann/IMAGE.json` beside `img/IMAGE` in each data set, with polygons and bitmaps.

Later objects cover earlier ones. `meta.json` has the classes and their colours. A data set (a
folder) called train, val or test is that split.
"""

from __future__ import annotations

import base64
import io
import zlib
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from study.core.errors import InputError
from study.data.convert import raster
from study.data.convert.export import (
    Export,
    Picture,
    Place,
    Region,
    Source,
    need,
    optional,
    points,
    read_json,
    split_of_path,
)
from study.data.formats.folder_classes import as_colour

_NO_AREAS = ("line", "point", "graph", "multipolyline", "any")


def read_supervisely(source: Source) -> Export:
    """Read each JSON file that has objects of Supervisely's kind."""
    export = Export()
    labels: dict[str, None] = {}
    colours = {}
    for file in source.suffixed(".json"):
        tree = read_json(file)
        if file.name == "meta.json" and isinstance(tree, dict):
            for one in optional(tree, "classes", list, Place(file)) or []:
                title = need(one, "title", str, Place(file))
                labels.setdefault(title)
                if colour := as_colour(str(one.get("color", ""))):
                    colours[title] = colour
        elif isinstance(tree, dict) and {"size", "objects"} <= tree.keys():
            export.pictures.append(_picture(source, export, tree, Place(file)))
    if not export.pictures:
        raise InputError("found no JSON file with `size` and `objects`", file=source.given)
    for picture in export.pictures:
        labels |= dict.fromkeys(one.label for one in picture.regions)
    export.labels = [*labels]
    if len({*colours.values()}) == len(colours):
        export.colours = colours
    return export


def _picture(source: Source, export: Export, tree: dict[str, Any], place: Place) -> Picture:
    size = need(tree, "size", dict, place)
    shape = tuple(need(size, key, int, place.at("size")) for key in ("height", "width"))
    name = place.file.name.removesuffix(".json")
    image = source.image(name, place, near=place.file.parent.with_name("img"))
    listed = need(tree, "objects", list, place)
    regions = [_region(export, one, place.at("objects").at(at)) for at, one in enumerate(listed)]
    kept = [one for one in regions if one]
    split = split_of_path(place.file, source.root)
    return Picture(image, place, kept, split, (shape[0], shape[1]))


def _region(export: Export, one: Any, place: Place) -> Region | None:
    label = need(one, "classTitle", str, place)
    kind = need(one, "geometryType", str, place)
    if kind in _NO_AREAS:
        export.notes["lines, points and other shapes without an area, left out"] += 1
        return None
    if kind == "bitmap":
        bitmap, at = need(one, "bitmap", dict, place), place.at("bitmap")
        part = _bits(need(bitmap, "data", str, at), at)
        corner = points([need(bitmap, "origin", list, at)], at.at("origin"))[0]
        left, top = map(int, corner)
        return Region(label, partial(raster.bitmap, part, place=at, left=left, top=top))
    outline, at = need(one, "points", dict, place), place.at("points")
    exterior = points(need(outline, "exterior", list, at), at.at("exterior"))
    if kind == "rectangle":
        if exterior.shape != (2, 2):
            raise at.at("exterior").fault("a rectangle must have two corners")
        export.notes["rectangles, filled"] += 1
        ring = raster.rectangle(*exterior.ravel().tolist())
        return Region(label, partial(raster.polygons, [ring], place=at))
    if kind != "polygon":
        allowed = ("polygon", "bitmap", "rectangle", *_NO_AREAS)
        raise place.at("geometryType").fault(f"unknown shape {kind!r}", allowed=allowed)
    inner = optional(outline, "interior", list, at) or []
    holes = [points(hole, at.at("interior")) for hole in inner]
    return Region(label, partial(raster.with_holes, [exterior, *holes], place=at))


def _bits(text: str, place: Place) -> NDArray[np.bool_]:
    """The mask in a PNG, packed by zlib and base64: what is opaque, else what is not black."""
    try:
        content = zlib.decompress(base64.b64decode(text))
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            shown = (
                image.convert("RGBA") if "A" in image.mode or "transparency" in image.info else None
            )
            return np.asarray(shown.getchannel("A") if shown else image.convert("L")) > 0
    except Exception as error:  # damaged bytes make the readers raise anything
        message = f"holds no bitmap that can be read ({type(error).__name__})"
        raise place.at("data").fault(message) from error
