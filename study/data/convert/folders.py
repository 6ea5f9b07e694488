"""Images and labels of many folders in one: `python -m study.data convert folders SRC DST`.

    test/hard/images/7.jpg  test/hard/masks/7_mask.png     folders of unlike depth
    image_2/um_07.png  gt_image_2/um_road_07.png           a word inside the name
    anno/0/00007_skin.png  a. Train/3. Edema/x_01_ED.tif   a binary mask for each class

A label belongs to the image whose words and numbers its own path has. Labels are copied as they
are; binary masks of classes are drawn over each other, smaller ones on top. Folders called train,
val or test, or with such a word in their names, are these splits.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from study.core.errors import InputError
from study.core.files import is_free
from study.data.convert import raster
from study.data.convert.export import Export, Picture, Place, Region, Rle, Size, split_of
from study.data.convert.write import Options, Written, splits_of, stems, whole_folder, write_folder
from study.data.first_look.gather import Gathered, gather
from study.data.first_look.values import NAME_FILES
from study.data.formats.folder_classes import SPLIT_OF

_FOREGROUND = "foreground"  # the class of masks that nothing else names


@dataclass
class Folders:
    """What was gathered: images by split ("" where there are none), what is left out; and, of
    masks of classes, the export that they make and what was written of it."""

    images: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    masks: tuple[Export, Written] | None = None


def convert_folders(root: Path, target: Path, *, images: str = "", labels: str = "") -> Folders:
    """Write the images of a folder with their labels to a folder that is new or empty.

    Args:
        root: the folder.
        target: the new folder.
        images, labels: what the paths of these have in them, where several could be meant.

    Raises:
        InputError: where it cannot be told which labels belong to which images.
    """
    if not root.is_dir():
        raise InputError("must be a folder", file=root)
    if not is_free(target):
        raise InputError("DST must be a new or an empty folder", file=target)
    found = gather(root, images, labels)
    if not found.kinds:
        return _copied(root, target, found)
    export = Export(notes=found.notes, labels=[one or _FOREGROUND for one in found.kinds])
    for image, some in found.labels.items():
        regions = [
            Region(kind or _FOREGROUND, partial(_drawn, file))
            for kind, file in some
            if _mask(file).any()
        ]
        split = _split(root, image, some)
        export.pictures.append(Picture(image, Place(image), regions, split))
    written = write_folder(export, target, Options(order="area"))
    return Folders(written.images, found.notes, (export, written))


def _split(root: Path, image: Path, labels: Sequence[tuple[str, Path]]) -> str:
    """The split that the nearest folder of an image speaks of, else that of its labels."""
    parts = [
        part
        for file in (image, *(file for _, file in labels))
        for part in reversed(file.relative_to(root).parts[:-1])
    ]
    return next((one for p in parts if (one := SPLIT_OF.get(p.lower()) or split_of(p))), "")


def _mask(file: Path) -> NDArray[np.bool_]:
    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("L")) > 0
    except (OSError, ValueError, SyntaxError) as error:
        message = f"cannot read the mask ({type(error).__name__})"
        raise InputError(message, file=file) from error


def _drawn(file: Path, size: Size) -> Rle:
    mask = _mask(file)
    if mask.shape != size:
        stated = " and the image ".join(f"{height}x{width}" for height, width in (mask.shape, size))
        raise InputError(f"the mask is {stated}", file=file)
    return raster.bitmap(mask, size, Place(file))


def _copied(root: Path, target: Path, found: Gathered) -> Folders:
    """Copy each image and its label, and the lists of names."""
    pictures = [
        Picture(image, Place(image), (), _split(root, image, some))
        for image, some in found.labels.items()
    ]
    splits = splits_of(pictures)
    told = Folders(notes=found.notes)
    with whole_folder(target) as folder:
        for one, stem in zip(pictures, stems(pictures, splits), strict=True):
            split = one.split if splits else ""
            ((_, label),) = found.labels[one.file]
            for what, file in (("images", one.file), ("labels", label)):
                copy = folder / what / split / f"{stem}{file.suffix}"
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            told.images[split] += 1
        for file in (*root.glob("*"), *root.glob("*/*")):
            if any(file.match(one) for one in NAME_FILES) and file.is_file():
                shutil.copyfile(file, folder / file.name)
    return told
