"""Which hyperparameters mattered: permutation importance of a random forest.

Breiman (2001), "Random Forests": fit a forest to (parameters, value), then see how much worse it
predicts when the values of one parameter are shuffled. Trees handle conditional parameters: one
that a trial does not have is a level of its own.

Each trial is predicted by a forest that has not seen it (cross-validation). On the trials that it
was grown on, a forest predicts even noise, so noise would look important.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.core.names import BASELINE, REFERENCE, SEARCH
from study.ledger.state import State, Trial

MIN_TRIALS = 10
NUM_TREES, NUM_FOLDS, NUM_REPEATS, SEED = 200, 5, 20, 0
ABSENT = -1e9


@dataclass(frozen=True)
class Importance:
    """By how much R2 falls when a parameter is shuffled: the mean and sd over shuffles."""

    path: str
    mean: float
    sd: float


@dataclass(frozen=True)
class Importances:
    """R2 of the predictions, and the importance of each parameter, the highest first. There are
    none if the predictions are no better than the mean of all trials (R2 <= 0)."""

    r2: float
    num_trials: int
    items: tuple[Importance, ...]


def importances(state: State, objective: str) -> Importances | None:
    """The importance of every searched parameter; None below ten trials or for equal values.

    The values are of equal fidelity: those at the first rung, which every searched trial and
    baseline reaches (at the last epoch in a study without rungs). Importance holds for these ranges
    on this task, and does not show a cause.
    """
    found = rated_trials(state, objective)
    rated = [(trial.params or {}, number) for trial, number in found]
    values = np.array([number for _, number in rated])
    if len(rated) < MIN_TRIALS or np.ptp(values) == 0:
        return None
    paths = sorted({path for params, _ in rated for path in params})
    table = np.column_stack([_column([params.get(path) for params, _ in rated]) for path in paths])
    errors = _errors(table, values) / ((values - values.mean()) ** 2).sum()
    r2 = 1 - float(errors[0, 0])
    lost = errors[1:] - errors[0, 0]
    rows = zip(paths, lost.mean(axis=1), lost.std(axis=1), strict=True)
    ranked = [Importance(path, float(mean), float(sd)) for path, mean, sd in rows]
    ranked.sort(key=lambda item: (-item.mean, item.path))
    return Importances(r2, len(rated), tuple(ranked) if r2 > 0 else ())


def rated_trials(state: State, objective: str) -> list[tuple[Trial, float]]:
    """The trials that have parameters, each with its value of equal fidelity; those without one
    left out."""
    rungs = state.study.plan.get("rungs", ()) if state.study else ()
    trials = [trial for trial in state.of_stage(BASELINE, REFERENCE, SEARCH) if trial.params]
    rated = [(trial, _value(trial, objective, rungs)) for trial in trials]
    return [(trial, number) for trial, number in rated if math.isfinite(number)]


def _errors(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(1 + columns, repeats): the squared error of all predictions. The first row is for the table
    as it is, each other row for one shuffled column, shuffled anew for each repeat."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold

    num_rows, num_columns = table.shape
    rng = np.random.default_rng(SEED)
    orders = [rng.permutation(num_rows) for _ in range(NUM_REPEATS)]
    errors = np.zeros((1 + num_columns, NUM_REPEATS))
    for seen, unseen in KFold(NUM_FOLDS, shuffle=True, random_state=SEED).split(table):
        forest = RandomForestRegressor(NUM_TREES, min_samples_leaf=2, random_state=SEED, n_jobs=1)
        forest.fit(table[seen], values[seen])
        shuffled = np.tile(table[unseen], (1 + num_columns, NUM_REPEATS, 1, 1))
        for column in range(num_columns):
            for repeat, order in enumerate(orders):
                shuffled[1 + column, repeat, :, column] = table[order[unseen], column]
        found = forest.predict(shuffled.reshape(-1, num_columns)).reshape(shuffled.shape[:-1])
        errors += ((found - values[unseen]) ** 2).sum(axis=-1)
    return errors


def _value(trial: Trial, objective: str, rungs: Any) -> float:
    if not rungs:
        return trial.last.get(objective, math.nan)
    if rungs[0] in trial.rungs:
        return trial.rungs[rungs[0]].get(objective, math.nan)
    return trial.reports.get(rungs[0], {}).get(objective, math.nan)


def _column(values: list[Any]) -> np.ndarray:
    """Numbers as they are, names by their rank, and absent values far below all others."""
    names = sorted({v for v in values if isinstance(v, str)})
    return np.array(
        [
            ABSENT if v is None else float(names.index(v)) if isinstance(v, str) else float(v)
            for v in values
        ]
    )
