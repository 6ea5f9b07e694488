"""Writes what was read as a folder data set, whole or not at all, and counts what is in it."""

from __future__ import annotations

import io
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import ExifTags, Image

from study.core.errors import InputError, is_control
from study.core.files import is_free, make_folder, resolved
from study.core.names import TEST, TRAIN, VAL
from study.data.convert import raster
from study.data.convert.export import Export, Picture, Size
from study.data.labels import IGNORED
from study.data.progress_bar import progress
from study.data.splits import SPLITS, UInt8Array, default_palette

BACKGROUND = "background"
FRACTION = 0.15  # of the images, for val and for test each
_IGNORED_LABELS = ("__ignore__", "ignored")  # labelme's, and that of CVAT's masks
_FOLDER_SUFFIXES = (".jpg", ".jpeg", ".png")  # what the folder format reads unless it is told
_TURNED, _ACROSS = range(2, 9), range(5, 9)  # EXIF orientations; the second swap height and width

Order = Literal["file", "area"]
Unlabelled = Literal["background", "ignore"]


@dataclass(frozen=True)
class Options:
    """How labels are made of regions."""

    boxes: bool = False  # whether detectors' boxes are drawn
    order: Order = "file"  # later over earlier, or smaller over larger
    unlabelled: Unlabelled = "background"  # what pixels of no region are
    link: bool = False  # whether image files are linked instead of copied


@dataclass
class Written:
    """What a data set got. `pixels` are by class id, with the ignored ones at 255."""

    classes: list[str]
    rule: Mapping[str, str | float]  # how splits that the export lacks come about
    images: Counter[str] = field(default_factory=Counter)  # by split; one folder is ""
    objects: Counter[str] = field(default_factory=Counter)  # by label
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    empty: int = 0  # images without an object
    overlap: int = 0  # pixels where regions of different classes meet
    hidden: int = 0  # objects that lie below others altogether
    specks: int = 0  # objects too small for a pixel


def write_folder(export: Export, target: Path, options: Options) -> Written:
    """Write images, labels and classes.yaml to a folder that is new or empty.

    Raises InputError for the first fault of the export; then nothing is written.
    """
    target = resolved(target, "DST")
    if not is_free(target):
        raise InputError("DST must be a new or an empty folder", file=target)
    _drop_boxes(export, options)
    splits = splits_of(export.pictures)
    called = stems(export.pictures, splits)
    suffix = _suffix(export.pictures)
    sizes = [_label_size(one) for one in export.pictures]
    ids, names = _classes(export, options)
    written = Written(names, _rule(splits))
    palette = _palette(export, names)
    with (
        whole_folder(target) as folder,
        progress("converting", len(export.pictures)) as advance,
    ):
        for picture, size, stem in zip(export.pictures, sizes, called, strict=True):
            split = picture.split if splits else ""
            label = _label(picture, size, ids, options, written)
            written.images[split] += 1
            written.pixels += np.bincount(label.ravel(), minlength=256)
            image = folder / "images" / split / f"{stem}{picture.file.suffix}"
            _place_image(picture, image, link=options.link)
            _save(label, palette, folder / "labels" / split / f"{stem}.png")
            advance()
        text = _classes_yaml(export, written, suffix, is_flat=not splits)
        (folder / "classes.yaml").write_text(text, encoding="utf-8")
    return written


def _drop_boxes(export: Export, options: Options) -> None:
    """Count boxes and leave them out, unless they shall be drawn."""
    boxes = sum(one.is_box for picture in export.pictures for one in picture.regions)
    if boxes:
        export.notes[
            "boxes, filled"
            if options.boxes
            else "boxes without an outline, left out (--boxes fills them)"
        ] += boxes
    for index, picture in enumerate(export.pictures):
        kept = [one for one in picture.regions if options.boxes or not one.is_box]
        export.pictures[index] = replace(picture, regions=kept)
    if not any(picture.regions for picture in export.pictures):
        hint = "; ".join(f"{what}: {number}" for what, number in export.notes.items())
        raise InputError("no object of the export has an outline", hint=hint)


