"""Which hyperparameters made the difference: permutation importance of a forest.

Breiman (2001), "Random Forests": fit a forest to (parameters, value), then see how much of its fit
is lost when the values of one parameter are shuffled. Trees take conditional parameters as they
are: one that a trial does not have is a level of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.ledger import State, Trial
from study.names import BASELINE, REFERENCE, SEARCH

MIN_TRIALS = 10
NUM_TREES, NUM_REPEATS, SEED = 200, 20, 0
ABSENT = -1e9


@dataclass(frozen=True)
class Importance:
    """Share of the explained variance that is lost without the parameter; sd over shuffles."""

    path: str
    mean: float
    sd: float


def importances(state: State, objective: str) -> list[Importance]:
    """Of every searched parameter, the highest first; empty below ten trials.

    The values compared are of equal fidelity: those at the first rung, which every searched trial
    and baseline passes (at the last epoch where a study has no rungs). It says what mattered in
    this range of values, on this task, and nothing of cause.
    """
    rungs = state.study.plan.get("rungs", ()) if state.study else ()
    trials = [t for t in state.of_stage(BASELINE, REFERENCE, SEARCH) if t.params]
    rated = [(t.params or {}, _value(t, objective, rungs)) for t in trials]
    rated = [(params, number) for params, number in rated if math.isfinite(number)]
    paths = sorted({path for params, _ in rated for path in params})
    values = np.array([number for _, number in rated])
    if len(rated) < MIN_TRIALS or np.ptp(values) == 0:
        return []
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    table = np.column_stack([_column([params.get(path) for params, _ in rated]) for path in paths])
    forest = RandomForestRegressor(NUM_TREES, min_samples_leaf=2, random_state=SEED, n_jobs=1)
    forest.fit(table, values)
    found = permutation_importance(
        forest, table, values, n_repeats=NUM_REPEATS, random_state=SEED, n_jobs=1
    )
    rows = zip(paths, found.importances_mean, found.importances_std, strict=True)
    ranked = [Importance(path, float(mean), float(sd)) for path, mean, sd in rows]
    return sorted(ranked, key=lambda item: (-item.mean, item.path))


def _value(trial: Trial, objective: str, rungs: Any) -> float:
    if not rungs:
        return trial.last.get(objective, math.nan)
    if rungs[0] in trial.rungs:
        return trial.rungs[rungs[0]].get(objective, math.nan)
    return trial.reports.get(rungs[0], {}).get(objective, math.nan)


def _column(values: list[Any]) -> np.ndarray:
    """Numbers as they are, names by their rank, what is absent far below."""
    names = sorted({v for v in values if isinstance(v, str)})
    return np.array(
        [
            ABSENT if v is None else float(names.index(v)) if isinstance(v, str) else float(v)
            for v in values
        ]
    )
