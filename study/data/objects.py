"""The objects of each class, and what resizing to the task's size leaves of them.

An object is a connected component (8 neighbours) of one class in the label as its file has it. It
survives a size where nearest-pixel resizing to that size keeps at least one of its pixels. Its
shorter side is that of its bounding box, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8Array = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Size = tuple[int, int]  # (height, width)
Indices = npt.NDArray[np.intp]

FACTORS = tuple(2 ** (step / 4) for step in range(21))  # sizes tried, times the task's: 1 to 32
KEPT = 0.95  # fraction of a class's objects that a size must keep to be enough
_BINS, _FINENESS = 4096, 8  # of a histogram of sides: bins, and bins to a pixel at the task's size
_MOST_PENDING = 2**20  # objects


@dataclass(frozen=True, eq=False)
class Objects:
    """The n objects of one label.

    Attributes:
        classes: (n,) the class of each.
        areas: (n,) pixels of each in the file.
        sides: (2, n) the shorter side, in pixels of the file and of the task's size.
        kept: (K, n) whether each survives at `FACTORS` times the task's size.
    """

    classes: UInt8Array
    areas: npt.NDArray[Any]
    sides: npt.NDArray[Any]
    kept: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClassObjects:
    """The objects of the training labels, by class.

    Attributes:
        count: (C,) how many there are.
        kept: (K, C) how many survive at `FACTORS` times the task's size.
        side, low_side: (C,) median and 5th percentile of the shorter side in pixels of the files.
        task_side: (C,) its median in pixels of the task's size.
        pixel_side: (C,) the same, but the median over the pixels of a class, each of which counts
            for its object: specks, which are many, hardly move it. All are NaN without an object.
    """

    count: IntArray
    kept: IntArray
    side: FloatArray
    low_side: FloatArray
    task_side: FloatArray
    pixel_side: FloatArray

    def factor(self, index: int) -> float | None:
        """The smallest of `FACTORS` from which on all keep `KEPT` of a class's objects."""
        enough = self.kept[:, index] >= KEPT * self.count[index]
        too_small = np.flatnonzero(~enough)
        first = int(too_small[-1]) + 1 if len(too_small) else 0
        return FACTORS[first] if first < len(FACTORS) else None


@dataclass(frozen=True, eq=False)
class Measured:
    """What one label holds before it is resized.

    Attributes:
        counts: (C,) pixels of each class.
        objects: its objects; None where they are not looked at.
    """

    counts: IntArray
    objects: Objects | None = None


