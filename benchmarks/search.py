"""The search beside others, on made-up learning curves: `python -m benchmarks.search`.

Each family of `study.simulation.families`, with the same instances and seeds for each method:

    model         this program: a model on standings, early stopping by ASHA
    random        the same, with random proposals
    full-length   random, and nobody is stopped
    stock         Optuna's default sampler and ASHA as Ray Tune wires them: every trial that is
                  stopped is told as complete, with the value at which it was stopped

`--families recorded` takes the table of trained configs instead.

The families in HELD_OUT were not looked at while the model was designed. The table has the mean
difference of the model's regret to each, paired by instance, with a 95 % interval; below 0 the
model is better. `--csv FILE` writes every regret.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers.async_hyperband import _Bracket

from study.search.asha import rung_epochs
from study.search.sampler import MODEL
from study.simulation.comparison import METHODS, interval
from study.simulation.families import FAMILIES, FamilyProblem
from study.simulation.problem import Problem
from study.simulation.run import Settings, simulate
from study.simulation.table import RECORDED, RECORDED_FILE, load_table
from study.space.search_space import SearchSpace

HELD_OUT = ("noisy", "failing", "valley", "late", "wide", "options", "joint_crossing")
STOCK = "stock"


def stock(problem: Problem, seed: int, settings: Settings) -> list[tuple[int, float]]:
    """(epochs spent, regret) at each new best config."""
    assert settings.trainings is not None
    space: SearchSpace = problem.space
    objectives = space.settings.objectives
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed)
    directions = [optuna.study.StudyDirection.MAXIMIZE] * len(objectives)
    study = optuna.create_study(directions=directions, sampler=sampler)
    rungs = space.settings.rungs
    assert rungs is not None
    first = rung_epochs(rungs.first, rungs.reduction_factor, problem.epochs)[0]
    bracket = _Bracket(first, problem.epochs, rungs.reduction_factor, 0, stop_last_trials=False)
    tie, spent, best = itertools.count(), 0, dict[str, tuple[float, float]]()
    running: list[tuple[float, int, Any, dict[str, Any], Any, int]] = []
    found: list[tuple[int, float]] = []

    def begin(now: float) -> None:
        asked = study.ask()
        params = space.sample(asked)
        curve = problem.curve(params, seed)
        heapq.heappush(running, (now + curve.seconds[0], next(tie), asked, params, curve, 1))

    for _ in range(settings.workers):
        begin(0.0)
    while spent < settings.trainings * problem.epochs:
        now, _, asked, params, curve, epoch = heapq.heappop(running)
        spent += 1
        values = [float(curve.metrics[name][epoch - 1]) for name in objectives]
        trial: Any = _Trial(asked.number)
        action = bracket.on_result(trial, epoch, values[0])
        failed = epoch == len(curve) < problem.epochs
        if not failed and epoch < problem.epochs and action != "STOP":
            seconds = float(curve.seconds[epoch])
            heapq.heappush(running, (now + seconds, next(tie), asked, params, curve, epoch + 1))
            continue
        if failed:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked, values)
        if epoch == problem.epochs:
            worth = problem.truth(params)
            for index, name in enumerate(objectives):
                if values[index] > best.get(name, (-np.inf, 0.0))[0]:
                    best[name] = values[index], float(worth[index])
            worths = np.array([best[name][1] for name in objectives])
            found.append((spent, float(np.mean(problem.scale.regret(worths)))))
        begin(now)
    return found


class _Trial:
    """As much of Ray's trial as a bracket asks for."""

    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


@cache
def _problem(family: str, seed: int) -> Problem:
    return load_table(RECORDED_FILE) if family == RECORDED else FamilyProblem(family, seed)


def _regrets(
    name: str, family: str, seed: int, settings: Settings, at: Sequence[int]
) -> list[float]:
    problem = _problem(family, seed)
    if name == STOCK:
        found = stock(problem, seed, settings)
        return [([1.0] + [r for spent, r in found if spent <= k * problem.epochs])[-1] for k in at]
    changes: dict[str, Any] = METHODS[name]
    outcome = simulate(problem, seed, replace(settings, **changes))
    return [outcome.regret(trainings) for trainings in at]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument(
        "--families", nargs="+", default=list(FAMILIES), choices=[*FAMILIES, RECORDED]
    )
    parser.add_argument("--methods", nargs="+", default=[*METHODS, STOCK])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--at", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    settings = Settings(workers=given.workers, trainings=max(given.at))
    rows = []
    for family in given.families:
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            for name in given.methods:
                found = _regrets(name, family, seed, settings, given.at)
                rows += [(family, seed, name, k, r) for k, r in zip(given.at, found, strict=True)]
        if given.csv is not None:
            with given.csv.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerows([("family", "seed", "method", "trainings", "regret"), *rows])
        print(f"{family} is done", flush=True)
    _table(rows, given)


def _table(rows: Sequence[tuple[str, int, str, int, float]], given: argparse.Namespace) -> None:
    regret = {(family, seed, name, k): value for family, seed, name, k, value in rows}
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    groups = {family: [family] for family in given.families}
    held_out = [family for family in given.families if family in HELD_OUT]
    groups |= {"held out": held_out} if held_out else {}
    groups |= {"all": given.families}
    for k in given.at:
        print(f"\nafter {k} trainings, {given.workers} workers, {given.seeds} seeds")
        others = [name for name in given.methods if name != MODEL]
        print(f"{'':<16}{'model':>8}" + "".join(f"{'less ' + name:>24}" for name in others))
        for group, families in groups.items():
            mine = np.array([[regret[f, s, MODEL, k] for f in families] for s in seeds])
            cells = []
            for name in others:
                its = np.array([[regret[f, s, name, k] for f in families] for s in seeds])
                cells.append(str(interval((mine - its).mean(axis=1))))
            print(f"{group:<16}{mine.mean():>8.2f}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
