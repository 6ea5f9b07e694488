"""Regions of viewers of slides: a file for each image, which is called like it.

    a.geojson or a.json     QuPath: features with polygons, whose class is their `classification`
    a.xml                   ImageScope: Annotation/Regions/Region/Vertices, as in MoNuSeg
    a.xml                   ASAP: Annotation/Coordinates/Coordinate, as in Camelyon

Coordinates are pixels of the image. Holes are left free: inner rings of GeoJSON, and ImageScope's
regions that are marked as negative. Later regions cover earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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
    points,
    read_json,
    split_of_path,
)
from study.data.convert.xml_tree import parsed, place_of

_OBJECT, _BACKGROUND = "object", "background"
_POLYGONS = ("Polygon", "MultiPolygon")


def read_regions(source: Source) -> Export:
    """Read each GeoJSON and XML file that is called like an image."""
    export = Export()
    for file in (*source.suffixed(".geojson"), *source.suffixed(".json"), *source.suffixed(".xml")):
        place = Place(file)
        listed = [*(_of_xml if file.suffix.lower() == ".xml" else _of_json)(export, file, place)]
        if listed == [None]:
            export.notes["files without regions, left out"] += 1
            continue
        split = split_of_path(file, source.root)
        image = source.named(file.stem, place, near=file.parent, split=split)
        regions = [one for one in listed if one]
        export.pictures.append(Picture(image, place, regions, split))
    if not any(picture.regions for picture in export.pictures):
        message = "found no GeoJSON of polygons, nor XML of ImageScope or ASAP"
        raise InputError(message, file=source.given)
    return export.take_labels()


def _of_json(export: Export, file: Path, place: Place) -> Iterator[Region | None]:
    """The regions of a collection of features, of a list, or of one; [None] for another file."""
    tree = read_json(file)
    features = tree.get("features", [tree]) if isinstance(tree, dict) else tree
    if not isinstance(features, list) or not all(
        isinstance(one, dict) and one.get("type") == "Feature" for one in features
    ):
        yield None
        return
    if isinstance(tree, dict) and "crs" in tree:
        hint = "rasterize them with GDAL or QGIS first"
        raise place.at("crs").fault("coordinates of a map are not pixels", hint=hint)
    for number, one in enumerate(features):
        at = place.at("features").at(number)
        label = _class(one, at)
        shape = need(one, "geometry", dict, at)
        kind = need(shape, "type", str, at.at("geometry"))
        if kind not in _POLYGONS:
            export.notes["points and lines, which have no area, left out"] += 1
            continue
        at = at.at("geometry").at("coordinates")
        given = need(shape, "coordinates", list, at)
        for rings in given if kind == "MultiPolygon" else [given]:
            if not isinstance(rings, list) or not rings:
                raise at.fault("a polygon must be a list of rings")
            outlines = [points(ring, at) for ring in rings]
            yield Region(label, partial(raster.with_holes, outlines, place=at))


def _class(feature: dict[str, Any], place: Place) -> str:
    about = optional(feature, "properties", dict, place) or {}
    found = about.get("classification") or about.get("class") or about.get("label")
    found = found.get("name") if isinstance(found, dict) else found
    return str(found or _OBJECT)


def _of_xml(export: Export, file: Path, place: Place) -> Iterator[Region | None]:
    """The regions of ImageScope or ASAP; [None] for another file."""
    tree = parsed(file)
    if tree.tag not in ("Annotations", "ASAP_Annotations"):
        yield None
        return
    for one in tree.iter("Annotation"):
        for region, tag in (*((r, "Vertex") for r in one.iter("Region")), (one, "Coordinate")):
            corners = sorted(region.iter(tag), key=_order)
            at = place_of(region, place)
            if len(corners) < 3:
                if corners or tag == "Vertex":
                    export.notes["points and lines, which have no area, left out"] += 1
                continue
            ring = numbers([[c.get("X"), c.get("Y")] for c in corners], at)
            is_hole = region.get("NegativeROA") == "1"
            label = _BACKGROUND if is_hole else one.get("PartOfGroup") or one.get("Name") or _OBJECT
            label = _OBJECT if label == "None" else label
            yield Region(label, partial(raster.polygons, [np.asarray(ring)], place=at))


def _order(corner: ElementTree.Element) -> float:
    order = corner.get("Order", "0")
    return float(order) if order.replace(".", "", 1).isdecimal() else 0.0
