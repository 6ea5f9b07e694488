from __future__ import annotations

import numpy as np
import pytest

from study.analysis.bootstrap import difference_interval
from study.metrics.counts import metrics_from_counts

RNG = np.random.default_rng(0)


def counts_of(hits: np.ndarray, pixels: int = 1000) -> np.ndarray:
    """(n, 3, 2): two classes of equal size; a class's misses are the other's false positives."""
    missed = pixels - hits
    return np.stack([hits, missed[:, ::-1], missed], axis=1)


def images(mean: float, num: int, spread: float = 0.05) -> np.ndarray:
    return counts_of((1000 * np.clip(RNG.normal(mean, spread, (num, 2)), 0, 1)).astype(np.int64))


def test_the_interval_surrounds_the_difference_of_the_whole_set() -> None:
    candidate, control = [images(0.8, 40) for _ in range(3)], [images(0.7, 40) for _ in range(3)]
    whole = [
        np.mean([metrics_from_counts(one.sum(0))["miou"] for one in side])
        for side in (candidate, control)
    ]
    interval = difference_interval(candidate, control, np.arange(40), metric="miou")
    assert interval is not None
    assert interval.low < whole[0] - whole[1] < interval.high
    assert interval.low > 0


def test_equal_networks_differ_by_nothing() -> None:
    same = [images(0.8, 20)]
    interval = difference_interval(same, same, np.arange(20), metric="macc")
    assert interval is not None
    assert (interval.low, interval.high) == (0.0, 0.0)


def test_its_width_is_the_standard_error_over_images() -> None:
    """Mean accuracy is linear in the images here, so that theory gives the width."""
    candidate, control = images(0.8, 100), images(0.7, 100)
    per_image = (candidate[:, 0].mean(1) - control[:, 0].mean(1)) / 1000
    error = per_image.std(ddof=1) / 10
    interval = difference_interval(
        [candidate], [control], np.arange(100), metric="macc", num_resamples=4000
    )
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_neighbouring_images_are_drawn_together() -> None:
    """Ten copies of each image say no more than one of each."""
    candidate, control = images(0.8, 30), images(0.7, 30)
    once = difference_interval([candidate], [control], np.arange(30), metric="miou")
    many = (np.repeat(candidate, 10, axis=0), np.repeat(control, 10, axis=0))
    grouped = difference_interval([many[0]], [many[1]], np.repeat(np.arange(30), 10), metric="miou")
    alone = difference_interval([many[0]], [many[1]], np.arange(300), metric="miou")
    assert once is not None and grouped is not None and alone is not None
    assert grouped == once
    assert alone.high - alone.low < 0.5 * (once.high - once.low)


@pytest.mark.parametrize(("num", "student"), [(8, 2.365), (12, 2.201), (20, 2.093)])
def test_a_few_groups_give_the_width_of_students_t(num: int, student: float) -> None:
    """Of the mean of `num` groups, a linear metric: t at num - 1 degrees of freedom, 97.5 %."""
    candidate, control = images(0.8, num), images(0.7, num)
    per_image = (candidate[:, 0].mean(1) - control[:, 0].mean(1)) / 1000
    error = per_image.std(ddof=1) / num**0.5
    interval = difference_interval([candidate], [control], np.arange(num), metric="macc")
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(2 * student * error, rel=0.09)


def test_four_groups_are_too_few() -> None:
    side = [images(0.8, 40)]
    assert difference_interval(side, side, np.arange(40) // 10, metric="miou") is None