@dataclass(frozen=True, eq=False)
class Survey:
    """What the labels of a data set hold before they are resized.

    Attributes:
        of_files: whether there are files, whose size may be another than the task's.
        pixels, images: (C,) pixels of each class and images that hold it, by split.
        objects: those of the training labels.
    """

    of_files: bool
    pixels: Mapping[str, IntArray]
    images: Mapping[str, IntArray]
    objects: ClassObjects

    def as_json(self) -> dict[str, Any]:
        """The survey as plain values."""
        return {
            "of_files": self.of_files,
            "pixels": {name: counts.tolist() for name, counts in self.pixels.items()},
            "images": {name: counts.tolist() for name, counts in self.images.items()},
            "objects": {name: value.tolist() for name, value in vars(self.objects).items()},
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Survey:
        """The survey that `as_json` wrote."""
        return Survey(
            of_files=content["of_files"],
            pixels={name: np.array(counts) for name, counts in content["pixels"].items()},
            images={name: np.array(counts) for name, counts in content["images"].items()},
            objects=ClassObjects(
                **{name: np.array(value) for name, value in content["objects"].items()}
            ),
        )


class Surveyor:
    """Makes a survey of one label after another."""

    def __init__(self, num_classes: int, *, of_files: bool) -> None:
        self._num_classes, self._of_files = num_classes, of_files
        self._pixels: dict[str, IntArray] = {}
        self._images: dict[str, IntArray] = {}
        self._objects = ObjectCounter(num_classes)

    def add(self, split: str, label: Measured) -> None:
        """Count a label of a split."""
        none = np.zeros(self._num_classes, np.int64)
        self._pixels[split] = self._pixels.get(split, none) + label.counts
        self._images[split] = self._images.get(split, none) + (label.counts > 0)
        if label.objects is not None:
            self._objects.add(label.objects)

    def result(self) -> Survey:
        """The survey of the labels so far."""
        return Survey(self._of_files, self._pixels, self._images, self._objects.result())


class ObjectCounter:
    """Sums the objects of many labels."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._kept = np.zeros((len(FACTORS), num_classes), np.int64)
        self._sides = np.zeros((3, num_classes * _BINS))
        self._pending: list[Objects] = []
        self._num_pending = 0

    def add(self, objects: Objects) -> None:
        """Count the objects of one label."""
        self._pending.append(objects)
        self._num_pending += len(objects.classes)
        if self._num_pending > _MOST_PENDING:
            self._fold()

    def _fold(self) -> None:
        classes = np.concatenate([one.classes for one in self._pending])
        areas = np.concatenate([one.areas for one in self._pending])
        kept = np.concatenate([one.kept for one in self._pending], 1)
        of_file, of_task = np.concatenate([one.sides for one in self._pending], 1)
        self._pending, self._num_pending = [], 0
        self._kept += [np.bincount(classes[one], minlength=self._num_classes) for one in kept]
        ones = np.ones(len(classes))
        for index, (sides, weights) in enumerate(
            ((of_file, ones), (of_task * _FINENESS, ones), (of_task * _FINENESS, areas))
        ):
            bins = np.minimum(np.rint(sides), _BINS - 1).astype(np.int64)
            place = classes * np.int64(_BINS) + bins
            self._sides[index] += np.bincount(place, weights, self._sides.shape[1])

    def result(self) -> ClassObjects:
        """What was counted so far."""
        if self._pending:
            self._fold()
        of_files, of_task, of_pixels = self._sides.reshape(3, self._num_classes, _BINS)
        return ClassObjects(
            count=of_files.sum(1).astype(np.int64),
            kept=self._kept,
            side=_quantile(of_files, 0.5),
            low_side=_quantile(of_files, 0.05),
            task_side=_quantile(of_task, 0.5) / _FINENESS,
            pixel_side=_quantile(of_pixels, 0.5) / _FINENESS,
        )


def _quantile(histogram: FloatArray, q: float) -> FloatArray:
    """The lowest bin that at least the fraction q of a row's entries do not exceed, (C,)."""
    below = histogram.cumsum(1)
    total = below[:, -1:]
    found = (below >= np.maximum(q * total, 1)).argmax(1).astype(float)
    return np.where(total[:, 0] > 0, found, np.nan)


def find_objects(
    label: UInt8Array, num_classes: int, shown: Callable[[float], Size] | None = None
) -> Objects:
    """Find the objects of a label (H, W).

    shown: the size that the label is resized to at a factor on the task's size; none where the
    label has that size itself.
    """
    width = label.shape[1] + 1  # a column more, so that no row touches the next
    row, start, end, classes = _runs(label, num_classes)
    root = _components(start, end, classes, width)
    roots = np.flatnonzero(root == np.arange(len(root)))
    number = np.empty(len(root), np.intp)
    number[roots] = np.arange(len(roots))
    member = number.take(root)
    left, right = start - row * width, end - row * width
    bottom, first, last = row.take(roots), left.take(roots), right.take(roots)
    np.maximum.at(bottom, member, row)
    np.minimum.at(first, member, left)
    np.maximum.at(last, member, right)
    box = np.stack([bottom + 1 - row.take(roots), last - first])
    scale, kept = np.ones((2, 1)), np.ones((len(FACTORS), len(roots)), bool)
    if shown is not None:
        whole = label.shape[0], label.shape[1]
        scale = np.array([shown(1)]).T / np.array([whole]).T
        sizes = tuple(takewhile(lambda size: _shrinks(whole, size), map(shown, FACTORS)))
        for at_size, (to_height, to_width) in zip(kept, sizes, strict=False):
            rows, columns = _sampled(whole[0], to_height), _sampled(whole[1], to_width)
            hit = columns.take(right) > columns.take(left)
            hit &= rows.take(row + 1) > rows.take(row)
            at_size[:] = False
            at_size[member.take(np.flatnonzero(hit))] = True
    areas = np.bincount(member, end - start, len(roots))
    sides = np.stack([box.min(0), (box * scale).min(0)])
    return Objects(classes.take(roots), areas, sides, kept)


def _runs(label: UInt8Array, num_classes: int) -> tuple[Indices, Indices, Indices, UInt8Array]:
    """The runs of pixels of one class within a row: row, first pixel and the one behind the last,
    counted with one more in each row, and class."""
    height, width = label.shape
    begins = np.ones((height, width), bool)
    np.not_equal(label[:, 1:], label[:, :-1], out=begins[:, 1:])
    start = np.flatnonzero(begins)
    end = np.append(start[1:], height * width)
    classes = label.ravel().take(start)
    valid = np.flatnonzero(classes < num_classes)
    start, end = start.take(valid), end.take(valid)
    row = start // width
    return row, start + row, end + row, classes.take(valid)


def _components(start: Indices, end: Indices, classes: UInt8Array, width: int) -> Indices:
    """The first run of the component of each run."""
    low = np.searchsorted(end, start + (width - 1), "right")  # touches it, or the next one does
    count = np.searchsorted(start, end + width, "right") - low
    above = np.repeat(np.arange(len(start)), count)
    below = np.arange(len(above)) + np.repeat(low - np.cumsum(count) + count, count)
    alike = np.flatnonzero(classes.take(above) == classes.take(below))
    above, below = above.take(alike), below.take(alike)
    root = np.arange(len(start))
    root[below[::-1]] = above[::-1]  # the first of those above it
    root = _followed(root)
    one, other = root.take(above), root.take(below)
    while (apart := np.flatnonzero(one != other)).size:
        one, other = one.take(apart), other.take(apart)
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        one, other = _end(root, one), _end(root, other)
    return _followed(root)


def _followed(root: Indices) -> Indices:
    """The end of every chain, by doubling."""
    while True:
        further = root.take(root)
        further = further.take(further)
        if np.array_equal(further, root):
            return root
        root = further


def _end(root: Indices, place: Indices) -> Indices:
    """The ends of some chains."""
    while not np.array_equal(further := root.take(place), place):
        place = further
    return place


def _shrinks(shape: tuple[int, ...], to: Size) -> bool:
    return to[0] < shape[0] or to[1] < shape[1]


@lru_cache(maxsize=1024)
def _sampled(length: int, to: int) -> Indices:
    """How many of the first n pixels of a line nearest-pixel resizing takes, (length + 1,)."""
    ramp = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    taken = np.asarray(ramp.resize((to, 1), Image.Resampling.NEAREST))[0]
    return np.append(0, np.bincount(taken, minlength=length).cumsum())
