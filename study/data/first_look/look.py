"""A first look at a folder: the classes.yaml that fits, and what it makes of the folder."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image

from study.config.task import FolderData
from study.core.errors import InputError
from study.data.first_look.drafts import classes_text
from study.data.first_look.layout import Layout, gather_command, layout, layout_by_tables
from study.data.first_look.pictures import look_like_labels
from study.data.first_look.values import meaning
from study.data.formats.folder import CLASSES_FILE, folder_scan
from study.data.formats.folder_files import unpadded
from study.data.formats.folder_hints import pictures_in
from study.data.formats.folder_splits import UNDIVIDED
from study.data.labels import read_image
from study.data.scan import Pair, Scan
from study.data.splits import FileProblem

SIZED, SOME = 500, 50  # images whose size is looked at, pairs that are compared
ORIENTATION, ACROSS = ExifTags.Base.Orientation, range(5, 9)  # those that swap the sides
SOME_CLASSES = {"classes": ["background", "other"]}  # to pair files before their labels are read
T = TypeVar("T")


@dataclass(frozen=True)
class FirstLook:
    """What is in a folder.

    Attributes:
        classes: the text of a classes.yaml; empty where the folder has one.
        guesses: which of its keys are guesses, and why.
        labels: what stands in the labels, in words; empty where classes.yaml was there.
        left_out: folders and files that are taken for neither images nor labels.
        counts: images by split.
        sizes: how many images have each (height, width); of many, of some.
        scan: the folder as this classes.yaml describes it, with the faults of its files.
    """

    classes: str
    guesses: Mapping[str, str]
    labels: str
    left_out: Sequence[str]
    counts: Mapping[str, int]
    sizes: Counter[tuple[int, int]]
    scan: Scan


@dataclass
class _Draft:
    keys: Mapping[str, Any] = field(default_factory=dict)
    guesses: Mapping[str, str] = field(default_factory=dict)
    labels: str = ""
    left_out: Sequence[str] = ()


def first_look(root: Path, *, images: str | None = None, labels: str | None = None) -> FirstLook:
    """Look at a folder; write nothing in it.

    Args:
        root: the folder.
        images, labels: the folders of these in it, where it is known.

    Raises:
        InputError: where images and labels cannot be told or read; the line says what to do.
    """
    draft, text = _Draft(), ""
    if (root / CLASSES_FILE).is_file():
        scan = folder_scan(_config(root), root)
        faults = scan.findings.faults
        faults.sort(key=lambda one: (one.kind == UNDIVIDED) == (not scan.findings.pairs))
        if faults and (faults[0].kind == UNDIVIDED or not scan.findings.pairs):
            raise faults[0].counted(1)
        members = scan.members()
    else:
        draft = _draft(root, images, labels)
        text = classes_text(draft.keys, draft.guesses)
        with tempfile.TemporaryDirectory() as folder:
            scan, members = _scanned(root, Path(folder), text, lambda scan: scan.members())
    counts = {split: len(some) for split, some in members.items()}
    sizes = _sizes([pair for some in members.values() for pair, _ in some])
    return FirstLook(text, draft.guesses, draft.labels, draft.left_out, counts, sizes, scan)


def _draft(root: Path, images: str | None, labels: str | None) -> _Draft:
    try:
        found, scan, pairs = _paired(root, lambda empty: layout(root, empty, images, labels))
    except InputError:
        by_tables = layout_by_tables(root)
        if by_tables is None:
            raise
        found, scan, pairs = _paired(root, lambda _: by_tables)
    strays = [one for one in scan.findings.faults if one.kind in ("missing image", "missing")]
    if 2 * len(strays) > len(pairs) and (hint := gather_command(root)):
        raise InputError(strays[0].message, hint=hint, file=strays[0].file)
    if "masks" in found.keys:
        return _Draft(found.keys, found.guesses, "binary masks", found.left_out)
    bare = {fault.file for fault in scan.findings.faults if fault.kind == "missing label"}
    told = meaning(root, [pair.label for pair in pairs if pair.label is not None])
    keys, guesses = {**told.keys, **found.keys}, {**found.guesses, **told.guesses}
    if bare:
        _refuse_unpaired(root, pairs, sorted(Path(file) for file in bare if file))
        first = _first_class(told.keys)
        keys["missing_label"] = first
        guesses["missing_label"] = f"{len(bare)} images have no label: all of them {first}"
    if _differ_in_size(pairs):
        keys["resize_labels"] = True
        guesses["resize_labels"] = "labels are of another size than their images"
    return _Draft(keys, guesses, told.what, found.left_out)


def _paired(root: Path, look: Callable[[Path], Layout]) -> tuple[Layout, Scan, list[Pair]]:
    """A layout, and the pairs that it finds.

    Args:
        root: of the data set.
        look: from a classes.yaml that says nothing about files to the layout.
    """
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / CLASSES_FILE
        empty.write_text(classes_text(SOME_CLASSES, {}), encoding="utf-8")
        found = look(empty)
        some = {} if "masks" in found.keys else SOME_CLASSES
        text = classes_text({**some, **found.keys}, {})
        scan, pairs = _scanned(root, Path(folder), text, lambda scan: scan.findings.pairs)
    if not pairs:
        raise _no_pair(root, scan)
    return found, scan, pairs


def _scanned(root: Path, folder: Path, text: str, read: Callable[[Scan], T]) -> tuple[Scan, T]:
    """Scan the root as the text of a classes.yaml describes it, and read something of the scan.
    What is said of the text is said of the root's own file."""
    described = folder / CLASSES_FILE
    described.write_text(text, encoding="utf-8")
    try:
        scan = folder_scan(_config(root), root, described)
        return scan, read(scan)
    except InputError as error:
        if error.file is None or Path(error.file) != described:
            raise
        raise InputError(error.message, file=root / CLASSES_FILE, key=error.key) from error


