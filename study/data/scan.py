"""The files under a data root: listed, paired and checked before the cache decodes them.

A format lists its tree into `Findings`, and defines how labels are read and which pair belongs to
which split. Faults are collected, not raised, so that a check can show all of them at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

import numpy as np
from PIL import Image

from study.config.task import FileData, FolderData
from study.core.errors import InputError
from study.core.names import TRAIN
from study.data.labels import ClassTable, LabelReader, as_labelled, read_image
from study.data.objects import Measured, find_objects
from study.data.progress_bar import progress
from study.data.splits import (
    SPLITS,
    Decoded,
    FileProblem,
    Source,
    SplitSource,
    UInt8Array,
    count_classes,
)

Suffixes = tuple[str, ...]
MaskReader = Callable[[Sequence[tuple[int, Path]], tuple[int, int]], UInt8Array]


@dataclass(frozen=True)
class Pair:
    """An image and its label.

    label: None where there is none, which the data set allows.
    masks: in place of a label, masks in drawing order, each with its class.
    """

    name: str
    image: Path
    label: Path | None
    masks: tuple[tuple[int, Path], ...] = ()

    @property
    def files(self) -> list[Path]:
        label = [] if self.label is None else [self.label]
        return [self.image, *label, *(file for _, file in self.masks)]


Members = Mapping[str, Sequence[tuple[Pair, int]]]  # split -> its pairs, each with its block id


@dataclass
class Findings:
    """The pairs found so far, and the faults found on the way."""

    pairs: list[Pair] = field(default_factory=list)
    faults: list[FileProblem] = field(default_factory=list)

    def fault(self, kind: str, message: str, file: Path, *, hint: str = "") -> None:
        self.faults.append(FileProblem(kind, message, file, hint=hint))

    def files(self, directory: Path, suffixes: Suffixes, *, want: str = "") -> dict[str, Path]:
        """List files by name without suffix, except hidden ones.

        want: what must be there at least once.
        """
        faults = len(self.faults)
        found = self.named(self.entries(directory), suffixes)
        if want and not found and len(self.faults) == faults:
            message = f"the folder has no {want} ({', '.join(suffixes)})"
            self.fault("missing", message, directory)
        return found

    def named(
        self, files: Sequence[Path], suffixes: Suffixes, *, below: Path | None = None
    ) -> dict[str, Path]:
        """The files with one of the suffixes, by name: without it, and with the folders `below` a
        given one."""
        found: dict[str, Path] = {}
        for path in files:
            suffix = next((s for s in suffixes if path.name.lower().endswith(s.lower())), None)
            if suffix is None:
                continue
            name = path.name[: -len(suffix)]
            if below is not None and path.parent != below:
                name = f"{path.parent.relative_to(below).as_posix()}/{name}"
            name = normalize("NFC", name)  # Macs write an umlaut as two characters
            if name in found:
                message = f"another file has the same name: {found[name].name}"
                self.fault("twice", message, path)
            found.setdefault(name, path)
        return found

    def tree(self, directory: Path) -> list[Path]:
        """All files in and below a folder, except hidden ones; no folder twice."""
        found, seen, ahead = [], {directory.resolve()}, [directory]
        while ahead:
            for path in self.entries(ahead.pop(0)):
                if not os.path.isdir(path):
                    found.append(path)
                elif (real := path.resolve()) not in seen:
                    seen.add(real)
                    ahead.append(path)
        return found

    def entries(self, directory: Path) -> list[Path]:
        """List the entries of a folder, except hidden ones."""
        try:
            return sorted(path for path in directory.iterdir() if not path.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            self.fault("missing", "the folder does not exist", directory)
        except OSError as error:
            message = f"cannot read the folder ({type(error).__name__})"
            self.fault("missing", message, directory)
        return []

    def pair(
        self, images: Mapping[str, Path], labels: Mapping[str, Path], image_dir: Path,
        label_dir: Path,
    ) -> list[Pair]:  # fmt: skip
        """Pair images and labels of one name, in name order. A missing folder is a fault
        already."""
        if not os.path.isdir(image_dir) or not os.path.isdir(label_dir):
            return []
        for mine, theirs, what, where in (
            (images, labels, "label", label_dir),
            (labels, images, "image", image_dir),
        ):
            for name in sorted(set(mine) - set(theirs)):
                message = f"no matching {what} in {where}"
                self.fault(f"missing {what}", message, mine[name])
        paired = [
            Pair(name, images[name], labels[name]) for name in sorted(images) if name in labels
        ]
        self.pairs += paired
        return paired


def files_below(root: Path) -> list[Path]:
    """All files below a folder but hidden ones, in the order of their names. A folder is read once,
    by a link only where nothing else leads to it; a link to a folder above is not followed."""
    found: list[Path] = []
    seen = {str(one) for one in root.resolve().parents}
    ahead, links = [root], list[Path]()
    while ahead or links:
        folder = ahead.pop() if ahead else links.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        with suppress(OSError):
            for path in sorted(one for one in folder.iterdir() if not one.name.startswith(".")):
                if not path.is_dir():
                    found.append(path)
                else:
                    (links if path.is_symlink() else ahead).append(path)
    return sorted(found)


def tree(root: Path, holds: Sequence[str], *, name: str, inside: Sequence[str] = ()) -> Path:
    """Find the folder that holds the folders of a format: the root, or one of `inside` below it.

    Raises InputError if no folder holds them all.
    """
    candidates = [root, *(root / name for name in inside)]
    missing = {at: [one for one in holds if not os.path.exists(at / one)] for at in candidates}
    best = min(candidates, key=lambda at: len(missing[at]))
    if missing[best]:
        wanted, without = ", ".join(holds), ", ".join(missing[best])
        hint = f"format {name} needs {wanted}"
        raise InputError(f"the folder has no {without}", hint=hint, file=best)
    return best


@dataclass(frozen=True, eq=False)
class Checked:
    """All faults of a tree and its files, and the number of images of each (height, width)."""

    problems: tuple[FileProblem, ...]
    sizes: Mapping[tuple[int, int], int]


@dataclass(frozen=True, eq=False)
class Scan:
    """A data set before it is decoded. `members` assigns the pairs to splits; `rule` says in words
    how."""

    name: str
    config: FileData
    root: Path
    table: ClassTable
    findings: Findings
    read_label: LabelReader
    members: Callable[[], Members]
    rule: str
    described_in: tuple[Path, ...] = ()  # other files whose change makes the cache stale
    read_masks: MaskReader | None = None
    missing: int | None = None  # the class of an image without a label
    resize_labels: bool = False  # whether they may be of another size than their images
    warnings: Callable[[Members], tuple[str, ...]] = lambda members: ()
    verdict: Callable[[], list[str]] | None = None  # warns, or raises, once all labels are read

    def source(self) -> Source:
        """Return what the cache builds from.

        Raises InputError for the first fault, with the number of faults of its kind, and if a split
        would be empty.
        """
        faults = self.findings.faults
        if faults:
            raise faults[0].counted(sum(one.kind == faults[0].kind for one in faults))
        members = self.members()
        for split in SPLITS:
            if not members[split]:
                raise InputError(f"split {split} has no images", hint=self.rule, key="data")
        return Source(
            name=self.name,
            class_names=self.table.names,
            palette=self.table.palette,
            ignore_index=self.table.ignore_index,
            mean=self.table.mean,
            std=self.table.std,
            size=self.config.size,
            key=self.config.model_dump(mode="json", exclude={"duplicates", "absent"})
            | {"root": str(self.root.resolve())},
            splits={split: self._split(split, members[split]) for split in SPLITS},
            state=self._state(members),
            rule=self.rule,
            warnings=self.warnings(members),
            verdict=self.verdict,
        )

    def check(self) -> Checked:
        """Decode every file and collect the faults."""

        def examine(pair: Pair) -> tuple[tuple[int, int] | None, list[FileProblem]]:
            image, _, problems = self._decode(pair)
            return (image.height, image.width) if image else None, problems

        examined = []
        with (
            progress(f"checking {self.name}", len(self.findings.pairs)) as advance,
            ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        ):
            for one in pool.map(examine, self.findings.pairs):
                examined.append(one)
                advance()
        problems = [problem for _, found in examined for problem in found]
        sizes = Counter(size for size, _ in examined if size)
        return Checked((*self.findings.faults, *problems), sizes)

    def read(self, pair: Pair) -> tuple[UInt8Array, UInt8Array]:
        """The image (H, W, 3) and classes (H, W) of a pair, at the config's size.

        Raises FileProblem for a file that cannot be used.
        """
        decoded = self._read(pair, with_objects=False)
        return decoded.image, decoded.label

    def _split(self, name: str, members: Sequence[tuple[Pair, int]]) -> SplitSource:
        return SplitSource(
            names=tuple(pair.name for pair, _ in members),
            groups=np.array([block for _, block in members], np.int64),
            read=lambda index: self._read(members[index][0], with_objects=name == TRAIN),
            files=tuple(pair.image for pair, _ in members),
            original=lambda index: self._original(members[index][0]),
        )

    def _state(self, members: Members) -> str:
        """Paths, names, sizes and times of all files, and the content of the files in
        `described_in`."""
        listed: list[object] = []
        for split in SPLITS:
            for pair, block in members[split]:
                listed.append([split, block])
                for path in pair.files:
                    of = _stat(path)
                    name = os.path.relpath(path, self.root)
                    listed.append([name, of.st_size, of.st_mtime_ns, of.st_ctime_ns])
        digest = hashlib.sha256(json.dumps(listed).encode())
        for file in self.described_in:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def _read(self, pair: Pair, *, with_objects: bool) -> Decoded:
        image, label, problems = self._decode(pair)
        if image is None or label is None or problems:
            raise problems[0]
        num_classes = len(self.table.names)
        objects = None
        if with_objects:
            whole = label.shape[0], label.shape[1]
            objects = find_objects(label, num_classes, lambda factor: self._shown(whole, factor))
        measured = Measured(count_classes(label, num_classes), objects)
        return Decoded(*self._fit(image, label), measured)

    def _original(self, pair: Pair) -> UInt8Array:
        image, _, problems = self._decode(pair)
        if image is None:
            raise problems[0]
        return np.asarray(image)

    def _decode(
        self, pair: Pair
    ) -> tuple[Image.Image | None, UInt8Array | None, list[FileProblem]]:
        image = label = None
        problems = []
        try:
            image = read_image(pair.image)
        except FileProblem as problem:
            problems.append(problem)
        try:
            label = self._label(pair, image)
            if image is not None and label is not None and pair.files[1:]:
                image = as_labelled(image, label, pair.image)
        except FileProblem as problem:
            problems.append(problem)
        if self.resize_labels and image is not None and label is not None:
            label = _resized(label, image.size)
        if image is not None and label is not None and label.shape != (image.height, image.width):
            wanted, got = f"{image.height}x{image.width}", "{}x{}".format(*label.shape)
            message = f"label must be as large as its image, {wanted}, got {got}"
            hint = "store both in one size, labels by the nearest pixel"
            fits = _resized(label, image.size).shape == (image.height, image.width)
            if fits and isinstance(self.config, FolderData):
                hint += "; `resize_labels: true` in classes.yaml does it"
            problems.append(FileProblem("size", message, pair.label or pair.image, hint=hint))
        return image, label, problems

    def _label(self, pair: Pair, image: Image.Image | None) -> UInt8Array | None:
        """The label of a pair; where there is none, that of an image without."""
        if pair.label is not None:
            return self.read_label(pair.label)
        if image is None:
            return None
        shape = image.height, image.width
        if self.read_masks is not None:
            return self.read_masks(pair.masks, shape)
        assert self.missing is not None
        return np.full(shape, self.missing, np.uint8)

    def _fit(self, image: Image.Image, label: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
        """Resize to the config's size: images with an antialiased bilinear filter, labels by the
        nearest pixel, which adds no new values."""
        height, width = self.config.size
        shown = self._shown((image.height, image.width))
        pixels = np.asarray(image.resize(shown[::-1], Image.Resampling.BILINEAR))
        classes = np.asarray(Image.fromarray(label).resize(shown[::-1], Image.Resampling.NEAREST))
        if shown == (height, width):
            return pixels, classes
        mean = np.round(255 * np.array(self.table.mean)).astype(np.uint8)
        images = np.broadcast_to(mean, (height, width, 3)).copy()
        labels = np.full((height, width), self.table.ignore_index, np.uint8)
        images[: shown[0], : shown[1]], labels[: shown[0], : shown[1]] = pixels, classes
        return images, labels

    def _shown(self, of: tuple[int, int], factor: float = 1.0) -> tuple[int, int]:
        """The (height, width) that a file of this size is resized to, at so many times the config's
        size."""
        height, width = (round(factor * length) for length in self.config.size)
        if self.config.fit == "stretch":
            return height, width
        scale = min(1.0, width / of[1], height / of[0])
        return max(1, round(of[0] * scale)), max(1, round(of[1] * scale))


def _resized(label: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """The label in the size (width, height) of its image if it has its proportions, to a pixel."""
    height, width = label.shape
    scale = size[0] / width
    if abs(scale * height - size[1]) > max(1.0, scale):
        return label
    return np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))


def _stat(file: Path) -> os.stat_result:
    try:
        found = file.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise FileProblem("unreadable", "not a regular file", file)
        return found
    except OSError as error:
        message = f"cannot read the file ({type(error).__name__})"
        raise FileProblem("unreadable", message, file) from error
