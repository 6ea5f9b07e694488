"""Which labels belong to which image, by the words and numbers of their paths.

Where images and labels lie in many folders, the paths of those that belong together still agree:

    CelebA-img/7.jpg           anno/0/00007_skin.png                        class skin
    train/Imgs/a_1.jpg         train/Imgs/a_1.png
    1. Images/a. Train/x_01.jpg    2. Truth/a. Train/3. Edema/x_01_ED.tif   class edema ed

A label belongs to the image whose own words and numbers it has: those of the image's name, and of
its folders those that labels have, too. Of several such images the one with the most of them is
meant. What a label has beyond that, and not all labels have, is its kind: a class.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.core.errors import InputError
from study.data.first_look.pictures import (
    BESIDE,
    PHOTO,
    are_alike,
    are_classes,
    are_masks,
    kind_order,
    look_like_labels,
)
from study.data.formats.folder_files import IMAGE_SUFFIXES, LABEL_SUFFIXES
from study.data.scan import files_below

_PICTURES = {one for group in (*IMAGE_SUFFIXES, *LABEL_SUFFIXES) for one in group}
_MOST_GROUPS, _MOST_ENDINGS = 300, 20
_COMPARED = 20  # images whose masks are compared
_STRAY = 0.1  # of the labels that are called alike may have no image
_TOKEN = re.compile(r"[^\W\d_]+|\d+")
BARE = "images without a label, left out"
UNLABELLED = "images in folders without labels, left out"
Tokens = tuple[str, ...]


class Several(InputError):
    """Several images fit a label, or an image has several labels.

    Attributes:
        what: `images` or `labels`.
        choice: what the paths of those to choose may have in them.
    """

    def __init__(self, message: str, root: Path, what: str, files: Sequence[Path]) -> None:
        shown = [file.relative_to(root).as_posix() for file in files]
        names = [Path(one).parent.name for one in shown]
        self.what = what
        if what == "images":
            self.choice = min(names, key=lambda one: (not PHOTO.search(one), one))
        else:
            self.choice = min(names, key=kind_order)
        hint = f"`--{what} {self.choice!r}` chooses those whose path has this in it"
        super().__init__(f"{message}: {' and '.join(shown)}", hint=hint, file=root)


@dataclass
class Gathered:
    """Images and their labels.

    Attributes:
        labels: of each image, its labels with their kinds. An image without one is among others
            that have some.
        kinds: the classes, where labels are binary masks of classes; () where an image has one.
        notes: what is left out, with its number.
    """

    labels: dict[Path, list[tuple[str, Path]]] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def labelled(self) -> int:
        return sum(map(bool, self.labels.values()))


@dataclass(frozen=True)
class _Key:
    """The own words and numbers of an image: of its name in their order, and of its folders."""

    image: Path
    name: Tokens
    folders: frozenset[str]


def gather(root: Path, images: str = "", labels: str = "") -> Gathered:
    """Find the images below a folder, and the labels of each.

    Args:
        root: the folder.
        images, labels: what the paths of these have in them, where several could be meant.

    Raises:
        InputError: where it cannot be told; the line says what to do.
    """
    photos, drawn = _groups(root, images, labels)
    if not photos or not drawn:
        there = "images" if photos else "labels"
        message = f"found only pictures that look like {there}"
        hint = "`--images` and `--labels` choose by a text in the path"
        raise InputError(message, hint=hint, file=root)
    told = [group for group in drawn if not are_alike(group)]
    drawn = told or drawn
    every = [file for group in drawn for file in group]
    words = {file: _tokens(root, file) for file in every}
    index = _Index(root, [file for group in photos for file in group], words.values())
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    found = Gathered({file: [] for group in photos for file in group})
    for group in drawn:
        of = {file: index.find(root, file) for file in group}
        if not any(of.values()):  # a folder of its name has an image's labels
            of = {file: index.find(root, file, by_folder=True) for file in group}
        if any(len(fit) > 1 for fit in of.values()):
            of = _by_place(of, words)
        for file, fit in of.items():
            if len(fit) > 1:
                message = f"several images fit the label {file.relative_to(root)}"
                raise Several(message, root, "images", [one.image for one in fit])
            if not fit:
                continue
            own = {*fit[0].name, *fit[0].folders} | shared
            kind = "_".join(one for one in words[file] if one not in own and not one.isdecimal())
            found.labels[fit[0].image].append((kind, file))
        bare = sum(not fit for fit in of.values())
        if bare < len(group) and bare > _STRAY * len(group):
            example = next(file for file, fit in of.items() if not fit)
            message = f"{bare} of {len(group)} labels have no image with the same words and numbers"
            hint = "rename them like their images, or name both in a table (`pairs`)"
            raise InputError(message, hint=hint, file=example)
        found.notes["labels without an image, left out"] += bare
    for group in photos:  # of which none has a label
        if not any(found.labels[file] for file in group):
            found.notes[UNLABELLED] += len(group)
            for file in group:
                del found.labels[file]
    if not found.labels:
        message = "no label has the words and numbers of an image's name"
        hint = "a table of images and labels (`pairs` in classes.yaml) says which belong together"
        raise InputError(message, hint=hint, file=root)
    _choose(root, found)
    return found


def _by_place(of: dict[Path, list[_Key]], words: Mapping[Path, Tokens]) -> dict[Path, list[_Key]]:
    """Of the images that fit a label equally well the one whose name comes first in the label's,
    or last, as in 0011_1.png: by which of the two more images have a label."""
    ways = []
    for is_last in (True, False):
        way = {}
        for file, fit in of.items():
            behind = [words[file][::-1].index(key.name[0]) if key.name else -1 for key in fit]
            edge = (min if is_last else max)(behind, default=0)
            way[file] = [key for key, at in zip(fit, behind, strict=True) if at == edge]
        ways.append(way)
    reached = [len({key.image for fit in way.values() for key in fit[:1]}) for way in ways]
    return of if reached[0] == reached[1] else ways[reached[1] > reached[0]]


def _groups(root: Path, images: str, labels: str) -> tuple[list[list[Path]], list[list[Path]]]:
    """The photographs and the labels, in groups of files that are called alike."""
    files = [file for file in files_below(root) if file.suffix.lower() in _PICTURES]
    files = [file for file in files if not BESIDE.search(file.relative_to(root).as_posix())]
    ends = Counter(_ending(file) for file in files)
    ends = ends if len(ends) <= _MOST_ENDINGS else Counter()
    groups: dict[tuple[str, str, str], list[Path]] = {}
    for file in files:
        end = _ending(file)
        form = re.sub(r"\d+", "0", file.parent.relative_to(root).as_posix())
        key = form, file.suffix.lower(), end if ends[end] > 1 else ""
        groups.setdefault(key, []).append(file)
    if len(groups) > _MOST_GROUPS:
        message = f"the pictures have {len(groups)} kinds of folders and names"
        hint = f"give a folder with at most {_MOST_GROUPS}, that of one data set"
        raise InputError(message, hint=hint, file=root)
    sides: tuple[list[list[Path]], list[list[Path]]] = ([], [])
    for group in groups.values():
        side = look_like_labels(group)
        chosen = (images, labels)[side]
        kept = [file for file in group if chosen in file.relative_to(root).as_posix()]
        if kept:
            sides[side].append(kept)
    return sides


def _ending(file: Path) -> str:
    """The word behind the last sign of a name, if it is one."""
    match = re.search(r"[-_. ]([^\W\d_]+)$", file.stem)
    return match[1].casefold() if match else ""


def _split(text: str) -> Tokens:
    found = _TOKEN.findall(text.casefold())
    return tuple(one.lstrip("0") or "0" if one.isdecimal() else one for one in found)


def _tokens(root: Path, file: Path) -> Tokens:
    return _split(file.relative_to(root).with_suffix("").as_posix())


class _Index:
    """Finds the images of a label, each by the rarest of its words and numbers."""

    def __init__(self, root: Path, images: Sequence[Path], labels: Iterable[Tokens]) -> None:
        names = [_split(file.stem) for file in images]
        folders = [{*_split(file.parent.relative_to(root).as_posix())} for file in images]
        several = len(images) > 1
        same = {one for one in set.intersection(*map(set, names)) if not one.isdecimal()}
        above = set.intersection(*folders)
        told = {word for one in labels for word in one}
        keys = [
            _Key(
                image,
                tuple(one for one in name if not (several and one in same)),
                frozenset((some & told) - (above if several else set())),
            )
            for image, name, some in zip(images, names, folders, strict=True)
        ]
        times = Counter(word for key in keys for word in {*key.name, *key.folders})
        self._by: dict[str, list[_Key]] = {}
        for key in keys:
            if own := key.name or tuple(sorted(key.folders)):
                self._by.setdefault(min(own, key=lambda one: times[one]), []).append(key)

    def find(self, root: Path, label: Path, *, by_folder: bool = False) -> list[_Key]:
        """The images that fit a label best.

        by_folder: whether the words of an image's name may be those of the label's folders.
        """
        whole = _tokens(root, label)
        name = whole if by_folder else _split(label.stem)
        near = {key.image: key for word in whole for key in self._by.get(word, ())}
        fit = [
            key
            for key in near.values()
            if key.folders <= {*(Counter(whole) - Counter(key.name))} and _is_within(key.name, name)
            if key.name or by_folder
        ]
        best = max(((len(key.name), len(key.folders)) for key in fit), default=None)
        return [key for key in fit if (len(key.name), len(key.folders)) == best]


def _is_within(some: Tokens, all_of: Tokens) -> bool:
    """Whether these are there in their order."""
    left = iter(all_of)
    return all(one in left for one in some)


def _choose(root: Path, found: Gathered) -> None:
    """Keep the one label of each image, or the masks of its classes.

    Raises:
        InputError: where an image has several labels that are no masks of classes.
    """
    has = {image: some for image, some in found.labels.items() if some}
    covers = Counter(kind for some in has.values() for kind in {kind for kind, _ in some})
    several = {image: some for image, some in has.items() if len(some) > 1}
    bare = len(found.labels) - len(has)
    if _all_binary([*has.values()]):
        compared = [[file for _, file in some] for some in several.values()][:_COMPARED]
        if 2 * sum(count == 1 for count in covers.values()) > len(covers):  # no words for classes
            covers = Counter({"": len(has)})
            for image, some in has.items():
                found.labels[image] = [("", file) for _, file in some]
        if len(covers) == 1 and (several or bare):
            found.kinds = (*covers,)
        elif len(covers) > 1 and all(map(are_classes, compared)):
            found.kinds = tuple(sorted(covers))
        if found.kinds:
            found.notes["images without a mask, all of them background"] += bare
            return
    whole = [kind for kind, count in covers.items() if count == len(has)]
    if several and len(whole) == 1:
        for image, some in has.items():
            found.labels[image] = [one for one in some if one[0] == whole[0]]
            found.notes["labels of other kinds, left out"] += len(some) - len(found.labels[image])
        several = {image: some for image, some in found.labels.items() if len(some) > 1}
    if several:
        image, some = next(iter(several.items()))
        message = f"several labels fit the image {image.relative_to(root)}"
        raise Several(message, root, "labels", [file for _, file in some])
    found.notes[BARE] += bare
    found.labels = {image: some for image, some in found.labels.items() if some}


def _all_binary(labels: Sequence[Sequence[tuple[str, Path]]]) -> bool:
    some = labels[:: max(1, len(labels) // _COMPARED)]
    return all(are_masks([file for _, file in one]) for one in some)
