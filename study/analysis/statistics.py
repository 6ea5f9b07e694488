"""Is a config better than tuned cross entropy, or was it luck? Dunnett's comparisons over seeds.

Dunnett (1955), "A multiple comparison procedure for comparing several treatments with a control",
JASA 50: the intervals of k candidates hold simultaneously. With T_i the difference of means over
its standard error, the critical value c solves

    P(max_i |T_i| <= c) = E_s E_z prod_i [Phi((l_i z + c s) / r_i) - Phi((l_i z - c s) / r_i)]

for standard normal z, df s^2 of chi^2(df), l_i = sqrt(n_i / (n_i + n_0)), r_i = sqrt(1 - l_i^2).

*Blocked or pooled.* Configs share their seeds, so initial weights and order of the data. Where that
costs few degrees of freedom (`is_blocked`, by the numbers of candidates and seeds alone), what a
seed adds to all configs is taken out: an additive model of config and seed, k (n - 1) degrees of
freedom, over the seeds that all of them have. Else each config's own variance is pooled.

*Unequal spread.* A config that spreads more than the others (F test at 0.01 over the number of
configs, the wildest first) leaves the pool and is judged by itself: Welch's t test, Bonferroni's
level. If that is the control, every candidate is judged so. With few seeds the F test misses much:
a config's variance is the larger one of the pool's and its own (twice its own for the control).

*Seeds in two stages.* Stein (1945), "A two-sample test for a linear hypothesis whose power is
independent of the variance", Ann. Math. Stat. 16: how many seeds are trained in all may depend on
the spread s of the first ones, if the interval of the means over all n seeds keeps this s and its
degrees of freedom, c s sqrt(2 / n). Then it covers as often as one of fixed n. Spread that is
estimated again from all seeds covers less often.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

MIN_SEEDS = 3
DOUBT = 0.01  # over the number of configs: below this p of an F test a config is judged by itself
CONFIDENCE = 0.95
FAMILY = 2  # mIoU and mean accuracy, at the primary rule
JOINT = 1 - (1 - CONFIDENCE) / FAMILY
"""Confidence of each of the two judged metrics, so that both hold together in 95 %."""
DEAREST = 1.25
"""Seeds are blocked while that makes the critical value at most so many times larger. In recorded
studies of full size it made the standard deviation 1.5 to 2.6 times smaller (docs/log.md)."""
CAUTION = 2.0
"""So many times its own variance is the least that the reference is taken to have: every comparison
rests on it, and an F test on a few seeds misses much (docs/log.md; `benchmarks.statistics`)."""
CONTROL = "the reference"

Values = Mapping[int, float]
"""A metric by seed."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """low <= high, both included."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The difference of means to the control. `note` says why there is no interval and no p, or
    how they were come by where that is not the usual way. confidence: of all intervals together
    that were computed at once; p belongs to it."""

    difference: float
    interval: Interval | None = None
    p: float | None = None
    note: str = ""
    confidence: float = CONFIDENCE

    @property
    def is_gain(self) -> bool:
        """Whether it is better than the control beyond the spread of seeds."""
        return self.interval is not None and self.interval.low > 0


def mean(values: Collection[float]) -> float:
    """The mean; NaN of no values."""
    return math.fsum(values) / len(values) if values else math.nan


def sd(values: Sequence[float]) -> float:
    """Standard deviation over seeds (n - 1 below the line); NaN for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def is_blocked(candidates: int, seeds: int, confidence: float = JOINT) -> bool:
    """Whether so many candidates and a control are compared seed by seed, given what that costs in
    degrees of freedom; never by what the values are."""
    if candidates < 2:
        return False
    sides = (0.5**0.5,) * candidates
    blocked = critical_value(candidates * (seeds - 1), sides, confidence)
    return blocked <= DEAREST * critical_value((candidates + 1) * (seeds - 1), sides, confidence)


def resolvable(candidates: int, seeds: int) -> float:
    """Least half width of the primary column's intervals, in standard deviations over seeds: those
    left when what a seed adds to all configs is taken out, where that is done (`is_blocked`)."""
    free = (candidates + (not is_blocked(candidates, seeds))) * (seeds - 1)
    return critical_value(free, (0.5**0.5,) * candidates, JOINT) * math.sqrt(2 / seeds)


def stein_seeds(half_width: float, seeds: int, *, wanted: float, most: int) -> int:
    """How many seeds Stein's procedure asks for, at least those of the first stage, at most `most`.

    Args:
        half_width: of the interval after the first stage, c s sqrt(2 / seeds).
        seeds: of the first stage.
        wanted: the half-width to come to, in the unit of the other.
        most: seeds at most.
    """
    needed = seeds * (half_width / wanted) ** 2
    return max(seeds, math.ceil(min(needed - 1e-9, most)))


