"""Darwin, the JSON of V7: a file for each image, with polygons, masks and boxes.

Paths of one polygon are filled by the even-odd rule, so that one within another is a hole. Later
annotations cover earlier ones. The pixels of masks are in a raster layer: values and lengths by
turns, row by row, and the value of each mask. Version 2 names the image in `item`, version 1 in
`image`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from study.core.errors import InputError
from study.data.convert import raster
from study.data.convert.export import (
    Export,
    FloatArray,
    Picture,
    Place,
    Region,
    Rle,
    Size,
    Source,
    need,
    numbers,
    optional,
    read_json,
    split_of_path,
)

_LAYER = "raster_layer"
Mask = tuple[Place, FloatArray, int]  # the values and lengths of its layer, (N, 2), and its value


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
    masks = dict(_masks(listed, at))
    regions = [_region(export, one, masks, at.at(number)) for number, one in enumerate(listed)]
    return Picture(image, place, [one for one in regions if one], split, size)


def _masks(listed: list[Any], place: Place) -> Iterator[tuple[str, Mask]]:
    """The masks of all raster layers, by the annotation that they belong to."""
    for number, one in enumerate(listed):
        if not isinstance(one, dict) or _LAYER not in one:
            continue
        layer, at = need(one, _LAYER, dict, place.at(number)), place.at(number).at(_LAYER)
        runs = numbers(need(layer, "dense_rle", list, at), at.at("dense_rle"))
        if runs.ndim != 1 or len(runs) % 2:
            raise at.at("dense_rle").fault("must be values and lengths by turns")
        known = need(layer, "mask_annotation_ids_mapping", dict, at)
        for identity in known:
            value = need(known, identity, int, at.at("mask_annotation_ids_mapping"))
            yield identity, (at.at("dense_rle"), runs.reshape(-1, 2), value)


def _pixels(runs: FloatArray, value: int, size: Size, place: Place) -> Rle:
    """The mask of one value of a layer."""
    lengths = raster.runs(runs[:, 1], size[0] * size[1], place)
    return raster.bitmap(np.repeat(runs[:, 0] == value, lengths).reshape(size), size, place)


def _region(export: Export, one: Any, masks: dict[str, Mask], place: Place) -> Region | None:
    label = need(one, "name", str, place)
    if _LAYER in one:
        return None
    if "mask" in one:
        identity = need(one, "id", str, place)
        if identity not in masks:
            raise place.fault("no raster layer of the image has this mask", hint="export it again")
        at, runs, value = masks[identity]
        return Region(label, partial(_pixels, runs, value, place=at))
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