def splits_of(pictures: Sequence[Picture]) -> list[str]:
    """The splits that are kept; none where the export has one or none."""
    found = Counter(one.split for one in pictures)
    if found.keys() >= {TRAIN, VAL} or found.keys() >= {TRAIN, TEST}:
        if "" in found:
            stray = next(one for one in pictures if not one.split)
            raise stray.place.fault(
                f"the image is in no split, while others are in {TRAIN}",
                hint="name its folder or subset train, val or test",
            )
        return [split for split in SPLITS if split in found]
    return []


def _rule(splits: Sequence[str]) -> dict[str, str | float]:
    """The `splits:` of classes.yaml: what is not in the export."""
    if splits == [TRAIN, VAL]:
        return {TEST: VAL}
    return {split: FRACTION for split in (VAL, TEST) if split not in splits}


def stems(pictures: Sequence[Picture], splits: Sequence[str]) -> list[str]:
    """The name of each picture: that of its file, with those of its folders where files of
    several folders are called alike."""
    files = [one.file for one in pictures]
    above = os.path.commonpath([file.parent for file in files])
    keys = [(one.split if splits else "", one.file.stem) for one in pictures]
    times = Counter(key for key, _ in {*zip(keys, files, strict=True)})
    parts = [file.relative_to(above).with_suffix("").parts for file in files]
    is_plain = max(times.values()) == 1
    found = [own[-1] if is_plain else "_".join(own) for own in parts]
    seen: dict[tuple[str, str], Picture] = {}
    for one, (split, _), stem in zip(pictures, keys, found, strict=True):
        other = seen.setdefault((split, stem), one)
        if other is one:
            continue
        if other.file == one.file:
            raise one.place.fault(f"the image {one.file.name} is listed twice")
        raise one.place.fault(
            f"two images have the name {stem!r}: {other.file} and {one.file}",
            hint="rename one of them, in the export too",
        )
    return found


def _suffix(pictures: Sequence[Picture]) -> str:
    """The suffix that classes.yaml must name, or nothing."""
    found = sorted({one.file.suffix.lower() for one in pictures})
    if all(one in _FOLDER_SUFFIXES for one in found):
        return ""
    if len(found) > 1:
        message = f"images must be {', '.join(_FOLDER_SUFFIXES)} or all of one kind"
        raise InputError(f"{message}, got {', '.join(found)}", hint="save them as PNG")
    return found[0]


def _label_size(picture: Picture) -> Size:
    """The size of the image as the tool has shown it, upright or as it is stored."""
    file, place = picture.file, picture.place
    try:
        given = file if picture.content is None else io.BytesIO(picture.content)
        with Image.open(given) as image:
            stored, orientation = (image.height, image.width), _orientation(image)
    except Exception as error:  # damaged bytes make the reader raise anything
        message = f"cannot read the image ({type(error).__name__})"
        raise InputError(message, file=file) from error
    upright = stored[::-1] if orientation in _ACROSS else stored
    if orientation in _TURNED and upright == stored:
        raise InputError(
            f"EXIF orientation {orientation} is ambiguous: the image has one size both ways",
            hint="store the image as it was shown when it was labelled, without the orientation",
            file=file,
        )
    stated = picture.size or upright
    if stated not in (stored, upright):
        shown = f"{stated[0]}x{stated[1]}"
        raise place.fault(
            f"{file.name} is {stored[0]}x{stored[1]}, the export says {shown}",
            hint="give the images that were labelled, at their size",
        )
    return stated


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # as the reader of the folder format does: damaged EXIF turns nothing
        return None


def _meaning(label: str) -> str:
    """`background` for its many spellings."""
    return BACKGROUND if label.strip("_ ").lower() == BACKGROUND else label


