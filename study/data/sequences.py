"""Warns of test images that are resampled one by one though they are frames of a sequence.

Names cannot tell by themselves: those of many unrelated photographs are numbered too. So images are
taken for frames where their names are numbered and what neighbours show is alike: where the
fractions of classes f (C,) of neighbours of one prefix are closer than those of others,

    r = 1 - sum |f_i - f_{i+1}|^2 / (2 sum |f_i - mean f|^2),

the mean over the images of a prefix, the sums over all. r is about 0 for unrelated images, and the
correlation of neighbours else.
"""

from __future__ import annotations

import math
import re

import numpy as np

from study.data.splits import SegmentationData, Split

ALIKE = 0.5  # r from which neighbours are taken for frames
FEWEST = 20  # images below which r is left to chance
_NUMBERED = re.compile(r"(.*?)\d+\D*")


def sequence_warnings(data: SegmentationData) -> list[str]:
    """Warn if the test images are drawn one by one, or in too few blocks, for the interval over
    test images to mean something."""
    from study.metrics.evidence import MIN_GROUPS

    size, blocks = len(data.test), len(np.unique(data.test.groups))
    if size >= MIN_GROUPS and blocks < MIN_GROUPS:
        return [
            f"test has {blocks} block{'s' * (blocks > 1)} of neighbouring images, and fewer than "
            f"{MIN_GROUPS} give no interval over test images; `block: {size // MIN_GROUPS}` at most"
        ]
    found = likeness(data.test)
    if blocks < size or found < ALIKE:
        return []
    length = min(block_length(found, size), size // MIN_GROUPS)
    return [
        f"test images look like frames of a sequence (classes of neighbours correlate by "
        f"{found:.2f}), yet each is resampled by itself: intervals over test images are too "
        f"narrow; set `block: {length}` or more (a factory: `groups` of so many neighbours)"
    ]


def likeness(split: Split) -> float:
    """How alike neighbours of one prefix are, r; 0 without numbered names, or with few."""
    matched = [_NUMBERED.fullmatch(name) for name in split.names]
    prefixes = np.array([match.group(1) if match else "" for match in matched])
    labelled = split.class_counts.sum(1, keepdims=True)
    fractions = split.class_counts / np.maximum(labelled, 1)
    squared_steps, squared_spread, steps = 0.0, 0.0, 0
    for prefix in np.unique(prefixes[[match is not None for match in matched]]):
        run = fractions[prefixes == prefix]
        squared_steps += float((np.diff(run, axis=0) ** 2).sum())
        squared_spread += float(((run - run.mean(0)) ** 2).sum())
        steps += len(run) - 1
    if steps + 1 < FEWEST or squared_spread == 0:
        return 0.0
    return 1 - squared_steps / (2 * squared_spread)


def block_length(correlation: float, size: int) -> int:
    """The length of blocks of an AR(1) series with that correlation of neighbours.

    (2 r / (1 - r^2))^(2/3) n^(1/3), rounded up: Carlstein (1986), "The Use of Subseries Values for
    Estimating the Variance of a General Statistic from a Stationary Sequence", The Annals of
    Statistics 14(3).
    """
    r = min(correlation, 0.99)
    return math.ceil((2 * r / (1 - r * r)) ** (2 / 3) * size ** (1 / 3))
