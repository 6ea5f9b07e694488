"""The Pareto front: the points that no other point dominates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from study.analysis.selection import value
from study.core.names import BASELINE, REFERENCE, SEARCH
from study.ledger.state import State, Trial


def front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """The names of the non-dominated points, higher being better, best by the first value first.

    A point is dominated by one that is at least as high everywhere and higher somewhere. Equal
    points do not dominate each other. Points with a NaN take no part.
    """
    finite = {k: tuple(v) for k, v in points.items() if not any(math.isnan(x) for x in v)}
    kept = [name for name, at in finite.items() if not any(_beats(o, at) for o in finite.values())]
    return sorted(kept, key=lambda name: tuple(-x for x in finite[name]))


def _beats(other: tuple[float, ...], point: tuple[float, ...]) -> bool:
    return other != point and all(a >= b for a, b in zip(other, point, strict=True))


def pareto_trials(state: State, objectives: Sequence[str]) -> list[Trial]:
    """The front of the full-budget trials by their last epoch's values, one seed each.

    Confirmation trials take no part: their configs are there already, as the trials they repeat.
    """
    trials = {trial.id: trial for trial in state.completed(BASELINE, REFERENCE, SEARCH)}
    points = {name: [value(trial, key) for key in objectives] for name, trial in trials.items()}
    return [trials[name] for name in front(points)]