def compare(
    candidates: Mapping[str, Values],
    control: Values,
    *,
    confidence: float = CONFIDENCE,
    first: Collection[int] | None = None,
) -> dict[str, Comparison]:
    """Compare each candidate with the control over seeds: two-sided and simultaneous.

    A candidate with fewer than three values is compared by its mean alone and takes no part in the
    variance. If the control has fewer than three values, or no values vary, all candidates are
    compared by their means alone. A blocked difference is one over the seeds that all have.

    Args:
        candidates: a metric by seed, of each config.
        control: the same of the reference.
        confidence: with which all intervals hold together.
        first: the seeds of the first stage, whose spread decided how many there are; None where
            all were decided on beforehand. What is said of fewer than three holds for these.
    """

    def staged(values: Values) -> Values:
        return {seed: one for seed, one in values.items() if first is None or seed in first}

    few = f"fewer than {MIN_SEEDS} seeds: no interval"
    found = {
        name: Comparison(mean(values.values()) - mean(control.values()), note=few)
        for name, values in candidates.items()
    }
    judged = {
        name: values for name, values in candidates.items() if len(staged(values)) >= MIN_SEEDS
    }
    if len(staged(control)) < MIN_SEEDS or not judged:
        return found
    groups = {**judged, CONTROL: control}
    shared = sorted(set.intersection(*(set(values) for values in groups.values())))
    count = sum(first is None or seed in first for seed in shared)
    blocked = count >= MIN_SEEDS and is_blocked(len(judged), count, confidence)
    left_out = sorted({seed for values in groups.values() for seed in values} - set(shared))
    note = ""
    if blocked:
        groups = {name: {seed: of[seed] for seed in shared} for name, of in groups.items()}
        if left_out:
            note = f"without seed {', '.join(map(str, left_out))}, which not all configs have"
    whole = {name: np.array(list(values.values())) for name, values in groups.items()}
    arrays = {name: np.array(list(staged(values).values())) for name, values in groups.items()}
    wild = spreads_apart(arrays, blocked=blocked)
    calm = {name: values for name, values in arrays.items() if name not in wild}
    if CONTROL in wild:
        calm = {}
    share = (1 - confidence) / len(judged)
    if calm:
        level = 1 - share * (len(calm) - 1)
        found |= _dunnett(calm, whole, level, blocked=blocked, note=note)
    for name in judged.keys() - calm.keys():
        who = name if name in wild else CONTROL
        apart = f"{who} spreads over seeds far more than the others: judged by itself (Welch)"
        pair = {one: arrays[one] for one in (name, CONTROL)}
        found[name] = _welch(name, pair, whole, share, len(judged), apart)
    return {name: replace(one, confidence=confidence) for name, one in found.items()}


def spreads_apart(groups: Mapping[str, Floats], *, blocked: bool = False) -> list[str]:
    """The groups that spread more than those that are left, the wildest first, by an F test each.

    blocked: the groups have equal seeds, and a group's values are taken relative to the mean of the
    others by seed.
    """
    from scipy.stats import f

    level = DOUBT / len(groups)
    apart: list[str] = []
    left = dict(groups)
    while len(left) > 1 + blocked:
        chances = {}
        for name, values in left.items():
            others = {other: of for other, of in left.items() if other != name}
            pooled, free = _variance(others, blocked=blocked)
            own = _own_variance(name, left, blocked=blocked)
            ratio = own / pooled if pooled else math.inf * own if own else 0.0
            chances[name] = float(f.sf(ratio, len(values) - 1, free))
        wildest = min(chances, key=lambda name: chances[name])
        if not chances[wildest] < level:
            break
        apart.append(wildest)
        del left[wildest]
    return apart


def _own_variance(name: str, groups: Mapping[str, Floats], *, blocked: bool) -> float:
    """A group's own variance over seeds; where blocked, of its differences to the others' mean,
    scaled to estimate the same as `_variance` where all spread alike."""
    own = groups[name]
    if not blocked:
        return float(np.var(own, ddof=1))
    others = [values for other, values in groups.items() if other != name]
    return float(np.var(own - np.mean(others, axis=0), ddof=1)) / (1 + 1 / len(others))


