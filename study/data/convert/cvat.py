"""CVAT: `CVAT for images 1.1`, or `Segmentation mask 1.1`.

    annotations.xml    images/<subset>/<name>      polygons, boxes, ellipses, masks with a z_order
    labelmap.txt       SegmentationClass/<name>.png, ImageSets/Segmentation/<subset>.txt, and images

Boxes are areas, as in CVAT's own masks; polylines, points, cuboids and skeletons are none. A higher
z_order covers a lower one, and of one z_order the later shape the earlier. A mask's runs go row by
row through its own rectangle. Tracks are those of the other format, `CVAT for video`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from study.core.errors import InputError
from study.data.convert import raster
from study.data.convert.export import (
    Colour,
    Export,
    FloatArray,
    Picture,
    Place,
    Region,
    Rle,
    Size,
    Source,
    numbers,
    points,
    read_text,
    split_of,
)
from study.data.convert.xml_tree import parsed, place_of
from study.data.labels import read_colours
from study.data.splits import FileProblem, UInt8Array

_NO_AREAS = ("polyline", "points", "cuboid", "skeleton", "tag")
_OTHERS = ("attribute",)
_LABELMAP, _MASKS = "labelmap.txt", "SegmentationClass"


def read_cvat(source: Source) -> Export:
    """Read whichever of the two formats is there."""
    maps = [one for one in source.files if one.name == _LABELMAP]
    files = source.suffixed(".xml")
    if maps and not files:
        return _read_masks(source, maps[0])
    export = Export()
    labels: dict[str, None] = {}
    colours: dict[str, Colour] = {}
    for file in files:
        root = parsed(file)
        if root.tag != "annotations":
            continue
        place = Place(file)
        if root.find("track") is not None:
            hint = "export it as `CVAT for images 1.1`"
            raise place_of(root.find("track"), place).fault("this is `CVAT for video`", hint=hint)
        known = _labels(root, colours)
        found = [_picture(source, export, one, known, place) for one in root.findall("image")]
        used = (one.label for picture in found for one in picture.regions)
        labels |= dict.fromkeys(known or sorted({*used}))
        export.pictures += found
    if not export.pictures:
        message = f"found neither an XML file with <annotations> and images, nor {_LABELMAP}"
        raise InputError(message, file=source.given)
    export.labels, export.colours = [*labels], colours
    return export


def _labels(root: ElementTree.Element, colours: dict[str, Colour]) -> list[str]:
    """The names that the head of the file lists, without those of parts of skeletons."""
    names = []
    for one in root.findall("meta/*/labels/label"):
        name, colour = one.findtext("name") or "", (one.findtext("color") or "").lstrip("#")
        if one.findtext("parent"):
            continue
        names.append(name)
        if len(colour) == 6 and all(digit in "0123456789abcdefABCDEF" for digit in colour):
            red, green, blue = bytes.fromhex(colour)
            colours[name] = red, green, blue
    return names


def _picture(
    source: Source, export: Export, one: ElementTree.Element, known: list[str], above: Place
) -> Picture:
    place = place_of(one, above)
    split = split_of(one.get("subset") or "")
    height, width = (_number(one, key, place) for key in ("height", "width"))
    regions = [_region(export, shape, known, above) for shape in one]
    name = _text(one, "name", place)
    file = source.image(name, place, split=split)
    kept = [region for region in regions if region]
    return Picture(file, place, kept, split, (int(height), int(width)))


def _region(
    export: Export, shape: ElementTree.Element, known: list[str], above: Place
) -> Region | None:
    place = place_of(shape, above)
    if shape.tag in _OTHERS:
        return None
    if shape.tag in _NO_AREAS:
        export.notes["lines, points, cuboids and tags, which have no area, left out"] += 1
        return None
    label = _text(shape, "label", place)
    if known and label not in known:
        raise place.fault(f"unknown label {label!r}", allowed=known)
    z = _number(shape, "z_order", place, 0)
    match shape.tag:
        case "polygon":
            pairs = [one.split(",") for one in _text(shape, "points", place).split(";")]
            return Region(label, _filled(points(pairs, place), place), z)
        case "box":
            export.notes["boxes, filled as in CVAT's own masks"] += 1
            corners = [_number(shape, key, place) for key in ("xtl", "ytl", "xbr", "ybr")]
            ring = raster.rectangle(*corners)
        case "ellipse":
            ring = raster.ellipse(*(_number(shape, key, place) for key in ("cx", "cy", "rx", "ry")))
        case "mask":
            keys = ("left", "top", "width", "height")
            box = tuple(int(_number(shape, key, place)) for key in keys)
            counts = _text(shape, "rle", place).split(",")
            return Region(label, partial(_unpacked, counts, box, place=place), z)
        case _:
            allowed = ("polygon", "box", "ellipse", "mask", *_NO_AREAS)
            raise place.fault(f"unknown shape <{shape.tag}>", allowed=allowed)
    angle = _number(shape, "rotation", place, 0)
    centre = ring.mean(0)
    return Region(label, _filled(raster.turned(ring, angle, centre), place), z)


def _filled(ring: FloatArray, place: Place) -> Any:
    return partial(raster.polygons, [ring], place=place)


def _unpacked(counts: list[str], box: tuple[int, ...], size: Size, place: Place) -> Rle:
    left, top, width, height = box
    raster.inside((height, width), size, place, left=left, top=top)  # before it takes memory
    part = raster.from_runs(counts, (height, width), place, order="C")
    return raster.bitmap(part, size, place, left=left, top=top)


def _text(element: ElementTree.Element, key: str, place: Place) -> str:
    value = element.get(key)
    if not value:
        raise place.fault(f"missing attribute {key!r}")
    return value


def _number(
    element: ElementTree.Element, key: str, place: Place, default: float | None = None
) -> float:
    if key not in element.attrib and default is not None:
        return default
    return float(numbers(_text(element, key, place), place))


def _read_masks(source: Source, labelmap: Path) -> Export:
    """Read masks painted in colours; each class of an image is one region."""
    colours = _labelmap(labelmap)
    masks = labelmap.parent / _MASKS
    splits: dict[str, str] = {}
    for listed in sorted((labelmap.parent / "ImageSets" / "Segmentation").glob("*.txt")):
        splits |= dict.fromkeys(read_text(listed).split("\n"), split_of(listed.stem))
    images = {
        one.relative_to(source.images_root): one
        for some in source.images.values()
        for one in some
        if not {_MASKS, "SegmentationObject"} & {*one.parts}
    }
    export = Export(labels=[*colours], colours=colours)
    for mask in sorted(masks.rglob("*.png")):
        name = mask.relative_to(masks).with_suffix("").as_posix()
        place = Place(mask)
        fitting = [one for path, one in images.items() if _ends(path, name)]
        if not fitting:
            raise source.missing(name, place)
        if len(fitting) > 1:
            raise place.fault(f"{len(fitting)} images fit the name {name!r}", hint="rename one")
        try:
            painted = read_colours(mask)
        except FileProblem as problem:
            raise place.fault(problem.message) from problem
        regions = _painted(painted, colours, place)
        picture = Picture(fitting[0], place, regions, splits.get(name, ""), painted.shape[:2])
        export.pictures.append(picture)
    if not export.pictures:
        raise InputError(f"found no PNG in {_MASKS}", file=labelmap.parent)
    return export


def _ends(path: Path, name: str) -> bool:
    return f"/{path.with_suffix('').as_posix()}".endswith(f"/{name}")


def _labelmap(file: Path) -> dict[str, Colour]:
    """`label:r,g,b:parts:actions`, a line each; `#` begins a comment."""
    found: dict[str, Colour] = {}
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            place = Place(file, number)
            name, _, rest = line.partition(":")
            colour = numbers(rest.partition(":")[0].split(","), place)
            if colour.shape != (3,) or not name:
                raise place.fault("a line must be `label:red,green,blue:parts:actions`")
            red, green, blue = (int(part) for part in colour)
            if (red, green, blue) in found.values():
                raise place.fault(f"another label has the colour {red},{green},{blue}")
            found[name] = red, green, blue
    return found


def _painted(painted: UInt8Array, colours: Mapping[str, Colour], place: Place) -> list[Region]:
    codes = _codes(painted)
    of_code = {int(_codes(np.array(colour))): name for name, colour in colours.items()}
    there = np.unique(codes).tolist()
    regions = []
    for code in there:
        colour = code >> 16, code >> 8 & 255, code & 255
        if code not in of_code and any(colour):  # black is of no label, whether it is listed or not
            allowed = [f"{name} {colours[name]}" for name in colours]
            raise place.fault(f"no label has the colour {colour}", allowed=allowed)
        if code in of_code:
            regions.append(Region(of_code[code], partial(_where, codes, code, place=place)))
    return regions


def _codes(colours: Any) -> Any:
    return colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def _where(codes: Any, code: int, size: Size, place: Place) -> Rle:
    return raster.bitmap(codes == code, size, place)
