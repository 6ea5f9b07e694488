"""Which folders of a data set hold images, which labels, and how they are divided into splits."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from study.config.task import CamvidData, CityscapesData, FileData, SynthiaData, VocData
from study.core.errors import InputError
from study.core.names import TEST, TRAIN, VAL
from study.data import scan_files
from study.data.formats.folder_classes import SPLIT, SPLIT_OF, SYNONYMS, read_classes
from study.data.formats.folder_files import FolderFiles
from study.data.formats.folder_hints import (
    convert_command,
    is_label,
    pairing,
    pictures_in,
    split_lists,
    templates,
)
from study.data.scan import Findings
from study.data.splits import SPLITS

PUBLISHED = {
    "cityscapes": ("leftImg8bit", "gtFine"),
    "voc": ("VOCdevkit",),
    "synthia": ("GT/LABELS", "RGB"),
    "camvid": ("701_StillsRaw_full",),
}
"""By format, the folders that a published data set has."""
_FORMATS: Mapping[str, type[FileData]] = {
    "cityscapes": CityscapesData, "voc": VocData, "synthia": SynthiaData, "camvid": CamvidData,
}  # fmt: skip
FEW_COLOURS = 64  # a picture with no more is a label
LOOKED_AT = 5  # pictures of each folder
RATIO = 0.15
MOST_GROUPED = 0.5  # of the images may be in one group


@dataclass
class Layout:
    """What goes into classes.yaml about files, by key. guesses: which are guesses, and why."""

    keys: dict[str, object] = field(default_factory=dict)
    guesses: dict[str, str] = field(default_factory=dict)


def published_format(root: Path) -> str:
    """The format of a published data set whose whole tree lies here, or ""."""
    for name, folders in PUBLISHED.items():
        if all((root / folder).is_dir() for folder in folders):
            config = _FORMATS[name].model_validate({"format": name, "size": [32, 32]})
            try:
                if not scan_files(config, root).findings.faults:
                    return name
            except InputError:
                continue
    return ""


def layout(root: Path, empty: Path) -> Layout:
    """Find the images, the labels and the splits.

    Args:
        root: of the data set.
        empty: a classes.yaml that says nothing about files.

    Raises:
        InputError: where no images with labels can be told; the line says what there is.
    """
    found = Layout()
    there = templates(root)
    if not there:
        raise InputError("no pictures in this folder", file=root)
    labels = [one for one in there if is_label(one)]
    images = [one for one in there if one not in labels]
    if not labels and len(images) > 1:
        labels = [one for one in images if _looks_like_labels(root, one)]
        images = [one for one in images if one not in labels]
        for one in labels:
            found.guesses["label_dir"] = f"the pictures of {one} have few colours"
    if not images and len(labels) > 1:
        images = [one for one in labels if not _looks_like_labels(root, one)]
        labels = [one for one in labels if one not in images]
    if len(images) == 1 and len(labels) > 1 and (masks := _masks(root, labels)):
        found.keys["masks"] = masks
        found.guesses["masks"] = "each of these folders has the binary masks of one class"
        if images[0] not in ("images", f"images/{SPLIT}"):
            found.keys["image_dir"] = images[0]
        _divide(root, images[0], found)
        return found
    if len(images) != 1 or len(labels) > 1:
        raise _unclear(root, images, labels)
    image_dir = images[0]
    label_dir = labels[0] if labels else image_dir
    files = FolderFiles(root, read_classes(empty), Findings())
    found.keys |= {
        key: _for_all_splits(value) for key, value in pairing(image_dir, label_dir, files).items()
    }
    if not labels and not found.keys.keys() & {"label_suffix", "label_path"}:
        stems = Counter(name.rpartition(".")[0] for name in _some(root, image_dir))
        if not any(count > 1 for count in stems.values()):
            raise _unclear(root, images, labels)
    _divide(root, image_dir, found)
    return found


def _unclear(root: Path, images: list[str], labels: list[str]) -> InputError:
    command = convert_command(root)
    told = "; ".join(
        f"{what}: {', '.join(some) or 'none'}"
        for what, some in (("images", images), ("labels", labels))
    )
    hint = command or "write classes.yaml with image_dir and label_dir (or masks: a folder a class)"
    return InputError(f"cannot tell which pictures are labels ({told})", hint=hint, file=root)


def _for_all_splits(path: str) -> str:
    """A path in whose file's name a word for a split, as in 21_training.tif, is any text."""
    folder, slash, name = path.rpartition("/")
    if SPLIT not in folder or "{name}" not in name:
        return path
    words = "|".join(sorted(SPLIT_OF, key=len, reverse=True))
    return folder + slash + re.sub(rf"(?i)(?<![a-z])({words})(?![a-z])", "*", name)