def _variance(groups: Mapping[str, Floats], *, blocked: bool) -> tuple[float, int]:
    """The common variance of values about their config's mean (and seed's, where blocked), and its
    degrees of freedom."""
    if not blocked:
        free = sum(len(values) - 1 for values in groups.values())
        return sum(float(np.sum((v - v.mean()) ** 2)) for v in groups.values()) / free, free
    table = np.array(list(groups.values()))
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    free = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float(np.sum(rest**2)) / free, free


def _dunnett(
    groups: Mapping[str, Floats],
    whole: Mapping[str, Floats],
    confidence: float,
    *,
    blocked: bool,
    note: str,
) -> dict[str, Comparison]:
    """Every group but the control against it, simultaneously, by one variance: of `groups`, those
    of the first stage; the means are those of the `whole` groups."""
    control = whole[CONTROL]
    names = [name for name in groups if name != CONTROL]
    means = {name: float(whole[name].mean() - control.mean()) for name in names}
    if not names or not any(np.ptp(values) > 0 for values in groups.values()):
        none = "no spread between seeds: no interval"
        return {name: Comparison(means[name], note=none) for name in names}
    blocked = blocked and len(names) > 1  # where the others have left the pool
    variance, free = _variance(groups, blocked=blocked)
    own = {name: _own_variance(name, groups, blocked=blocked) for name in groups}
    of_control = max(variance, CAUTION * own[CONTROL])
    counts = [len(whole[name]) for name in names]
    sides = tuple(math.sqrt(count / (count + len(control))) for count in counts)
    critical = critical_value(free, sides, confidence)
    found = {}
    for name, count in zip(names, counts, strict=True):
        error = math.sqrt(max(variance, own[name]) / count + of_control / len(control))
        half = critical * error
        interval = Interval(means[name] - half, means[name] + half)
        ratio = abs(means[name]) / error if error else math.inf
        p = 1 - chance_within(ratio, free, sides)
        found[name] = Comparison(means[name], interval, max(p, 0.0), note)
    return found


def _welch(
    name: str,
    groups: Mapping[str, Floats],
    whole: Mapping[str, Floats],
    share: float,
    tests: int,
    note: str,
) -> Comparison:
    """One group against the control with variances of their own; share: of the error. `groups` and
    `whole` as in `_dunnett`."""
    from scipy.stats import t

    difference = float(whole[name].mean() - whole[CONTROL].mean())
    if not any(np.ptp(values) > 0 for values in groups.values()):
        return Comparison(difference, note="no spread between seeds: no interval")
    errors = {one: float(np.var(v, ddof=1)) / len(whole[one]) for one, v in groups.items()}
    squared = sum(errors.values())
    free = squared**2 / sum(errors[one] ** 2 / (len(v) - 1) for one, v in groups.items())
    half = float(t.isf(share / 2, free)) * math.sqrt(squared)
    p = 2 * float(t.sf(abs(difference) / math.sqrt(squared), free))
    interval = Interval(difference - half, difference + half)
    return Comparison(difference, interval, min(1.0, tests * p), note)


@lru_cache(maxsize=256)
def critical_value(free: int, sides: tuple[float, ...], confidence: float) -> float:
    """c of the formula above for the given confidence; free: degrees of freedom, sides: l_i."""
    from scipy.optimize import brentq

    return float(brentq(lambda c: chance_within(c, free, sides) - confidence, 0.0, 1e3))


def chance_within(critical: float, free: int, sides: tuple[float, ...]) -> float:
    """P(max_i |T_i| <= critical) where no candidate differs from the control."""
    from scipy.special import ndtr

    scale, of_scale, z, of_z = _quadrature(free)
    inside = np.ones((len(scale), len(z)))
    for side in sorted(set(sides)):
        rest = math.sqrt(1 - side**2)
        bound = critical * scale[:, None] / rest
        one = ndtr(side * z / rest + bound) - ndtr(side * z / rest - bound)
        inside *= one ** sides.count(side)
    return float(of_scale @ inside @ of_z)


@lru_cache(maxsize=64)
def _quadrature(free: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Nodes and weights over the densities of s and of z; exact to seven digits."""
    from scipy.stats import chi2

    low, high = np.sqrt(chi2.ppf([1e-13, 1 - 1e-13], free) / free)
    nodes, weights = np.polynomial.legendre.leggauss(96)
    scale = (low + high) / 2 + (high - low) / 2 * nodes
    density = 2 * free * scale * chi2.pdf(free * scale**2, free)
    z, of_z = np.polynomial.hermite_e.hermegauss(48)
    return scale, density * weights * (high - low) / 2, z, of_z / math.sqrt(2 * math.pi)
