"""Labelbox: a line of JSON for each image (NDJSON), or the list of the older export.

Polygons are areas; later objects cover earlier ones. Masks are links to Labelbox, which nothing
here follows. Of several labels of an image, of several annotators, the first is taken; images
without a label are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from study.core.errors import InputError
from study.data.convert import raster
from study.data.convert.export import (
    Export,
    Picture,
    Place,
    Region,
    Size,
    Source,
    need,
    optional,
    points,
    read_json,
    read_text,
    split_of_path,
)

_LINES = (".ndjson", ".jsonl")
_MASKS = ("mask", "composite_mask", "instanceURI")
_ROW, _OLD = {"data_row", "projects"}, {"Label", "External ID"}
_BOX = ("left", "top", "width", "height")


def read_labelbox(source: Source) -> Export:
    """Read each file of data rows."""
    export = Export()
    files = {file for suffix in (*_LINES, ".json") for file in source.suffixed(suffix)}
    found = False
    for file in sorted(files):
        rows = [*_rows(file)]
        if not any(_is_row(row) for _, row in rows):
            export.notes["JSON files without Labelbox's data rows, left out"] += 1
            continue
        found = True
        for place, row in rows:
            if picture := _picture(source, export, row, place):
                export.pictures.append(picture)
    if not export.pictures:
        message = "found no labelled image" if found else "found no file of Labelbox's data rows"
        raise InputError(message, file=source.given)
    return export.take_labels()


def _rows(file: Path) -> Iterator[tuple[Place, Any]]:
    if file.suffix.lower() not in _LINES:
        tree = read_json(file)
        rows = tree if isinstance(tree, list) else [tree]
        yield from ((Place(file).at(number), row) for number, row in enumerate(rows))
        return
    for line, text in enumerate(read_text(file).split("\n"), start=1):
        if text.strip():
            place = Place(file, line=line)
            try:
                yield place, json.loads(text)
            except (ValueError, RecursionError) as error:
                raise place.fault("the line is not JSON", hint="export it again") from error


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and (row.keys() >= _ROW or row.keys() >= _OLD)


def _picture(source: Source, export: Export, row: Any, place: Place) -> Picture | None:
    if not _is_row(row):
        raise place.fault("must be a data row of Labelbox")
    size: Size | None = None
    if "data_row" in row:
        about, at = need(row, "data_row", dict, place), place.at("data_row")
        names = [optional(about, key, str, at) for key in ("external_id", "global_key", "row_data")]
        if media := optional(row, "media_attributes", dict, place):
            here = place.at("media_attributes")
            stated = [optional(media, key, int, here) for key in ("height", "width")]
            size = (stated[0], stated[1]) if None not in stated else None
        objects = _objects(export, row, place)
    else:
        at, names = place, [optional(row, "External ID", str, place)]
        label = optional(row, "Label", dict, place) or {}
        listed = optional(label, "objects", list, place.at("Label"))
        objects = None if listed is None else (place.at("Label/objects"), listed)
    if objects is None:
        export.notes["images without a label, left out"] += 1
        return None
    split = split_of_path(place.file, source.root)
    paths = [_path(name) for name in names if name]
    found = [one for path in paths if (one := source.find(path, at, split=split))]
    if not found:
        raise source.missing(paths[0], at) if paths else at.fault("the image has no external_id")
    here, listed = objects
    regions = [_region(export, one, here.at(number)) for number, one in enumerate(listed)]
    return Picture(found[0], place, [one for one in regions if one], split, size)


def _path(name: str) -> str:
    """A name, or what an address has of one."""
    try:
        return urlsplit(name).path if "://" in name else name
    except ValueError:
        return PurePosixPath(name).name


def _objects(export: Export, row: dict[str, Any], place: Place) -> tuple[Place, list[Any]] | None:
    """The objects of the first label of an image."""
    labels = []
    for key, project in need(row, "projects", dict, place).items():
        at = place.at("projects").at(key)
        for number, label in enumerate(need(project, "labels", list, at)):
            labels.append((at.at("labels").at(number), label))
    if not labels:
        return None
    export.notes["further labels of an image, left out"] += len(labels) - 1
    at, first = labels[0]
    made, at = need(first, "annotations", dict, at), at.at("annotations")
    return at.at("objects"), need(made, "objects", list, at)


def _region(export: Export, one: Any, place: Place) -> Region | None:
    if not isinstance(one, dict):
        raise place.fault("an object must be a mapping")
    label = optional(one, "name", str, place) or optional(one, "title", str, place)
    label = label or need(one, "value", str, place)
    if any(one.get(key) for key in _MASKS):
        hint = "download them as PNG files, one for each class (`masks:` in classes.yaml)"
        raise place.fault("masks are links to Labelbox, which are not followed", hint=hint)
    if one.get("polygon"):
        corners, at = need(one, "polygon", list, place), place.at("polygon")
        ring = points([[need(c, key, (int, float), at) for key in "xy"] for c in corners], at)
        return Region(label, partial(raster.polygons, [ring], place=at))
    key = next((key for key in ("bounding_box", "bbox") if one.get(key)), "")
    if key:
        box, at = need(one, key, dict, place), place.at(key)
        left, top, width, height = (float(need(box, side, (int, float), at)) for side in _BOX)
        ring = raster.rectangle(left, top, left + width, top + height)
        return Region(label, partial(raster.polygons, [ring], place=at), is_box=True)
    export.notes["objects without an area, left out"] += 1
    return None