def _refuse_unpaired(root: Path, pairs: Sequence[Pair], bare: Sequence[Path]) -> None:
    """Raise InputError where an image without a label looks like one, or a picture beside the
    labels has its name in its own: then names differ in a way that was not seen."""
    used = {file for pair in pairs for file in pair.files}
    labels = [pair.label for pair in pairs if pair.label is not None]
    folders = {label.parent for label in labels}
    spare = [
        folder / name
        for folder in sorted(folders)
        for name in pictures_in(folder, below=False)
        if folder / name not in used
    ]
    photos = not look_like_labels([pair.image for pair in pairs])
    for image in bare[:: max(1, len(bare) // SOME)]:
        named = [one for one in spare if one != image and _has_name(one, image)]
        near = [one for one in named if look_like_labels([one])]
        is_beside = photos and image.parent in folders
        if near or (is_beside and look_like_labels([image])):
            message = f"no label was found for {image.name}"
            message += f", but there is {near[0].name}" if near else ", which looks like one"
            hint = gather_command(root) or (
                f"name all labels as {labels[0].name} is, or `pairs: pairs.csv` in classes.yaml "
                "names a table with an image and its label in each row"
            )
            raise InputError(message, hint=hint, file=image.parent)


def _has_name(label: Path, image: Path) -> bool:
    """Whether a label's name has the whole name of an image in it, but for zeros and case."""
    own, other = (unpadded(one.stem).casefold() for one in (image, label))
    return re.search(rf"(?<![^\W_]){re.escape(own)}(?![^\W_])", other) is not None


def _differ_in_size(pairs: Sequence[Pair]) -> bool:
    """Whether some labels and their images, all of the proportions of these, differ in size."""
    sizes = []
    for pair in pairs[:: max(1, len(pairs) // SOME)]:
        try:
            with Image.open(pair.image) as image, Image.open(pair.label or pair.image) as label:
                turned = image.getexif().get(ORIENTATION, 1) > 1
                sizes.append((label.size if turned else image.size, label.size))
        except (OSError, ValueError, SyntaxError):
            continue
    alike = all(abs(a * d - b * c) <= max(a, b, c, d) for (a, b), (c, d) in sizes)
    return alike and any(one != other for one, other in sizes)


def _config(root: Path) -> FolderData:
    return FolderData(format="folder", size=(32, 32), root=str(root))


def _no_pair(root: Path, scan: Scan) -> InputError:
    for fault in scan.findings.faults:
        if fault.kind not in ("missing label", "missing image"):
            return fault
    files = {fault.kind: Path(fault.file).name for fault in scan.findings.faults if fault.file}
    shown = " and ".join(
        files[kind] for kind in ("missing label", "missing image") if kind in files
    )
    hint = gather_command(root) or (
        "rename the labels like their images, or `label_path` in classes.yaml says how they "
        "differ, or `pairs: pairs.csv` names a table with an image and its label in each row"
    )
    return InputError(f"no image has a label of its name, as in {shown}", hint=hint, file=root)


def _first_class(keys: Mapping[str, Any]) -> str:
    classes = keys.get("classes")
    if isinstance(classes, list):
        return str(classes[0])
    return str(next(iter((classes or keys["labels"]).values())))


def _sizes(pairs: Sequence[Pair]) -> Counter[tuple[int, int]]:
    """How many images have each (height, width): upright where their labels are."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(SIZED, len(pairs))).astype(int))
    found: Counter[tuple[int, int]] = Counter()
    _check_read(pairs[0].image)
    for index in chosen:
        pair = pairs[index]
        try:
            with Image.open(pair.image) as picture:
                size, turned = picture.size, picture.getexif().get(ORIENTATION, 1) in ACROSS
            if turned and pair.label is not None:
                with Image.open(pair.label) as label:
                    size = size[::-1] if label.size == size[::-1] else size
            found[size[1], size[0]] += 1
        except (OSError, ValueError, SyntaxError):
            _check_read(pair.image)
    return found


def _check_read(image: Path) -> None:
    """Raise the line about an image that cannot be read."""
    try:
        read_image(image)
    except FileProblem as problem:
        raise problem.counted(1) from problem
