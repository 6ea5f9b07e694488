"""Frames of a sequence that are resampled one by one are warned of, numbered photographs not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from study.analysis.bootstrap import difference_interval
from study.data.sequences import block_length, likeness, sequence_warnings
from study.data.splits import SegmentationData, Split

SIZE = 100


def series(correlation: float, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """(size,) of an AR(1) series with that correlation, mean 0 and variance 1."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=size)
    for index in range(1, size):
        values[index] *= np.sqrt(1 - correlation**2)
        values[index] += correlation * values[index - 1]
    return values


def split_of(values: np.ndarray, names: Sequence[str], block: int = 1) -> Split:
    """Images of two classes whose first has a fraction of pixels that follows `values`."""
    first = (5000 + 1000 * values).clip(0, 10000).astype(np.int64)
    return Split(
        images=np.zeros((len(values), 8, 8, 3), np.uint8),
        labels=np.zeros((len(values), 8, 8), np.uint8),
        names=tuple(names),
        groups=np.arange(len(values)) // block,
        class_counts=np.stack([first, 10000 - first], 1),
    )


def data_of(test: Split) -> SegmentationData:
    return SegmentationData(
        name="made",
        class_names=("a", "b"),
        palette=np.zeros((2, 3), np.uint8),
        ignore_index=255,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        fingerprint="",
        train=test,
        val=test,
        test=test,
    )


def numbered(prefix: str, size: int = SIZE) -> list[str]:
    return [f"{prefix}{index:06d}" for index in range(0, 30 * size, 30)]


def test_frames_that_are_drawn_one_by_one_are_warned_of() -> None:
    split = split_of(series(0.95), numbered("seq01_"))
    (warning,) = sequence_warnings(data_of(split))
    length = min(block_length(likeness(split), SIZE), SIZE // 5)
    assert f"correlate by {likeness(split):.2f}" in warning
    assert f"`block: {length}` or more" in warning
    blocked = split_of(series(0.95), numbered("seq01_"), block=length)
    assert sequence_warnings(data_of(blocked)) == []


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (series(0.0), numbered("2007_")),  # photographs, numbered as those of VOC are
        (  # sorted by kind, each with its own look
            series(0.0) + np.repeat([-3, 3], SIZE // 2),
            [*numbered("cat_", SIZE // 2), *numbered("dog_", SIZE // 2)],
        ),
        (series(0.95), [f"{chr(97 + index // 26)}{chr(97 + index % 26)}" for index in range(SIZE)]),
        (series(0.95)[:15], numbered("seq01_", 15)),  # too few to tell
        (np.zeros(SIZE), numbered("seq01_")),
    ],
    ids=["unrelated", "kinds", "no numbers", "few", "equal"],
)
def test_other_images_are_not(values: np.ndarray, names: list[str]) -> None:
    assert sequence_warnings(data_of(split_of(values, names))) == []


def test_too_few_blocks_for_an_interval_are_warned_of() -> None:
    split = split_of(series(0.95), numbered("seq01_"), block=40)
    (warning,) = sequence_warnings(data_of(split))
    assert "test has 3 blocks" in warning and "`block: 20` at most" in warning
    assert sequence_warnings(data_of(split_of(series(0.95), numbered("s"), block=20))) == []


@pytest.mark.slow
def test_the_interval_over_frames_covers_with_the_blocks_that_are_advised() -> None:
    """Of 60 series: by the binomial, 95 % coverage gives less than 45 once in 10^11 runs, and the
    half that single frames give more than 44 once in 5000."""
    covered = {1: 0, block_length(0.9, 200): 0}
    for seed in range(60):
        control = (6000 + 500 * series(0.9, 200, seed)).astype(np.int64)
        candidate = control + 100 + (300 * series(0.9, 200, 1000 + seed)).astype(np.int64)
        counts = []
        for hits in (candidate, control):
            missed = 10000 - hits
            right, wrong = np.stack([hits, hits], 1), np.stack([missed, missed], 1)
            counts.append(np.stack([right, 0 * wrong, wrong], 1))
        for block in covered:
            groups = np.arange(200) // block
            interval = difference_interval(
                counts[:1], counts[1:], groups, metric="macc", num_resamples=300
            )
            assert interval is not None
            covered[block] += interval.low <= 0.01 <= interval.high
    alone, blocked = covered.values()
    assert alone < 45 <= blocked
