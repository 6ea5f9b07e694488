"""Label Studio: its JSON export, a list of tasks.

Polygons and ellipses in per cent of the image and brush strokes are areas; rectangles are a
detector's boxes. Later regions cover earlier ones. Of several annotations of a task the one marked
as ground truth counts, else the newest that was not cancelled; a task without one is left out. The
export names images by address (`/data/upload/1/1a2b3c4d-name.jpg`): they are looked for by name,
with and without that prefix.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from study.core.errors import InputError
from study.data.convert import raster
from study.data.convert.export import (
    IMAGE_SUFFIXES,
    Export,
    Picture,
    Place,
    Region,
    Rle,
    Size,
    Source,
    need,
    numbers,
    other_tool,
    points,
    read_json,
    split_of_path,
)

_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # of an uploaded file
_CHANNELS = 4  # a brush stroke is an image in RGBA; its opacity is the mask
_SHAPES = ("polygon", "brush", "ellipse", "rectangle")
_NUMBER = (int, float)


def read_labelstudio(source: Source) -> Export:
    """Read the tasks."""
    trees = {file: read_json(file) for file in source.suffixed(".json")}
    export = Export()
    hint = ""
    for file, tree in trees.items():
        place = Place(file)
        if not isinstance(tree, list) or not all(isinstance(one, dict) for one in tree):
            hint = hint or other_tool(tree)
            continue
        for index, task in enumerate(tree):
            at = place.at(index)
            if "annotations" not in task:
                raise at.fault(
                    "missing required key 'annotations'", hint="export as JSON, not JSON-MIN"
                )
            if picture := _picture(source, export, task, at):
                export.pictures.append(picture)
    if not export.pictures:
        hint = hint or "export as JSON"
        raise InputError("found no JSON file with annotated tasks", hint=hint, file=source.given)
    return export.take_labels()


def _picture(source: Source, export: Export, task: dict[str, Any], place: Place) -> Picture | None:
    listed = need(task, "annotations", list, place)
    done = [
        (index, one)
        for index, one in enumerate(listed)
        if isinstance(one, dict) and not one.get("was_cancelled")
    ]
    if not done:
        export.notes["tasks without an annotation, left out"] += 1
        return None
    if len(done) > 1:
        export.notes["tasks of several annotations, where ground truth or the newest counts"] += 1
    index, chosen = max(
        done, key=lambda one: (bool(one[1].get("ground_truth")), str(one[1].get("updated_at")))
    )
    at = place.at("annotations").at(index)
    results = need(chosen, "result", list, at)
    at = at.at("result")
    labels = {str(one.get("id")): label for one in results if (label := _label_of(one))}
    regions, sizes = [], []
    for position, one in enumerate(results):
        if isinstance(one, dict) and isinstance(one.get("value"), dict):
            region, size = _region(export, one, labels, at.at(position))
            regions += [region] if region else []
            sizes += [size] if size else []
    if len(set(sizes)) > 1:
        raise at.fault(f"regions of one image state several sizes: {sorted(set(sizes))}")
    reference = _reference(need(task, "data", dict, place), place.at("data"))
    file = source.find(reference, place.at("data"))
    if file is None:
        path = PurePosixPath(reference)
        plain = path.with_name(_PREFIX.sub("", path.name))
        file = source.find(str(plain), place.at("data"))
    if file is None:
        raise source.missing(reference, place.at("data"))
    split = split_of_path(file, source.images_root)
    return Picture(file, place, regions, split, sizes[0] if sizes else None)


def _reference(data: dict[str, Any], place: Place) -> str:
    """The path of the task's image, out of an address."""
    for value in data.values():
        if isinstance(value, str):
            try:
                address = urlsplit(value)
            except ValueError:  # some text with a bracket
                continue
            paths = (*parse_qs(address.query).get("d", ()), unquote(address.path))
            for path in paths:
                if path.lower().endswith(IMAGE_SUFFIXES):
                    return path
    raise place.fault("the task has no image", allowed=IMAGE_SUFFIXES)


