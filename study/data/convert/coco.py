"""COCO: one JSON file for each split, with polygons and run-length codes.

    annotations/instances_train2017.json   train2017/*.jpg        as COCO is published
    train/_annotations.coco.json           train/*.jpg            as Roboflow exports it
    result.json                            images/*.jpg           as Label Studio exports it
    panoptic_train2017.json                panoptic_train2017/*.png, images as above

An annotation has `segmentation`: a list of polygons, whose union counts, or {counts, size} as
numbers or as text, column by column. Later ones cover earlier ones; regions of a crowd
(`iscrowd: 1`) lie below all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    numbers,
    other_tool,
    read_json,
    split_of,
    split_of_path,
)

_PREFERRED = "instances_"  # beside captions_ and person_keypoints_ of the same images
_BELOW_ALL = -1


def read_coco(source: Source) -> Export:
    """Read all annotation files of the export."""
    files = source.suffixed(".json")
    if any(one.name.startswith(_PREFERRED) for one in files):
        files = [one for one in files if one.name.startswith(_PREFERRED)]
    trees = {file: read_json(file) for file in files}
    chosen = {file: tree for file, tree in trees.items() if _is_coco(tree)}
    chosen = {file: tree for file, tree in chosen.items() if tree["images"]} or chosen
    if not chosen:
        hint = next(filter(None, map(other_tool, trees.values())), "")
        message = "found no JSON file with images, annotations and categories"
        raise InputError(message, hint=hint, file=source.given)
    export = Export()
    labels: dict[str, None] = {}
    of_split: dict[str, Path] = {}
    for file, tree in chosen.items():
        split = split_of(file.stem) or split_of_path(file, source.root)
        if split in of_split:
            message = f"{of_split[split]} is of the same split: {split or 'none is named'}"
            raise InputError(message, hint="give one of the two files as SRC", file=file)
        of_split[split] = file
        labels |= dict.fromkeys(_File(source, export, file, tree, split).read())
    export.labels = [*labels]
    return export


def _is_coco(tree: Any) -> bool:
    return isinstance(tree, dict) and {"images", "annotations", "categories"} <= tree.keys()


class _File:
    def __init__(
        self, source: Source, export: Export, file: Path, tree: dict[str, Any], split: str
    ) -> None:
        self.source, self.export, self.split = source, export, split
        self.place, self.tree = Place(file), tree
        self.masks = source if source.images_root == source.root else Source.of(source.root)

    def read(self) -> list[str]:
        """Add the file's pictures to the export; returns the categories in the order of their
        ids."""
        names: dict[Any, str] = {}
        for place, one in self._listed("categories"):
            names[need(one, "id", (int, str), place)] = need(one, "name", str, place)
        regions: dict[Any, list[Region]] = {}
        for place, one in self._listed("images"):
            if regions.setdefault(need(one, "id", (int, str), place), []):
                raise place.fault(f"another image has the id {one['id']!r}")
        for place, one in self._listed("annotations"):
            if "segments_info" in one:
                regions[self._image(one, regions, place)] += self._segments(one, names, place)
                continue
            image = self._image(one, regions, place)
            region = self._region(one, self._category(one, names, place), place)
            regions[image] += [region] if region else []
        for place, one in self._listed("images"):
            reference = need(one, "file_name", str, place)
            found = self.source.image(
                reference, place.at("file_name"), near=place.file.parent, split=self.split
            )
            size = None
            if "height" in one and "width" in one:
                size = need(one, "height", int, place), need(one, "width", int, place)
            picture = Picture(found, place, regions[one["id"]], self.split, size)
            self.export.pictures.append(picture)
        return [names[key] for key in sorted(names, key=lambda key: (isinstance(key, str), key))]

    def _image(self, one: dict[str, Any], known: Mapping[Any, Any], place: Place) -> Any:
        image = need(one, "image_id", (int, str), place)
        if image not in known:
            raise place.at("image_id").fault(f"no image has the id {image!r}")
        return image

    def _category(self, one: dict[str, Any], names: Mapping[Any, str], place: Place) -> str:
        category = need(one, "category_id", (int, str), place)
        if category not in names:
            allowed = [f"{key} {name}" for key, name in names.items()]
            raise place.at("category_id").fault(f"unknown category {category!r}", allowed=allowed)
        return names[category]

    def _segments(
        self, one: dict[str, Any], names: Mapping[Any, str], place: Place
    ) -> list[Region]:
        """The regions of a panoptic mask. Its colours number segments: R + 256 G + 65536 B."""
        at = place.at("file_name")
        file = self.masks.image(
            need(one, "file_name", str, place),
            at,
            near=place.file.with_suffix(""),
            split=self.split,
        )
        found = []
        for index, segment in enumerate(need(one, "segments_info", list, place)):
            here = place.at("segments_info").at(index)
            number = need(segment, "id", int, here)
            label = self._category(segment, names, here)
            draw = partial(_segment, file, number, place=here)
            found.append(Region(label, draw, _BELOW_ALL if segment.get("iscrowd") == 1 else 0))
        return found

    def _listed(self, key: str) -> list[tuple[Place, Any]]:
        listed = need(self.tree, key, list, self.place)
        entries = [(self.place.at(key).at(index), one) for index, one in enumerate(listed)]
        for place, one in entries:
            if not isinstance(one, dict):
                raise place.fault("must be a mapping")
        return entries

    def _region(self, one: dict[str, Any], label: str, place: Place) -> Region | None:
        segmentation, z = one.get("segmentation"), _BELOW_ALL if one.get("iscrowd") == 1 else 0
        at = place.at("segmentation")
        if isinstance(segmentation, dict):
            return Region(label, partial(raster.coco_mask, segmentation, place=at), z)
        if segmentation:
            rings = _rings(segmentation, at)
            return Region(label, partial(raster.polygons, rings, place=at), z)
        if one.get("keypoints"):
            self.export.notes["annotations of keypoints alone, left out"] += 1
            return None
        if one.get("bbox"):
            at = place.at("bbox")
            box = numbers(one["bbox"], at)
            if box.shape != (4,):
                raise at.fault("bbox must be [x, y, width, height]")
            x, y, width, height = box.tolist()
            corners = raster.rectangle(x, y, x + width, y + height)
            return Region(label, partial(raster.polygons, [corners], place=at), z, is_box=True)
        self.export.notes["annotations without a shape, left out"] += 1
        return None


def _segment(file: Path, number: int, size: Size, place: Place) -> Rle:
    numbered = _numbers_of(file)
    if numbered.shape != size:
        raise place.fault(
            f"{file.name} must be as large as its image, {size}, got {numbered.shape}"
        )
    return raster.bitmap(numbered == number, size, place)


@lru_cache(maxsize=1)  # the segments of an image are drawn one after another
def _numbers_of(file: Path) -> NDArray[np.int32]:
    try:
        with Image.open(file, formats=("PNG",)) as picture:
            rgb = np.asarray(picture.convert("RGB"), np.int32)
    except Exception as error:  # damaged bytes make the reader raise anything
        raise InputError(f"cannot read the mask ({type(error).__name__})", file=file) from error
    return np.asarray(rgb @ np.array([1, 1 << 8, 1 << 16], np.int32))


def _rings(segmentation: Any, place: Place) -> list[FloatArray]:
    """Polygons as [x1, y1, x2, y2, ...], or one without the list around it."""
    if not isinstance(segmentation, list):
        raise place.fault("segmentation must be a list of polygons or {counts, size}")
    if not isinstance(segmentation[0], list):
        segmentation = [segmentation]
    return [flat_points(one, place.at(index)) for index, one in enumerate(segmentation)]
