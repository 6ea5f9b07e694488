"""YOLO segmentation: data.yaml with names and folders, and a text file for each image.

    images/train/a.jpg  labels/train/a.txt      or      train/images/a.jpg  train/labels/a.txt

A line of a text file is `class x1 y1 x2 y2 ...`, a polygon in fractions of the image; with four
numbers it is a detector's box, `class x y width height` with (x, y) its centre. Later lines cover
earlier ones. An image without a text file, or with an empty one, has no object.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from study.core.errors import InputError
from study.core.names import TEST, TRAIN, VAL
from study.core.yaml_file import read_yaml
from study.data.convert import raster
from study.data.convert.export import (
    IMAGE_SUFFIXES,
    Export,
    FloatArray,
    Picture,
    Place,
    Region,
    Rle,
    Size,
    Source,
    numbers,
    read_text,
    split_of_path,
)
from study.data.scan import files_below

_SLACK = 0.01  # of the image, by which rounding puts a point outside
_DATA = "data.yaml"
_NAMES = "classes.txt"  # what other tools write instead of data.yaml


def read_yolo(source: Source) -> Export:
    """Read the images of all splits."""
    if source.images_root != source.root:
        hint = "give the folder that holds images and labels as SRC"
        raise InputError("labels are found by the place of their image", hint=hint, key="--images")
    described = [one for one in source.files if one.name == _DATA]
    if len(described) == 1 and described[0].parent != source.root:  # one folder below
        source = Source.of(described[0].parent)
    names, folders = _description(source)
    export = Export(labels=[*dict.fromkeys(names.values())])
    used: set[Path] = set()
    for split, images in _images(source, folders).items():
        labels = {image: _label_file(image, source.root) for image in images}
        found = {image: file for image, file in labels.items() if file.is_file()}
        if images and not found:
            where = next(iter(labels.values())).parent
            hint = f"they are expected in {where}"
            raise InputError(
                f"no image has a label file: {split or 'all'}", hint=hint, file=source.root
            )
        _no_orphans(file for file in found.values() if "labels" in file.parts)
        for image in images:
            if image in used:
                raise InputError("the image is listed in two splits", file=image)
            regions = _regions(labels[image], names) if image in found else []
            of = split or split_of_path(image, source.root)
            export.pictures.append(Picture(image, Place(labels[image]), regions, of))
        used |= set(images)
    return export


def _description(source: Source) -> tuple[dict[int, str], Mapping[str, list[str]]]:
    """Names by class id, and what data.yaml lists for each split."""
    files = [one for one in source.files if one.suffix in (".yaml", ".yml")]
    top = [one for one in files if one.parent == source.root]
    for file in top:
        content = read_yaml(file).data
        if "names" in content:
            named = content["names"]
            pairs = named.items() if isinstance(named, dict) else enumerate(named or ())
            names = {int(key): str(name) for key, name in pairs if str(key).isdigit()}
            if not names:
                message = "names must be a list, or a mapping from id to name"
                raise InputError(message, file=file, key="names")
            return names, {
                split: [str(one) for one in ([value] if isinstance(value, str) else value)]
                for key, split in (("train", TRAIN), ("val", VAL), ("valid", VAL), ("test", TEST))
                if isinstance(value := content.get(key), str | list) and value
            }
    listed = source.root / _NAMES
    if listed.is_file():
        return dict(enumerate(map(str.strip, read_text(listed).strip().split("\n")))), {}
    hint = "it must hold `names: [...]` and `train:`; a folder is wanted, not a file"
    raise InputError("found no data.yaml with names", hint=hint, file=source.given)


def _images(source: Source, folders: Mapping[str, list[str]]) -> dict[str, list[Path]]:
    """The images of each split; all that lie below a folder `images` where nothing is listed."""
    if not any(map(folders.get, (TRAIN, VAL, TEST))):
        below = [one for some in source.images.values() for one in some]
        return {"": sorted(one for one in below if "images" in one.relative_to(source.root).parts)}
    found = {}
    for split, entries in folders.items():
        found[split] = [image for entry in entries for image in _entry(source, split, entry)]
    return found


def _entry(source: Source, split: str, entry: str) -> list[Path]:
    """A folder or a list of files that data.yaml names.

    Tools write `../train/images` for what is beside data.yaml, and paths of another machine: the
    end of the path that exists counts, and never anything outside the folder of the export.
    """
    parts = [one for one in entry.replace("\\", "/").split("/") if one not in ("", ".", "..")]
    for start in range(len(parts)):
        path = source.root.joinpath(*parts[start:])
        if path.is_dir():
            return [one for one in files_below(path) if one.suffix.lower() in IMAGE_SUFFIXES]
        if path.is_file():
            lines = [one.strip() for one in read_text(path).split("\n")]
            places = enumerate(lines, 1)
            return [source.image(one, Place(path, number)) for number, one in places if one]
    if split == TEST:  # Roboflow names one that is not there
        return []
    raise InputError(f"no folder {entry!r} below {source.root}", file=source.given, key=split)


def _label_file(image: Path, root: Path) -> Path:
    parts = [*image.relative_to(root).parts]
    folders = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def _no_orphans(found: Iterable[Path]) -> None:
    """Raise InputError for a label file in the same folders that has no image."""
    known = set(found)
    for folder in sorted({file.parent for file in known}):
        for name in sorted(os.listdir(folder)):
            file = folder / name
            if file.suffix == ".txt" and name != _NAMES and file not in known:
                raise InputError("the label file has no image", file=file)


def _regions(file: Path, names: Mapping[int, str]) -> list[Region]:
    regions = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        place = Place(file, number)
        first, *rest = numbers(line.split(), place).tolist()
        if first not in names:
            allowed = [f"{index} {name}" for index, name in names.items()]
            raise place.fault(f"unknown class {first:g}", allowed=allowed)
        if len(rest) % 2:
            raise place.fault("a polygon must be x and y by turns")
        if len(rest) < 4:
            raise place.fault(f"a polygon must have at least 3 points, got {len(rest) // 2}")
        if len(rest) == 4:
            x, y, width, height = rest
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            ring = raster.rectangle(*corners)
        else:
            ring = np.array(rest).reshape(-1, 2)
        if (ring < -_SLACK).any() or (ring > 1 + _SLACK).any():
            wrong = ring[((ring < -_SLACK) | (ring > 1 + _SLACK)).any(1)][0].tolist()
            message = f"coordinates must be fractions of the image in [0, 1], got {wrong}"
            raise place.fault(message)
        draw = partial(_scaled, ring, place=place)
        regions.append(Region(names[int(first)], draw, is_box=len(rest) == 4))
    return regions


def _scaled(ring: FloatArray, size: Size, place: Place) -> Rle:
    return raster.polygons([ring * size[::-1]], size, place)
