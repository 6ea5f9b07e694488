"""SuperAnnotate's JSON of vector projects: a file for each image, or one `annotations.json`.

Polygons and ellipses are areas; what a polygon excludes are its holes. Later instances cover
earlier ones. `classes.json` has the names of classes that instances give by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
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
    split_of_path,
)

_BOXES = {"bbox": ("x1", "y1", "x2", "y2"), "rbbox": tuple(f"{a}{n}" for n in "1234" for a in "xy")}
_ENDS = (".json", "___objects", "___pixel")


def read_superannotate(source: Source) -> Export:
    """Read each JSON file of instances."""
    export = Export()
    trees = {file: read_json(file) for file in source.suffixed(".json")}
    names = _names(trees)
    for file, tree in trees.items():
        found = [*_images(tree, Place(file))]
        if not found and not _are_classes(tree):
            export.notes["JSON files without `instances`, left out"] += 1
        for name, about, instances, place in found:
            export.pictures.append(_picture(source, export, name, about, instances, names, place))
    if not export.pictures:
        raise InputError("found no JSON file with `instances`", file=source.given)
    return export.take_labels()


def _are_classes(tree: Any) -> bool:
    return isinstance(tree, list) and all(
        isinstance(one, dict) and {"id", "name"} <= one.keys() for one in tree
    )


def _names(trees: Mapping[Path, Any]) -> dict[int, str]:
    """The classes by number."""
    names: dict[int, str] = {}
    for file, tree in trees.items():
        for number, one in enumerate(tree if _are_classes(tree) else ()):
            at = Place(file).at(number)
            names[need(one, "id", int, at)] = need(one, "name", str, at)
    return names


def _images(tree: Any, place: Place) -> Iterator[tuple[str, dict[str, Any], list[Any], Place]]:
    """The name of each image of a file, what is said about it, and its instances."""
    if not isinstance(tree, dict):
        return
    if "instances" in tree:
        about = optional(tree, "metadata", dict, place) or {}
        name = place.file.name
        for end in _ENDS:
            name = name.removesuffix(end)
        name = optional(about, "name", str, place.at("metadata")) or name
        yield name, about, need(tree, "instances", list, place), place.at("instances")
        return
    for name, one in tree.items():  # all images of a project
        if isinstance(one, dict) and "instances" in one:
            at = place.at(name)
            about = optional(one, "metadata", dict, at) or {}
            yield name, about, need(one, "instances", list, at), at.at("instances")
        elif isinstance(one, list) and not name.startswith("___"):
            yield name, {}, one, place.at(name)


def _picture(
    source: Source,
    export: Export,
    name: str,
    about: dict[str, Any],
    instances: list[Any],
    names: Mapping[int, str],
    place: Place,
) -> Picture:
    split = split_of_path(place.file, source.root)
    image = source.image(name, place, near=place.file.parent, split=split)
    size: Size | None = None
    if about.get("height") is not None and about.get("width") is not None:
        size = need(about, "height", int, place), need(about, "width", int, place)
    regions = [_region(export, one, names, place.at(n)) for n, one in enumerate(instances)]
    return Picture(image, place, [one for one in regions if one], split, size)


def _region(export: Export, one: Any, names: Mapping[int, str], place: Place) -> Region | None:
    if isinstance(one, dict) and "parts" in one:
        hint = "export with fused images: those masks are read without a conversion"
        raise place.fault("instances of pixel projects are not read", hint=hint)
    kind = need(one, "type", str, place)
    if kind not in ("polygon", "ellipse", *_BOXES):
        export.notes["instances without an area, left out"] += 1
        return None
    label = optional(one, "className", str, place)
    if not label:
        number = need(one, "classId", int, place)
        if number not in names:
            raise place.at("classId").fault(f"no classes.json has a class {number}")
        label = names[number]
    rings, at = _rings(kind, one, place)
    return Region(label, partial(raster.with_holes, rings, place=at), is_box=kind in _BOXES)


def _rings(kind: str, one: dict[str, Any], place: Place) -> tuple[list[FloatArray], Place]:
    at = place.at("points")
    if kind == "ellipse":
        x, y, radius_x, radius_y = numbers(
            [need(one, key, (int, float), place) for key in ("cx", "cy", "rx", "ry")], place
        ).tolist()
        turn = float(optional(one, "angle", (int, float), place) or 0)
        ring = raster.ellipse(x, y, radius_x, radius_y)
        return [raster.turned(ring, turn, (x, y))], place
    if kind in _BOXES:
        corners = need(one, "points", dict, place)
        given = numbers([need(corners, key, (int, float), at) for key in _BOXES[kind]], at)
        return [raster.rectangle(*given.tolist()) if kind == "bbox" else given.reshape(-1, 2)], at
    holes = optional(one, "exclude", list, place) or []
    outer = flat_points(need(one, "points", list, place), at)
    return [outer, *(flat_points(hole, place.at("exclude")) for hole in holes)], at
