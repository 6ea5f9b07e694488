"""Encord's JSON: label rows, whose data units are images with objects.

Polygons and bitmasks are areas, in fractions of the image's width and height; the rings of a
polygon are filled by the even-odd rule, so that one within another is a hole. Later objects cover
earlier ones. Labels of videos belong to frames, for which there are no images: they are refused.
"""

from __future__ import annotations

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
    flat_points,
    need,
    optional,
    read_json,
    split_of_path,
)

_BOXES = {"bounding_box": "boundingBox", "rotatable_bounding_box": "rotatableBoundingBox"}


def read_encord(source: Source) -> Export:
    """Read each JSON file of label rows."""
    export = Export()
    for file in source.suffixed(".json"):
        tree = read_json(file)
        rows = tree if isinstance(tree, list) else [tree]
        if not any(isinstance(row, dict) and "data_units" in row for row in rows):
            export.notes["JSON files without `data_units`, left out"] += 1
            continue
        for number, row in enumerate(rows):
            place = Place(file).at(number) if isinstance(tree, list) else Place(file)
            at = place.at("data_units")
            for key, unit in need(row, "data_units", dict, place).items():
                export.pictures.append(_picture(source, export, unit, at.at(key)))
    if not export.pictures:
        raise InputError("found no JSON file with `data_units`", file=source.given)
    return export.take_labels()


def _picture(source: Source, export: Export, unit: Any, place: Place) -> Picture:
    title = need(unit, "data_title", str, place)
    labels, at = need(unit, "labels", dict, place), place.at("labels")
    if labels and "objects" not in labels:
        hint = "export images or image groups"
        raise at.fault("labels of the frames of a video are not read", hint=hint)
    split = split_of_path(place.file, source.root)
    image = source.named(title, place.at("data_title"), split=split)
    size: Size | None = None
    if unit.get("height") is not None and unit.get("width") is not None:
        size = need(unit, "height", int, place), need(unit, "width", int, place)
    listed, at = optional(labels, "objects", list, at) or [], at.at("objects")
    regions = [_region(export, one, at.at(number)) for number, one in enumerate(listed)]
    return Picture(image, place, [one for one in regions if one], split, size)


def _region(export: Export, one: Any, place: Place) -> Region | None:
    label = need(one, "name", str, place)
    kind = need(one, "shape", str, place)
    if kind == "polygon":
        rings, at = _rings(one, place)
        return Region(label, partial(_outline, rings, place=at))
    if kind == "bitmask":
        given, at = need(one, "bitmask", dict, place), place.at("bitmask")
        left, top, width, height = (
            need(given, key, int, at) for key in ("left", "top", "width", "height")
        )
        code = need(given, "rleString", str, at)
        return Region(label, partial(_bits, code, (height, width), place=at, left=left, top=top))
    if kind in _BOXES:
        box, at = need(one, _BOXES[kind], dict, place), place.at(_BOXES[kind])
        x, y, w, h = (float(need(box, key, (int, float), at)) for key in "xywh")
        turn = float(optional(box, "theta", (int, float), at) or 0)
        ring = raster.rectangle(x, y, x + w, y + h)
        return Region(label, partial(_outline, [ring], place=at, turn=turn), is_box=True)
    export.notes["objects without an area, left out"] += 1
    return None


def _rings(one: dict[str, Any], place: Place) -> tuple[list[FloatArray], Place]:
    """The rings of all polygons of an object: lists of x and y by turns, or in older exports one of
    {x, y} by number."""
    if one.get("polygons"):
        at = place.at("polygons")
        listed = need(one, "polygons", list, place)
        if not all(isinstance(polygon, list) for polygon in listed):
            raise at.fault("a polygon must be a list of rings")
        return [flat_points(ring, at) for polygon in listed for ring in polygon], at
    at = place.at("polygon")
    corners = need(one, "polygon", (list, dict), place)
    listed = [*corners.values()] if isinstance(corners, dict) else corners
    flat = [need(corner, key, (int, float), at) for corner in listed for key in "xy"]
    return [flat_points(flat, at)], at


def _outline(rings: list[FloatArray], size: Size, place: Place, turn: float = 0.0) -> Rle:
    """turn: clockwise about the middle, in degrees."""
    scaled = [ring * np.array(size[::-1], np.float64) for ring in rings]
    if turn:
        x, y = scaled[0].mean(0).tolist()
        scaled = [raster.turned(ring, turn, (x, y)) for ring in scaled]
    return raster.with_holes(scaled, size, place)


def _bits(code: str, shape: Size, size: Size, place: Place, *, left: int, top: int) -> Rle:
    raster.inside(shape, size, place, left=left, top=top)  # before memory is taken for it
    counts = raster.coco_counts(code, place.at("rleString"))
    part = raster.from_runs(counts, shape, place.at("rleString"), order="C")
    return raster.bitmap(part, size, place, left=left, top=top)
