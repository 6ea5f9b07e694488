"""Longer training as a rival: a reference that was still rising, the ladder up to the best loss

The slope is that of val mIoU over the last quarter of the evaluations, three at the least, by least
squares over epochs: one line for each seed, and the mean of their slopes. Learning rates end at 0,
so that curves flatten at the end: a slope says that longer training may help, not by how much.

The ladder goes from default cross entropy by learning rate, decision rule and longer training to
the best other loss. Each step has an interval of Student's t over the differences of equal seeds,
for that step alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from study.analysis.selection import value
from study.analysis.statistics import CONFIDENCE, Comparison, Interval, mean, sd
from study.ledger.state import Trial

FRACTION, FEWEST = 0.25, 3  # of the evaluations; evaluations
WORTH = 0.005  # of mIoU: a gain that is worth more epochs
ERRORS = 2.0  # a slope is taken for one from so many standard errors on


@dataclass(frozen=True)
class Slope:
    """A slope of val mIoU per epoch, its standard error, and the epochs of the whole budget."""

    slope: float
    error: float
    epochs: int

    @property
    def is_rising(self) -> bool:
        """Whether a further quarter of the budget would give half a point at this slope, and the
        slope is above twice its standard error."""
        gain = self.slope * FRACTION * self.epochs
        return gain > WORTH and self.slope > ERRORS * self.error


def final_slope(trials: Sequence[Trial], key: str) -> Slope | None:
    """The slope of val mIoU, the metric `key`, at which one config's trainings on seeds ended.

    Its standard error is the larger one of two: that from the spread about the lines, pooled over
    seeds, and that from the spread of slopes over seeds. None where a training has fewer than twice
    the evaluations that a slope is taken of, or is not evaluated.
    """
    slopes, residual, spread, free = [], 0.0, 0.0, 0
    for trial in trials:
        curve = [
            (epoch, report[key])
            for epoch, report in sorted(trial.reports.items())
            if math.isfinite(report.get(key, math.nan))
        ]
        count = max(FEWEST, math.ceil(FRACTION * len(curve)))
        if len(curve) < 2 * count:
            return None
        epochs, values = np.array(curve[-count:]).T
        epochs = epochs - epochs.mean()
        spread += float(epochs @ epochs)
        slopes.append(float(epochs @ values / (epochs @ epochs)))
        residual += float(np.sum((values - values.mean() - slopes[-1] * epochs) ** 2))
        free += count - 2
    if not slopes:
        return None
    about_lines = math.sqrt(residual / free / spread)
    over_seeds = sd(slopes) / math.sqrt(len(slopes)) if len(slopes) > 1 else 0.0
    return Slope(mean(slopes), max(about_lines, over_seeds), trials[0].epochs)


UNMEASURED = (
    ": longer training may do more than another loss; `study.run --resume NAME --longer 4` "
    "measures it"
)


def rising_note(trials: Sequence[Trial], key: str, *, measured: bool = False) -> list[str]:
    """A line where the reference's trainings were still rising when they ended.

    `measured`: whether the study trains for longer, too.
    """
    found = final_slope(trials, key)
    if found is None or not found.is_rising:
        return []
    return [
        f"the reference was still rising by {100 * found.slope:.2f} points of val mIoU per epoch "
        f"when its {found.epochs} epochs ended" + ("" if measured else UNMEASURED)
    ]


@dataclass(frozen=True)
class Longer:
    """The reference and the best other loss, both trained `budget` times as long, by test mIoU.

    added: what the longer budget adds to the reference; gain: the other loss minus the reference,
    both with it. Paired by seed; `seeds` are those of the gain.
    """

    budget: int
    added: Comparison
    gain: Comparison
    seeds: int


def longer(
    budget: int,
    reference: Sequence[Trial],
    reference_longer: Sequence[Trial],
    other_longer: Sequence[Trial],
    key: str,
) -> Longer | None:
    """What a longer budget does, by the metric `key`; None while no seed is in both."""
    before, after, other = (
        _by_seed(trials, key) for trials in (reference, reference_longer, other_longer)
    )
    shared = [seed for seed in other if seed in after]
    added = paired([after[seed] - before[seed] for seed in after if seed in before])
    gain = paired([other[seed] - after[seed] for seed in shared])
    return None if added is None or gain is None else Longer(budget, added, gain, len(shared))


def _by_seed(trials: Sequence[Trial], key: str) -> dict[int, float]:
    values = {trial.seed: value(trial, key) for trial in trials}
    return {seed: number for seed, number in values.items() if math.isfinite(number)}


@dataclass(frozen=True)
class LadderEntry:
    """An entry of the ladder: mean test mIoU over `seeds`; `step` is the difference to the one
    before, None for the first and where no seed is in both."""

    name: str
    mean: float
    seeds: int
    step: Comparison | None = None


def ladder(entries: Sequence[tuple[str, Sequence[Trial], str]]) -> tuple[LadderEntry, ...]:
    """The entries that have a value; each is given by its name, trials and test metric."""
    found: list[LadderEntry] = []
    before: dict[int, float] = {}
    for name, trials, key in entries:
        values = _by_seed(trials, key)
        if values:
            step = paired([values[seed] - before[seed] for seed in values if seed in before])
            found.append(LadderEntry(name, mean(list(values.values())), len(values), step))
            before = values
    return tuple(found)


def paired(differences: Sequence[float]) -> Comparison | None:
    """The mean of differences by seed, and its interval by Student's t; fewer than two seeds, or
    none that differ, give no interval."""
    if not differences:
        return None
    difference, count = mean(differences), len(differences)
    if count < 2 or not sd(differences) > 0:
        return Comparison(difference)
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * sd(differences) / math.sqrt(count)
    return Comparison(difference, Interval(difference - half, difference + half))
