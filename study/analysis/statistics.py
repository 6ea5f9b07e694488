"""Is a config better than tuned cross entropy, or was it luck? Dunnett's test over seeds.

Dunnett (1955), "A multiple comparison procedure for comparing several treatments with a control",
JASA 50. There are one control, several candidates, and a common variance pooled over all of them.
The intervals hold simultaneously, which corrects for the number of candidates. With three seeds
each, the pooled variance gives the test more power than one test per pair. If one config spreads
far more than the others, its interval is too narrow, and a note says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_SEEDS = 3
DOUBT = 0.01  # below this p of an F test a note says that the variances are not equal
CONFIDENCE = 0.95
CONTROL = "the reference"
EQUAL = "the intervals take spreads for equal, and are less sure than they look"
SEED = 0  # of the random points that the multivariate t integral is computed with


@dataclass(frozen=True)
class Interval:
    """low <= high, both included."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The difference of means to the control. `note` says why there is no interval and no p, or
    what speaks against them."""

    difference: float
    interval: Interval | None = None
    p: float | None = None
    note: str = ""

    @property
    def is_gain(self) -> bool:
        """Whether it is better than the control beyond the spread of seeds."""
        return self.interval is not None and self.interval.low > 0


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of no values."""
    return math.fsum(values) / len(values) if values else math.nan


def sd(values: Sequence[float]) -> float:
    """Standard deviation over seeds (n - 1 below the line); NaN for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def spreads_apart(groups: Mapping[str, Sequence[float]]) -> list[str]:
    """The groups whose variance is above the pooled one of all others, by an F test."""
    from scipy.stats import f

    apart = []
    for name, values in groups.items():
        others = [other for key, other in groups.items() if key != name]
        free = sum(len(other) - 1 for other in others)
        pooled = sum((len(other) - 1) * sd(other) ** 2 for other in others) / free
        if sd(values) ** 2 > pooled * f.isf(DOUBT, len(values) - 1, free):
            apart.append(name)
    return apart


def compare(
    candidates: Mapping[str, Sequence[float]], control: Sequence[float]
) -> dict[str, Comparison]:
    """Compare each candidate with the control over seeds: two-sided, simultaneous at 95 %.

    A candidate with fewer than three values is compared by its mean alone and takes no part in the
    pooled variance. If the control has fewer than three values, or no values vary, all candidates
    are compared by their means alone.
    """
    means = {name: mean(values) - mean(control) for name, values in candidates.items()}
    judged = {name: values for name, values in candidates.items() if len(values) >= MIN_SEEDS}
    few = f"fewer than {MIN_SEEDS} seeds: no interval"
    if len(control) < MIN_SEEDS or not judged:
        return {name: Comparison(difference, note=few) for name, difference in means.items()}
    if not any(np.ptp(values) > 0 for values in (control, *judged.values())):
        note = "no spread between seeds: no interval"
        return {name: Comparison(difference, note=note) for name, difference in means.items()}
    from scipy.stats import dunnett

    result = dunnett(
        *(np.asarray(values) for values in judged.values()),
        control=np.asarray(control),
        rng=np.random.default_rng(SEED),
    )
    bounds = result.confidence_interval(CONFIDENCE)
    found = {name: Comparison(difference, note=few) for name, difference in means.items()}
    apart = spreads_apart({**judged, CONTROL: control})
    notes = [f"{name} spreads over seeds far more than the others: {EQUAL}" for name in apart]
    for index, name in enumerate(judged):
        interval = Interval(float(bounds.low[index]), float(bounds.high[index]))
        note = "; ".join(notes)
        found[name] = Comparison(means[name], interval, float(result.pvalue[index]), note)
    return found
