"""What stands behind a name: where one image has several labels, or labels lie beside images."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from study.data.first_look.pictures import are_classes, by_area, look_like_labels
from study.data.formats.folder_classes import NAME
from study.data.formats.folder_files import unpadded
from study.data.formats.folder_hints import is_label

_NUMBER = re.compile(r"[-_ ]?\d*(?=\.\w+$)")
_WORD = re.compile(r"[-_. ][A-Za-z]+\.\w+$")
_CLASS = re.compile(r"[-_. ]+([A-Za-z][\w -]*)\.\w+")
_BEGIN = re.compile(r"([A-Za-z]+[-_. ]?)(\d[^.]*)(\.\w+)")
_SEPARATORS = "-_. "
COMPARED = 20  # images whose masks are compared


def numbered_masks(images: Sequence[str], labels: Sequence[Path], at: str) -> str:
    """The path of the masks of an image's objects, if its labels differ by a number behind its
    name; "" if not.

    images: names of files; labels: files, whose folder classes.yaml calls `at`.
    """
    stems = [_stem(one) for one in images]
    ends = behind(stems, [one.name for one in labels])
    known = {_NUMBER.sub("", one) for one, count in ends.items() if count > 1}
    several = [one for one in ends if _NUMBER.sub("", one) in known]
    if len(several) < 2 or len({_NUMBER.sub("", one) for one in several}) > 1:
        return ""
    shared = os.path.commonprefix(several).rstrip("0123456789")  # noqa: RUF071  (of characters)
    if any(one.startswith(f"{other}{shared}") for one in stems for other in stems):
        return ""
    if not look_like_labels(labels, 2):
        return ""
    return f"{at}/{NAME}{shared.removesuffix('.')}*{os.path.splitext(several[0])[1]}"


def masks_of_classes(images: Sequence[str], labels: Sequence[Path], at: str) -> dict[str, str]:
    """The paths of each class's masks, the largest first, if the labels of an image are masks of
    classes, and have the name of one behind its name; {} if not."""
    stems = [_stem(one) for one in images]
    ends = [end for end, count in behind(stems, [one.name for one in labels]).items() if count > 1]
    names = {end: match[1] for end in ends if (match := _CLASS.fullmatch(end))}
    if len(ends) < 2 or len({*names.values()}) < len(ends):
        return {}
    of: dict[str, list[Path]] = {end: [] for end in ends}
    drawn: dict[str, list[Path]] = {}
    for file in labels:
        end = max((one for one in ends if file.name.endswith(one)), key=len, default="")
        if end:
            of[end].append(file)
            drawn.setdefault(file.name.removesuffix(end), []).append(file)
    several = [files for files in drawn.values() if len(files) > 1][:COMPARED]
    if not several or not all(look_like_labels(files, 2) for files in several):
        return {}
    if not all(map(are_classes, several)):
        return {}
    return {names[end]: f"{at}/{NAME}{end}" for end in by_area(of)}


def beginnings(files: Sequence[Path]) -> tuple[str, str] | None:
    """The paths of images and of labels whose names begin with a word each, as image_1.png and
    mask_1.png; None if they do not."""
    groups: dict[tuple[str, str], dict[str, Path]] = {}
    for file in files:
        match = _BEGIN.fullmatch(file.name)
        if match is None:
            return None
        groups.setdefault((match[1], match[3]), {})[unpadded(match[2])] = file
    labels = [one for one, some in groups.items() if look_like_labels([*some.values()])]
    photos = [one for one in groups if one not in labels]
    if len(photos) != 1 or len(labels) != 1 or groups[photos[0]].keys() != groups[labels[0]].keys():
        return None
    image, label = (f"{begin}{NAME}{end}" for begin, end in (photos[0], labels[0]))
    return image, label


def images_among(names: Sequence[str]) -> list[str]:
    """Those whose name no other's begins, as `a.png` does `a_mask.png`'s; one for each name."""
    stems = sorted({_stem(one) for one in names}, key=len)
    known = {*stems}
    bare = {
        stem
        for stem in stems
        if not any(stem[:at] in known for at, sign in enumerate(stem) if sign in _SEPARATORS)
    }
    return [one for one in names if _stem(one) in bare]


def kinds(files: Sequence[Path]) -> tuple[str, list[str]] | None:
    """What the names of images end with, and those of each kind of label; None if unclear.

    The label that is called one comes first.
    """
    names = [file.name for file in files]
    images = images_among(names)
    ends = {os.path.splitext(one)[1] for one in images}
    found: Counter[str] = Counter()
    if len(images) < len(names) and len(ends) == 1:
        found = behind([_stem(one) for one in images], [n for n in names if n not in images])
        found[ends.pop()] = len(images)
    else:
        found.update(match[0] for one in names if (match := _WORD.search(one)))
    if found.total() < len(names):
        return None
    of = {end: [one for one in files if one.name.endswith(end)] for end in found}
    labels = [end for end in of if "." in end[1:] and look_like_labels(of[end])]
    photos = [end for end in of if end not in labels]
    if len(photos) != 1 or not labels:
        return None
    return photos[0], sorted(
        labels, key=lambda end: ("semantic" not in end.lower(), not is_label(end), end)
    )


def behind(stems: Sequence[str], labels: Sequence[str]) -> Counter[str]:
    """How many labels have what behind the name of an image."""
    known = {*stems}
    found: Counter[str] = Counter()
    for label in labels:
        cuts = [at for at in range(len(label), 0, -1) if label[:at] in known]
        if cuts:
            found[label[cuts[0] :]] += 1
    return found


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