def _label_of(result: Any) -> str:
    """The label of a region, or nothing where another result of the same id has it."""
    value = result.get("value") if isinstance(result, dict) else None
    if isinstance(value, dict):
        for key in (str(result.get("type")), "labels"):
            found = value.get(key)
            if isinstance(found, list) and len(found) == 1:
                return str(found[0])
    return ""


def _region(
    export: Export, one: dict[str, Any], labels: dict[Any, str], place: Place
) -> tuple[Region | None, Size | None]:
    kind = str(one.get("type")).removesuffix("labels")
    if kind not in _SHAPES:
        if one.get("type") != "labels":  # the label of another result of the same id
            export.notes[f"results of type {one.get('type')!r}, left out"] += 1
        return None, None
    size = need(one, "original_height", int, place), need(one, "original_width", int, place)
    if one.get("image_rotation"):
        raise place.at("image_rotation").fault(
            f"the image was turned by {one['image_rotation']} degrees in the tool",
            hint="turn the image file, and label it anew",
        )
    label = labels.get(str(one.get("id"))) or _label_of(one)
    if not label:
        raise place.fault("a region must have one label", hint="label it, or delete it in the tool")
    place = place.at("value")
    value = one["value"]
    if kind == "brush":
        code = need(value, "rle", list, place)
        mask = partial(_brush, code, place=place.at("rle"))
        return Region(label, mask), size
    if kind == "polygon":
        ring = points(need(value, "points", list, place), place.at("points"))
        return Region(label, partial(_per_cent, ring, 0, (0, 0), place=place)), size
    sides = ("radiusX", "radiusY") if kind == "ellipse" else ("width", "height")
    given = {"rotation": 0, **value}
    keys = ("x", "y", *sides, "rotation")
    parts = numbers([need(given, key, _NUMBER, place) for key in keys], place)
    x, y, across, down, angle = parts.tolist()
    shape = raster.ellipse if kind == "ellipse" else _from_corner
    ring = shape(x, y, across, down)
    draw = partial(_per_cent, ring, angle, (x, y), place=place)  # it is turned about (x, y)
    return Region(label, draw, is_box=kind == "rectangle"), size


def _from_corner(x: float, y: float, width: float, height: float) -> Any:
    return raster.rectangle(x, y, x + width, y + height)


def _per_cent(
    ring: Any, degrees: float, about: tuple[float, float], size: Size, place: Place
) -> Rle:
    """A polygon in per cent, turned in pixels about a point."""
    scale = np.array(size[::-1]) / 100
    in_pixels = raster.turned(ring * scale, degrees, tuple(np.array(about) * scale))
    return raster.polygons([in_pixels], size, place)


def _brush(code: list[Any], size: Size, place: Place) -> Rle:
    values = brush_values(code, size[0] * size[1] * _CHANNELS, place)
    return raster.bitmap(values.reshape(*size, _CHANNELS)[..., 3] > 0, size, place)


def brush_values(code: list[Any], wanted: int, place: Place) -> Any:
    """Decode Label Studio's run-length code of so many values, (wanted,) uint8.

    Bits from the highest of each byte on: 32 for the number of values, 5 for the bits of a value
    less 1, four times 4 for the bits of a length less 1; then blocks until there are enough values.
    A block has a bit (a run, or values one by one), 2 bits (which of the four), a length less 1 of
    so many bits, then one value or as many as the length says.
    """
    try:
        data = bytes(code)
    except (TypeError, ValueError):
        raise place.fault("the mask must be a list of bytes") from None
    end, at = 8 * len(data), 0

    def read(count: int) -> int:
        nonlocal at
        if at + count > end:
            raise place.fault("the mask ends too early", hint="export it again")
        window = int.from_bytes(data[at >> 3 : (at + count + 7) >> 3])
        at += count
        return window >> (-at % 8) & (1 << count) - 1

    total, bits = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    if bits > 8:
        raise place.fault(f"the mask must have values of at most 8 bits, got {bits}")
    if total != wanted:
        raise place.fault(f"the mask must have {wanted} values, four a pixel, got {total}")
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        is_run = read(1)
        length = read(lengths[read(2)]) + 1
        values[done : done + length] = (
            read(bits) if is_run else [read(bits) for _ in range(length)][: total - done]
        )
        done += length
    return values
