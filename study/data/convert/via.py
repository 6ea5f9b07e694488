"""VIA, the VGG Image Annotator: one JSON file for a folder, or a whole project.

Polygons, rectangles, circles and ellipses are areas; points and polylines are none. A region's
class is its attribute: of several, one that is called class, type, label, name or category, else
the one that most regions have.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from study.core.errors import InputError
from study.data.convert import raster
from study.data.convert.export import (
    Export,
    Picture,
    Place,
    Region,
    Source,
    need,
    numbers,
    optional,
    read_json,
    split_of,
    split_of_path,
)

_NO_AREAS = ("point", "polyline")
_OBJECT = "object"  # the class of regions without an attribute
_CLASS = re.compile(r"class|type|label|name|categor", re.IGNORECASE)
_PROJECT = "_via_img_metadata"


def read_via(source: Source) -> Export:
    """Read each JSON file of a project or of regions."""
    export = Export()
    for file in source.suffixed(".json"):
        tree = read_json(file)
        tree = tree.get(_PROJECT, tree) if isinstance(tree, dict) else tree
        if not isinstance(tree, dict) or not any(_is_entry(one) for one in tree.values()):
            export.notes["JSON files without `regions`, left out"] += 1
            continue
        split = split_of(file.stem) or split_of_path(file, source.root)
        attribute = _attribute([one for one in tree.values() if _is_entry(one)])
        for key, one in tree.items():
            place = Place(file).at(key)
            reference = need(one, "filename", str, place)
            found = source.image(reference, place, near=file.parent, split=split)
            regions = [_region(export, r, attribute, at) for at, r in _regions(one, place)]
            kept = [region for region in regions if region]
            export.pictures.append(Picture(found, place, kept, split))
    if not export.pictures:
        raise InputError("found no JSON file with `regions`", file=source.given)
    return export.take_labels()


def _is_entry(one: Any) -> bool:
    return isinstance(one, dict) and {"filename", "regions"} <= one.keys()


def _regions(one: Any, place: Place) -> list[tuple[Place, Any]]:
    """The regions, which are a list, or a mapping in files of VIA 1."""
    at = place.at("regions")
    regions = need(one, "regions", (list, dict), place)
    listed = regions.items() if isinstance(regions, dict) else enumerate(regions)
    return [(at.at(key), region) for key, region in listed]


def _attribute(entries: list[Any]) -> str:
    """The attribute that says a region's class; "" if there is none."""
    times: Counter[str] = Counter()
    for one in entries:
        for _, region in _regions(one, Place(Path())):
            given = region.get("region_attributes") if isinstance(region, dict) else None
            for key, value in given.items() if isinstance(given, dict) else ():
                times[key] += isinstance(value, str) and bool(value)
    return max(times, key=lambda key: (_CLASS.search(key) is not None, times[key], key), default="")


def _region(export: Export, region: Any, attribute: str, place: Place) -> Region | None:
    shape = need(region, "shape_attributes", dict, place)
    at = place.at("shape_attributes")
    kind = need(shape, "name", str, at)
    if kind in _NO_AREAS:
        export.notes["points and lines, which have no area, left out"] += 1
        return None
    about = optional(region, "region_attributes", dict, place) or {}
    label = str(about.get(attribute) or _OBJECT)

    def of(*keys: str) -> list[float]:
        return numbers([need(shape, key, (int, float), at) for key in keys], at).tolist()

    if kind == "polygon":
        x, y = (numbers(need(shape, f"all_points_{one}", list, at), at) for one in "xy")
        if x.shape != y.shape:
            raise at.fault(f"a polygon must have as many x as y, got {len(x)} and {len(y)}")
        ring = np.stack([x, y], 1)
    elif kind == "rect":
        left, top, width, height = of("x", "y", "width", "height")
        ring = raster.rectangle(left, top, left + width, top + height)
    elif kind == "circle":
        x0, y0, radius = of("cx", "cy", "r")
        ring = raster.ellipse(x0, y0, radius, radius)
    elif kind == "ellipse":
        x0, y0, radius_x, radius_y = of("cx", "cy", "rx", "ry")
        ring = raster.ellipse(x0, y0, radius_x, radius_y)
        angle = optional(shape, "theta", (int, float), at) or 0
        ring = raster.turned(ring, float(np.rad2deg(angle)), (x0, y0))
    else:
        allowed = ("polygon", "rect", "circle", "ellipse", *_NO_AREAS)
        raise at.at("name").fault(f"unknown shape {kind!r}", allowed=allowed)
    return Region(label, partial(raster.polygons, [ring], place=at))