def _classes(export: Export, options: Options) -> tuple[dict[str, int], list[str]]:
    """The class id of each label, and the names of the classes: those with an object, after the
    background."""
    used = {one.label for picture in export.pictures for one in picture.regions}
    labels = [one for one in export.labels if one in used and one not in _IGNORED_LABELS]
    unused = len({*export.labels} - used - {*_IGNORED_LABELS, BACKGROUND})
    if unused:
        export.notes["classes without an object, left out"] += unused
    has_background = options.unlabelled == BACKGROUND or BACKGROUND in map(_meaning, labels)
    names = [BACKGROUND] if has_background else []
    names = [*dict.fromkeys([*names, *map(_meaning, labels)])]
    for name in names:
        if not name or is_control(name):
            raise InputError(f"a class must have a printable name, got {name!r}")
    if len(names) > IGNORED:
        raise InputError(f"there must be at most {IGNORED} classes, got {len(names)}")
    if not names:
        raise InputError("no object of the export has a class", allowed="labels but __ignore__")
    ids = {label: names.index(_meaning(label)) for label in labels}
    return ids | dict.fromkeys(_IGNORED_LABELS, IGNORED), names


def _label(
    picture: Picture, size: Size, ids: dict[str, int], options: Options, written: Written
) -> UInt8Array:
    """Draw the regions of an image, (H, W) class ids."""
    drawn = [(one, one.draw(size)) for one in picture.regions]
    if options.order == "area":
        drawn.sort(key=lambda one: -raster.area(one[1]))
    else:
        drawn.sort(key=lambda one: one[0].z)
    owner = np.zeros(size, np.int32)
    unlabelled = 0 if options.unlabelled == BACKGROUND else IGNORED
    meaning = np.array([unlabelled, *(ids[one.label] for one, _ in drawn)], np.uint8)
    overlap = np.zeros(size, bool)
    for number, (_, coded) in enumerate(drawn, 1):
        part, mask = raster.decoded(coded)
        below = owner[part]
        overlap[part] |= mask & (below > 0) & (meaning[below] != meaning[number])
        below[mask] = number
    seen = np.bincount(owner.ravel(), minlength=len(meaning))[1:] > 0
    sizeless = np.array([raster.area(coded) == 0 for _, coded in drawn], bool)
    written.objects.update(_meaning(one.label) for one, _ in drawn)
    written.empty += not drawn
    written.overlap += int(overlap.sum())
    written.specks += int(sizeless.sum())
    written.hidden += int((~seen & ~sizeless).sum())
    return meaning[owner]


def _palette(export: Export, names: Sequence[str]) -> UInt8Array:
    palette = default_palette(256)
    palette[IGNORED] = 255
    for index, name in enumerate(names):
        if name in export.colours:
            palette[index] = export.colours[name]
    return palette


def _save(label: UInt8Array, palette: UInt8Array, file: Path) -> None:
    image = Image.fromarray(label)
    image.putpalette(palette.ravel().tolist())  # all 256 colours, so that it has 8 bits
    make_folder(file.parent)
    image.save(file)


def _place_image(picture: Picture, file: Path, *, link: bool) -> None:
    make_folder(file.parent)
    if picture.content is not None:
        file.write_bytes(picture.content)
    elif link:
        try:
            os.link(picture.file.resolve(), file)
        except OSError as error:
            message = f"cannot link {picture.file}: {error.strerror}"
            raise InputError(message, hint="leave it out", key="--link") from error
    else:
        shutil.copyfile(picture.file, file)


def _classes_yaml(export: Export, written: Written, suffix: str, *, is_flat: bool) -> str:
    content: dict[str, object] = {
        "classes": [
            {"name": name, "color": [*export.colours[name]]} if name in export.colours else name
            for name in written.classes
        ]
    }
    if suffix:
        content["image_suffix"] = suffix
    if written.rule:
        content["splits"] = written.rule
    if is_flat:
        content |= {"image_dir": "images", "label_dir": "labels"}
    head = "# Made by `python -m study.data convert`. A label of 255 is ignored.\n"
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to write, which becomes `target` when the block is left without an error."""
    make_folder(target.parent)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        yield partial
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
