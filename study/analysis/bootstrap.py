"""How much of a difference could be due to the choice of the test images.

This is not the spread over seeds: the bootstrap keeps the trained networks and draws the test
images again. It draws whole groups of neighbouring images, since frames next to each other are
nearly the same image.

With few groups, the percentiles of the draws give too narrow an interval. So they are taken further
out, by as much as Student's t is wider than the normal distribution: the expanded percentile
interval of Hesterberg (2015), "What Teachers Should Know About the Bootstrap", The American
Statistician 69(4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from study.analysis.statistics import CONFIDENCE, Interval
from study.metrics.counts import metrics_from_counts
from study.metrics.evidence import MIN_GROUPS

Ints = npt.NDArray[np.int64]
NUM_RESAMPLES = 5000
SEED = 0


def difference_interval(
    candidate: Sequence[Ints],
    control: Sequence[Ints],
    groups: Ints,
    *,
    metric: str,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval | None:
    """95 % expanded percentile interval of mean over seeds of `metric`, candidate minus control.

    candidate, control: per seed, counts (n, 3, C) of the same n images; groups (n,): images of one
    group are drawn together. Both sides see the same draws. None with fewer than five groups.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    num_groups = int(inverse.max()) + 1 if inverse.size else 0
    if num_groups < MIN_GROUPS:
        return None
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples)
    difference = _mean_metric(candidate, inverse, draws, metric) - _mean_metric(
        control, inverse, draws, metric
    )
    tail = _tail(num_groups)
    low, high = np.quantile(difference, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _tail(num_groups: int) -> float:
    """The fraction of the draws beyond each end: 0.025 for very many groups, 0.001 for five."""
    from scipy.stats import norm, t

    quantile = t.ppf((1 + CONFIDENCE) / 2, num_groups - 1)
    return float(norm.cdf(-math.sqrt(num_groups / (num_groups - 1)) * quantile))


def _mean_metric(
    seeds: Sequence[Ints], inverse: Ints, draws: Ints, metric: str
) -> npt.NDArray[np.float64]:
    """(resamples,) of the metric, averaged over seeds."""
    values = []
    for counts in seeds:
        summed = np.zeros((draws.shape[1], *counts.shape[1:]))
        np.add.at(summed, inverse, counts)
        resampled = np.tensordot(draws.astype(np.float64), summed, axes=1)
        values.append(metrics_from_counts(resampled)[metric])
    return np.mean(values, axis=0)
