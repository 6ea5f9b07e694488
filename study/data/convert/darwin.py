"""Darwin, the JSON of V7: a file for each image, with polygons and boxes.

Paths of one polygon are filled by the even-odd rule, so that one within another is a hole. Later
annotations cover earlier ones. Version 2 names the image in `item`, version 1 in `image`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from study.core.errors import InputError
from study.data.convert import raster
from study.data.convert.export import (
    Export,
    FloatArray,
    Picture,
    Place,
    Region,
    Size,
    Source,
    need,
    numbers,
    optional,
    read_json,
    split_of_path,
)

_MASKS = ("mask", "raster_layer")


def read_darwin(source: Source) -> Export:
    """Read each JSON file with an item or image and its annotations."""
    export = Export()
    for file in source.suffixed(".json"):
        tree = read_json(file)
        key = next((one for one in ("item", "image") if isinstance(tree, dict) and one in tree), "")
        if not key or "annotations" not in tree:
            export.notes["JSON files without `item` and `annotations`, left out"] += 1
            continue
        export.pictures.append(_picture(source, export, tree, key, Place(file)))
    if not export.pictures:
        raise InputError("found no JSON file with `item` and `annotations`", file=source.given)
    return export.take_labels()


def _picture(
    source: Source, export: Export, tree: dict[str, Any], key: str, place: Place
) -> Picture:
    item, at = need(tree, key, dict, place), place.at(key)
    name = need(item, "name" if key == "item" else "filename", str, at)
    split = split_of_path(place.file, source.root)
    image = source.image(name, at, near=place.file.parent, split=split)
    slots = optional(item, "slots", list, at) or [item]
    size: Size | None = None
    if isinstance(slots[0], dict) and {"height", "width"} <= slots[0].keys():
        size = need(slots[0], "height", int, at), need(slots[0], "width", int, at)
    listed, at = need(tree, "annotations", list, place), place.at("annotations")
    regions = [_region(export, one, at.at(number)) for number, one in enumerate(listed)]
    return Picture(image, place, [one for one in regions if one], split, size)


def _region(export: Export, one: Any, place: Place) -> Region | None:
    label = need(one, "name", str, place)
    if any(kind in one for kind in _MASKS):
        hint = "export polygons, or masks as PNG"
        raise place.fault("masks of V7's raster layers are not read", hint=hint)
    if "polygon" in one:
        shape, at = need(one, "polygon", dict, place), place.at("polygon")
        paths = optional(shape, "paths", list, at)
        if not paths:
            more = optional(shape, "additional_paths", list, at) or []
            paths = [need(shape, "path", list, at), *more]  # as in version 1
        rings = [_ring(path, at.at(number)) for number, path in enumerate(paths)]
        return Region(label, partial(raster.with_holes, rings, place=at))
    if "bounding_box" in one:
        box, at = need(one, "bounding_box", dict, place), place.at("bounding_box")
        x, y, w, h = (float(need(box, key, (int, float), at)) for key in "xywh")
        ring = raster.rectangle(x, y, x + w, y + h)
        return Region(label, partial(raster.polygons, [ring], place=at), is_box=True)
    export.notes["annotations without an area, left out"] += 1
    return None


def _ring(path: Any, place: Place) -> FloatArray:
    if not isinstance(path, list):
        raise place.fault("a path must be a list of {x, y}")
    values = [[need(one, key, (int, float), place) for key in "xy"] for one in path]
    return numbers(values, place).reshape(-1, 2)
