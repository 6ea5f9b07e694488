"""Datumaro's JSON, which CVAT writes too: `annotations/SUBSET.json` with all images of a subset.

Polygons, ellipses and masks (COCO's run-length codes) are areas. A higher `z_order` covers a lower
one, and then a later annotation an earlier one. A subset called train, val or test is that split.
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
    flat_points,
    need,
    numbers,
    optional,
    read_json,
    split_of,
)


def read_datumaro(source: Source) -> Export:
    """Read each JSON file with categories and items."""
    export = Export()
    labels: dict[str, None] = {}
    for file in source.suffixed(".json"):
        tree = read_json(file)
        if not isinstance(tree, dict) or not {"categories", "items"} <= tree.keys():
            export.notes["JSON files without `categories` and `items`, left out"] += 1
            continue
        names = _names(tree, Place(file))
        labels |= dict.fromkeys(names)
        at = Place(file).at("items")
        for number, item in enumerate(need(tree, "items", list, Place(file))):
            export.pictures.append(_picture(source, export, item, names, at.at(number)))
    if not export.pictures:
        raise InputError("found no JSON file with `categories` and `items`", file=source.given)
    export.labels = [*labels]
    return export


def _names(tree: dict[str, Any], place: Place) -> list[str]:
    at = place.at("categories")
    label = need(need(tree, "categories", dict, place), "label", dict, at)
    at = at.at("label")
    listed = need(label, "labels", list, at)
    return [need(one, "name", str, at.at("labels").at(n)) for n, one in enumerate(listed)]


def _picture(source: Source, export: Export, item: Any, names: list[str], place: Place) -> Picture:
    identity = need(item, "id", str, place)
    key = "image" if item.get("image") else "media"
    media, at = optional(item, key, dict, place) or {}, place.at(key)
    split = split_of(place.file.stem)
    path = optional(media, "path", str, at) or identity
    image = source.named(path, place, near=source.images_root / "images", split=split)
    size: Size | None = None
    if given := optional(media, "size", list, at):
        stated = numbers(given, at.at("size"))
        if stated.shape != (2,):
            raise at.at("size").fault("must be [height, width]")
        size = int(stated[0]), int(stated[1])
    listed, at = need(item, "annotations", list, place), place.at("annotations")
    regions = [_region(export, one, names, at.at(number)) for number, one in enumerate(listed)]
    return Picture(image, place, [one for one in regions if one], split, size)


def _region(export: Export, one: Any, names: list[str], place: Place) -> Region | None:
    kind = need(one, "type", str, place)
    if kind not in ("polygon", "ellipse", "mask", "bbox"):
        export.notes["annotations without an area, left out"] += 1
        return None
    number = need(one, "label_id", int, place)
    if not 0 <= number < len(names):
        raise place.at("label_id").fault(
            f"the categories have no label {number}", allowed=f"0 to {len(names) - 1}"
        )
    label, z = names[number], optional(one, "z_order", (int, float), place) or 0
    if kind == "mask":
        coded, at = need(one, "rle", dict, place), place.at("rle")
        return Region(label, partial(raster.coco_mask, coded, place=at), z)
    key = "bbox" if kind == "bbox" else "points"
    at = place.at(key)
    ring = _ring(kind, need(one, key, list, place), at)
    return Region(label, partial(raster.polygons, [ring], place=at), z, is_box=kind == "bbox")


def _ring(kind: str, given: list[Any], place: Place) -> FloatArray:
    if kind == "polygon":
        return flat_points(given, place)
    corners = numbers(given, place)
    if corners.shape != (4,):
        raise place.fault(f"must have 4 numbers, got {len(given)}")
    left, top, third, fourth = corners.tolist()
    if kind == "bbox":  # left, top, width, height
        return raster.rectangle(left, top, left + third, top + fourth)
    x, y = (left + third) / 2, (top + fourth) / 2
    return raster.ellipse(x, y, abs(third - left) / 2, abs(fourth - top) / 2)