def _masks(root: Path, folders: list[str]) -> dict[str, str]:
    """The folder of each class's masks, if these are such folders: of labels, and named apart."""
    parts = [{*folder.split("/")} for folder in folders]
    shared = set.intersection(*parts)
    names = ["_".join(p for p in one.split("/") if p not in shared) for one in folders]
    if not all(_looks_like_labels(root, one) for one in folders) or "" in names:
        return {}
    return dict(zip(names, folders, strict=True)) if len({*names}) == len(folders) else {}


def _looks_like_labels(root: Path, template: str) -> bool:
    names = _some(root, template)[:LOOKED_AT]
    directory = _directory(root, template)
    return bool(names) and all(_has_few_colours(directory / name) for name in names)


def _has_few_colours(file: Path) -> bool:
    try:
        with Image.open(file) as picture:
            if picture.mode in ("P", "1"):
                return True
            return picture.convert("RGB").getcolors(FEW_COLOURS) is not None
    except (OSError, ValueError, SyntaxError):
        return False


def _directory(root: Path, template: str) -> Path:
    words = [word for split in SPLITS for word in (split, *SYNONYMS[split])]
    forms = [form for word in words for form in (word, word.capitalize(), word.upper())]
    paths = [root / template.replace(SPLIT, form) for form in forms]
    return next((path for path in paths if path.is_dir()), root / template)


def _some(root: Path, template: str) -> list[str]:
    return pictures_in(_directory(root, template))


def _divide(root: Path, image_dir: str, found: Layout) -> None:
    """Find out how the images are divided, or divide them."""
    if SPLIT in image_dir:
        has = {
            split: any(
                pictures_in(root / image_dir.replace(SPLIT, form))
                for word in (split, *SYNONYMS[split])
                for form in (word, word.capitalize(), word.upper())
            )
            for split in SPLITS
        }
        if not has[TRAIN]:
            there = [split for split in SPLITS if has[split]]
            message = f"no images of train in {image_dir} (found: {', '.join(there) or 'none'})"
            raise InputError(message, file=root)
        if has[VAL] and not has[TEST]:
            found.keys["splits"] = {TEST: VAL}
            found.guesses["splits"] = "no test split: val is tested on, and carved anew from train"
        elif has[TEST] and not has[VAL]:
            found.keys["splits"] = {VAL: RATIO}
            found.guesses["splits"] = "no val split: a part of train"
        elif not has[VAL] and not has[TEST]:
            found.keys["splits"] = {VAL: RATIO, TEST: RATIO}
            found.guesses["splits"] = "no val and test: parts of train, by the hash of the name"
    elif lists := split_lists(root):
        found.keys["splits"] = {split: lists[split] for split in SPLITS if split in lists}
    else:
        found.keys["splits"] = {VAL: RATIO, TEST: RATIO}
        found.guesses["splits"] = "no splits found: parts of all images, by the hash of the name"
    splits = found.keys.get("splits")
    is_drawn = isinstance(splits, dict) and RATIO in splits.values()
    if is_drawn and (group := _group(_names(root, image_dir))):
        found.keys["group"] = group
        found.guesses["group"] = "names that begin alike stay in one split, such as frames"


def _names(root: Path, image_dir: str) -> list[str]:
    return [os.path.splitext(name)[0] for name in _some(root, image_dir)]


def _group(names: list[str]) -> str:
    """A pattern for the sequences that names tell of: a beginning and a number, several of each."""
    pattern = r"(.+?)[-_ ]?\d+$"
    begins = Counter(match[1] for name in names if (match := re.match(pattern, name)) is not None)
    several = [count for count in begins.values() if count > 1]
    enough = sum(several) == len(names) and len(several) >= 6
    return pattern if enough and max(several) <= MOST_GROUPED * len(names) else ""
