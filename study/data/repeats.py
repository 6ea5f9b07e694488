"""Finds the images that are in two splits, by their pixels: under any names, in any encoding.

No image may be both trained or selected on and judged on. Images of one colour, as the empty slices
of a scan, may repeat by nature, and are told apart.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from study.core.errors import InputError
from study.data.splits import SPLITS, Repeat, SegmentationData, UInt8Array

REFUSE, WARN = "refuse", "warn"
HINT = "remove one of the two, or accept it: `duplicates: warn` in the task's data"

Place = tuple[str, int]  # a split, and the position of an image in it
Pixels = Callable[[Place], UInt8Array]


def find_repeats(
    checksums: Mapping[str, Sequence[int]],
    decoded: Pixels,
    original: Pixels,
    name: Callable[[Place], str],
) -> tuple[Repeat, ...]:
    """The images that are in two splits, each with the first of the same pixels.

    Only images of one checksum are compared, by a digest of their pixels in the file's own size, so
    that two frames that differ there are two images.

    Args:
        checksums: of each split's images as decoded.
        decoded: gives the pixels (H, W, 3) of an image as decoded.
        original: gives them in the file's own size, where there is a file.
        name: gives the name that people find an image by.
    """
    alike: dict[int, list[Place]] = defaultdict(list)
    for split in SPLITS:
        for index, checksum in enumerate(checksums[split]):
            alike[checksum].append((split, index))
    places = [
        place
        for group in alike.values()
        if len({split for split, _ in group}) > 1
        for place in group
    ]

    def key(place: Place) -> tuple[bytes, bool]:
        image = decoded(place)
        is_plain = bool((image == image[0, 0]).all())
        pixels = image if is_plain else original(place)
        digest = hashlib.sha256(repr(pixels.shape).encode())
        digest.update(np.ascontiguousarray(pixels).data)
        return digest.digest(), is_plain

    first: dict[bytes, Place] = {}
    found = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for place, (digest, is_plain) in zip(places, pool.map(key, places), strict=True):
            other = first.setdefault(digest, place)
            if other[0] != place[0]:
                splits, names = (other[0], place[0]), (name(other), name(place))
                found.append(Repeat(splits, names, is_plain))
    return tuple(found)


def repeats_of_arrays(data: SegmentationData) -> tuple[Repeat, ...]:
    """The images that are in two splits of data that have no files."""

    def image(place: Place) -> UInt8Array:
        return np.asarray(data.splits[place[0]].images[place[1]])

    checksums = {
        name: [zlib.crc32(np.ascontiguousarray(one).data) for one in split.images]
        for name, split in data.splits.items()
    }
    return find_repeats(
        checksums, image, image, lambda place: data.splits[place[0]].names[place[1]]
    )


def repeat_fault(data: SegmentationData) -> InputError | None:
    """The error for images of more than one colour that are in two splits."""
    found = serious(data)
    if not found:
        return None
    first, more = found[0], len(found) - 1
    counted = f" (and {more} more)" if more else ""
    message = f"{in_words(first)}{counted}"
    if data.cache is not None:
        return InputError(message, hint=HINT, file=first.names[1])
    return InputError(f"{first.names[1]}: {message}", hint=HINT, key="data")


def serious(data: SegmentationData) -> list[Repeat]:
    """The images in two splits that have more than one colour."""
    return [repeat for repeat in data.repeats if not repeat.is_plain]


def in_words(repeat: Repeat) -> str:
    """What is wrong with the second image of the two."""
    one, other = repeat.splits
    return (
        f"the image is in two splits, {one} and {other}: its pixels are those of {repeat.names[0]}"
    )


def repeat_warnings(data: SegmentationData) -> list[str]:
    """Warn of images in two splits that are accepted."""
    plain = [repeat for repeat in data.repeats if repeat.is_plain]
    return [
        f"{what} in two splits: {len(found)}, as {found[0].names[0]} and {found[0].names[1]}"
        for what, found in (("images", serious(data)), ("images of one colour", plain))
        if found
    ]
