"""The data set types: what a data set offers, and what a format must provide for one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from study.core.errors import InputError, is_control
from study.core.names import TEST, TRAIN, VAL
from study.data.objects import Measured, Survey
from study.data.palette import default_palette

SPLITS = (TRAIN, VAL, TEST)
MAX_CLASSES = 255  # labels are uint8
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """N decoded images of one size.

    Attributes:
        images: (N, H, W, 3) uint8 RGB; a memory map if it comes from the cache.
        labels: (N, H, W) uint8, in [0, C) or ignore_index.
        names: one name per image.
        groups: (N,) int64, the block of neighbouring images that the bootstrap resamples together.
        class_counts: (N, C) int64, pixels of each class in each image.
    """

    images: UInt8Array
    labels: UInt8Array
    names: tuple[str, ...]
    groups: IntArray
    class_counts: IntArray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Repeat:
    """An image that is in two splits.

    Attributes:
        splits: the two splits.
        names: its file in each; without files, its name there.
        is_plain: whether it has one colour.
    """

    splits: tuple[str, str]
    names: tuple[str, str]
    is_plain: bool


@dataclass(frozen=True, eq=False)
class SegmentationData:
    """A data set: three disjoint splits and the classes that they share.

    Attributes:
        name: name of the data set.
        class_names: one name per class, C in all.
        palette: (C, 3) uint8 RGB colours of the classes.
        ignore_index: label of the pixels that neither loss nor metrics count, in [C, 255].
        mean, std: (3,) RGB on a scale of 0..1, which normalise the images.
        fingerprint: sha256 of all that a result can depend on; equal for equal content.
        train, val, test: the splits.
        cache: the folder of the memory maps; None without a cache.
        rule: how the splits were made, in words.
        repeats: images that are in two splits; `open_data` looks for them.
        survey: what the labels hold before they are resized; only of data with a cache.
        warnings: what the format warns of, such as guessed edges.

    Examples:
        >>> import numpy as np
        >>> from study.data import SegmentationData
        >>> images = np.zeros((4, 32, 48, 3), np.uint8)
        >>> labels = np.zeros((4, 32, 48), np.uint8)
        >>> part = (images, labels)
        >>> data = SegmentationData.from_arrays("mine", ["a", "b"], train=part, val=part, test=part)
        >>> data.num_classes, len(data.train), data.train.class_counts[0].tolist()
        (2, 4, [1536, 0])
    """

    name: str
    class_names: tuple[str, ...]
    palette: UInt8Array
    ignore_index: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    train: Split
    val: Split
    test: Split
    cache: Path | None = field(default=None)
    rule: str = ""
    repeats: tuple[Repeat, ...] = ()
    survey: Survey | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def splits(self) -> dict[str, Split]:
        return {TRAIN: self.train, VAL: self.val, TEST: self.test}

    @staticmethod
    def from_arrays(
        name: str,
        class_names: Sequence[str],
        *,
        train: tuple[npt.ArrayLike, npt.ArrayLike],
        val: tuple[npt.ArrayLike, npt.ArrayLike],
        test: tuple[npt.ArrayLike, npt.ArrayLike],
        ignore_index: int = 255,
        palette: npt.ArrayLike | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        groups: Mapping[str, npt.ArrayLike] | None = None,
    ) -> SegmentationData:
        """Make a data set from arrays, for example in a factory.

        Args:
            name: name of the data set.
            class_names: one name per class; all different.
            train: (images, labels): images (N, H, W, 3) uint8 RGB, labels (N, H, W) uint8 in [0, C)
                or ignore_index. All splits have one size.
            val: the same for validation.
            test: the same for test.
            ignore_index: label of ignored pixels, not below C.
            palette: (C, 3) RGB in 0..255; default `study.data.palette.default_palette`.
            mean: (3,) RGB on a scale of 0..1; default that of ImageNet.
            std: likewise.
            groups: block ids (N,) by split, equal for neighbouring images; default one block per
                image.

        Raises:
            InputError: for other shapes, types or labels, for repeated names, and for an
                ignore_index that is a class.
        """
        num_classes = len(class_names)
        _check_header(class_names, ignore_index, mean, std)
        unknown = [split for split in groups or {} if split not in SPLITS]
        if unknown:
            raise InputError.unknown("split of groups", unknown[0], SPLITS, key="data")
        splits, sizes = {}, set()
        for split, pair in zip(SPLITS, (train, val, test), strict=True):
            images, labels = map(np.asarray, pair)
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
                raise _wrong(split, "images", "be (N, H, W, 3) uint8", images)
            if labels.dtype != np.uint8 or labels.shape != images.shape[:3] or not len(labels):
                shape = (max(1, len(images)), *images.shape[1:3])
                raise _wrong(split, "labels", f"be {shape} uint8", labels)
            outside = outside_classes(labels, num_classes, ignore_index)
            if outside is not None:
                message = f"labels must be below {num_classes} or {ignore_index}"
                raise InputError(f"{message}, got {outside}", key=f"data/{split}")
            group = np.asarray((groups or {}).get(split, np.arange(len(images))), np.int64)
            if group.shape != (len(images),):
                raise _wrong(split, "groups", f"be ({len(images)},)", group)
            sizes.add(labels.shape[1:])
            splits[split] = Split(
                images=images,
                labels=labels,
                names=tuple(f"{split}_{index:05d}" for index in range(len(images))),
                groups=group,
                class_counts=np.stack([count_classes(label, num_classes) for label in labels]),
            )
        if len(sizes) != 1:
            raise InputError(f"all images must have one size, got {sorted(sizes)}", key="data")
        header = fingerprint_header(class_names, ignore_index, mean, std)
        digest = hashlib.sha256(header)
        for part in splits.values():
            digest.update(content_header(part.images.shape, part.groups))
            for image, label in zip(part.images, part.labels, strict=True):
                digest.update(image.tobytes())
                digest.update(label.tobytes())
        return SegmentationData(
            name=name,
            class_names=tuple(class_names),
            palette=default_palette(num_classes)
            if palette is None
            else np.asarray(palette, np.uint8).reshape(num_classes, 3),
            ignore_index=ignore_index,
            mean=tuple(mean),
            std=tuple(std),
            fingerprint=digest.hexdigest(),
            train=splits[TRAIN],
            val=splits[VAL],
            test=splits[TEST],
        )


class Decoded(NamedTuple):
    """One image (H, W, 3) and its label (H, W), uint8, and what the label held in its own size."""

    image: UInt8Array
    label: UInt8Array
    measured: Measured


@dataclass(frozen=True, eq=False)
class SplitSource:
    """One split before it is decoded; `read(i)` returns an image of it.

    Images that come from files have them in `files`, and `original(i)` returns one as it is there.
    """

    names: tuple[str, ...]
    groups: IntArray
    read: Callable[[int], Decoded]
    files: tuple[Path, ...] = ()
    original: Callable[[int], UInt8Array] | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """What a format passes to the cache: quick to make; decodes only on request."""

    name: str
    class_names: tuple[str, ...]
    palette: UInt8Array
    ignore_index: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]  # (H, W)
    key: Mapping[str, Any]  # JSON: which data set this is
    splits: Mapping[str, SplitSource]
    state: str = ""  # changes when the files change
    rule: str = ""  # how the splits are made, in words
    warnings: tuple[str, ...] = ()
    verdict: Callable[[], list[str]] | None = None  # warns, or raises, once all has been decoded


class FileProblem(InputError):
    """A file that cannot be used. Problems of one kind are counted and shown as one line.

    hint: what helps against all of the kind.
    """

    def __init__(self, kind: str, message: str, file: Path | None, *, hint: str = "") -> None:
        super().__init__(message, file=file)
        self.kind, self.hint = kind, hint

    def counted(self, total: int) -> InputError:
        """Return the error to show if `total` files have this problem."""
        more = total - 1
        counted = f"{self} (and {more} more)" if more > 0 else str(self)
        return InputError(counted, hint=self.hint)


def count_classes(label: UInt8Array, num_classes: int) -> IntArray:
    """Count the pixels of each class, (C,)."""
    return np.bincount(label.ravel(), minlength=256)[:num_classes].astype(np.int64)


def outside_classes(labels: UInt8Array, num_classes: int, ignore_index: int) -> int | None:
    """The lowest value that is neither a class nor ignored; None if there is none."""
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    outside = values[(values >= num_classes) & (values != ignore_index)]
    return int(outside[0]) if len(outside) else None


def _check_header(
    class_names: Sequence[str], ignore_index: int, mean: Sequence[float], std: Sequence[float]
) -> None:
    names = list(class_names)
    if not 1 <= len(names) <= MAX_CLASSES:
        message = f"class_names must have 1 to {MAX_CLASSES} entries, got {len(names)}"
        raise InputError(message, key="data")
    for name in names:
        if not isinstance(name, str) or not name or is_control(name):
            raise InputError(f"class_names must be printable text, got {name!r}", key="data")
    if len(set(names)) < len(names):
        raise InputError(f"class_names must be unique, got {names}", key="data")
    if 0 <= ignore_index < len(names):
        message = f"ignore_index must not be a class, 0 to {len(names) - 1}, got {ignore_index}"
        raise InputError(message, key="data")
    for what, values, low in (("mean", mean, -np.inf), ("std", std, 0)):
        if len(values) != 3 or not all(low < value < np.inf for value in values):
            must = "three numbers" if what == "mean" else "three numbers > 0"
            raise InputError(f"{what} must be {must}, got {tuple(values)}", key="data")


def fingerprint_header(
    class_names: Sequence[str], ignore_index: int, mean: Sequence[float], std: Sequence[float]
) -> bytes:
    """The first bytes of a fingerprint. File names and colours are not part of it."""
    return json.dumps([list(class_names), ignore_index, list(mean), list(std)]).encode()


def content_header(shape: Sequence[int], groups: IntArray) -> bytes:
    """The first bytes of each split in a fingerprint, before its images and labels in turn."""
    return json.dumps([list(shape), groups.tolist()]).encode()


def _wrong(split: str, what: str, must: str, got: np.ndarray) -> InputError:
    message = f"{what} must {must}, got {got.shape} {got.dtype}"
    return InputError(message, key=f"data/{split}")
