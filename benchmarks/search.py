"""The search beside others, on made-up learning curves: `python -m benchmarks.search`.

Each family of `study.simulation.families`, with the same instances and seeds for each method:

    model         this program: a model on standings, early stopping by ASHA
    random        the same, with random proposals
    full-length   random, and nobody is stopped
    stock         Optuna's default sampler and ASHA as Ray Tune wires them: every trial that is
                  stopped is told as complete, with the value at which it was stopped
    hyperband     Optuna's default sampler with its own HyperbandPruner. Its pruners know one
                  objective, so problems with two are left out

    right, wrong  the model, with priors on all leaves that the best, or the worst, of 4,000 random
                  configs has

    smac, dehb, neps, syne-asha, syne-asha1, syne-bohb, syne-bore, syne-cqr
                  other packages, each as its file in benchmarks/peers/ says, on problems with one
                  objective. Each runs in an environment of its own, whose Python `--peer` names

`--families recorded` takes the table of trained configs instead.

docs/regrets/peers.csv holds the searches of other packages, made by

    python -m venv /tmp/smac && /tmp/smac/bin/pip install smac==2.4.1    # so the other packages:
    # syne-tune==0.16 (with huggingface-hub for cqr), neural-pipeline-search==0.17, DEHB==0.1.2
    python -m benchmarks.search --first-seed 3000 --seeds 8 --csv FILE \\
        --families smooth crossing easy noisy failing valley late wide options \\
        --methods model random syne-asha syne-asha1 syne-bohb dehb \\
        --peer syne=/tmp/syne/bin/python --peer dehb=/tmp/dehb/bin/python

and, in the same way with `--seeds 3`, smac and neps, which are slow. bore and cqr are slower still.

The families in HELD_OUT were not looked at while the model was designed. The table has the mean
difference of the model's regret to each, paired by instance, with a 95 % interval; below 0 the
model is better. `--csv FILE` writes every regret; docs/regrets/ has such files.
"""

from __future__ import annotations

import argparse
import atexit
import csv
import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import optuna

from benchmarks.peers import driver
from study.search.asha import rung_epochs
from study.search.encoding import Encoder
from study.search.sampler import MODEL
from study.simulation.comparison import METHODS, Interval, interval
from study.simulation.families import FAMILIES, FamilyProblem
from study.simulation.problem import Problem
from study.simulation.run import Settings, simulate
from study.simulation.table import RECORDED, RECORDED_FILE, load_table
from study.space.search_space import SearchSpace
from study.space.tree_space import load_any

HELD_OUT = ("noisy", "failing", "valley", "late", "wide", "options", "joint_crossing")
STOCK, HYPERBAND = "stock", "hyperband"
RIGHT, WRONG = "right", "wrong"
OWN = (*METHODS, STOCK, HYPERBAND, RIGHT, WRONG)  # methods that need no other package
LOOKED_AT = 4000  # random configs


def peer(name: str, problem: Problem, seed: int, settings: Settings) -> list[tuple[int, float]]:
    """(epochs spent, regret) at each new best config of `stock` or `hyperband`."""
    from ray.tune.schedulers.async_hyperband import _Bracket  # the docs read regrets without Ray

    assert settings.trainings is not None
    space: SearchSpace = problem.space
    objectives = space.settings.objectives
    rungs = space.settings.rungs
    assert rungs is not None
    factor = rungs.reduction_factor
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=str(seed),  # of which Hyperband makes its brackets
        directions=[optuna.study.StudyDirection.MAXIMIZE] * len(objectives),
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.HyperbandPruner(1, problem.epochs, factor),
    )
    first = rung_epochs(rungs.first, factor, problem.epochs)[0]
    bracket = _Bracket(first, problem.epochs, factor, 0, stop_last_trials=False)
    tie, spent, best = itertools.count(), 0, dict[str, tuple[float, float]]()
    running: list[tuple[float, int, Any, dict[str, Any], Any, int]] = []
    found: list[tuple[int, float]] = []

    def begin(now: float) -> None:
        asked = study.ask()
        params = space.sample(asked)
        curve = problem.curve(params, seed)
        heapq.heappush(running, (now + curve.seconds[0], next(tie), asked, params, curve, 1))

    def is_stopped(asked: Any, epoch: int, value: float) -> bool:
        if name == HYPERBAND:
            asked.report(value, epoch)
            return bool(asked.should_prune())
        trial: Any = _Trial(asked.number)
        return bool(bracket.on_result(trial, epoch, value) == "STOP")

    for _ in range(settings.workers):
        begin(0.0)
    while spent < settings.trainings * problem.epochs:
        now, _, asked, params, curve, epoch = heapq.heappop(running)
        spent += 1
        values = [float(curve.metrics[objective][epoch - 1]) for objective in objectives]
        stopped = is_stopped(asked, epoch, values[0])
        failed = epoch == len(curve) < problem.epochs
        if not failed and epoch < problem.epochs and not stopped:
            seconds = float(curve.seconds[epoch])
            heapq.heappush(running, (now + seconds, next(tie), asked, params, curve, epoch + 1))
            continue
        if failed:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        elif name == HYPERBAND and epoch < problem.epochs:
            study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(asked, values)
        if epoch == problem.epochs:
            worth = problem.truth(params)
            for index, objective in enumerate(objectives):
                if values[index] > best.get(objective, (-np.inf, 0.0))[0]:
                    best[objective] = values[index], float(worth[index])
            worths = np.array([best[objective][1] for objective in objectives])
            found.append((spent, float(np.mean(problem.scale.regret(worths)))))
        begin(now)
    return found


def with_priors(family: str, seed: int, *, right: bool) -> FamilyProblem:
    """The problem with priors on the leaves of the best of some random configs, or of the worst."""
    problem = FamilyProblem(family, seed)
    encoder = Encoder(problem.space)
    points = encoder.uniform(LOOKED_AT, np.random.default_rng(seed))
    configs = [encoder.params(row) for row in points]
    worth = [float(np.mean(problem.truth(params))) for params in configs]
    params = configs[int(np.nanargmax(worth) if right else np.nanargmin(worth))]

    def marked(node: Any, path: str) -> Any:
        if not isinstance(node, dict):
            return node
        prior = {"prior": params[path]} if path in params else {}
        for kind in {"float", "int"} & node.keys():
            return {kind: {**node[kind], **prior}}
        if "choice" in node:
            options = node["choice"]
            if isinstance(options, dict):
                options = {name: marked(tree, path) for name, tree in options.items()}
            return {"choice": options, **prior}
        return {key: marked(tree, f"{path}/{key}".strip("/")) for key, tree in node.items()}

    problem.space = load_any(marked(problem.space.data, ""))
    return problem


class Search(NamedTuple):
    """A simulated search. regrets: by the number of full trainings that were spent."""

    family: str
    workers: int
    seed: int
    method: str
    regrets: Mapping[int, float]


class Searches(list[Search]):
    """Some searches with the same numbers of trainings."""

    def mean(self, method: str, trainings: int) -> float:
        """The mean regret of a method."""
        return float(np.mean([one.regrets[trainings] for one in self if one.method == method]))

    def less(self, other: str, trainings: int) -> Interval | None:
        """The regret of the model less that of another method on the problems that both have
        searched: the mean over families, paired by seed. None if there are none."""
        regret = {(one.family, one.seed, one.method): one.regrets[trainings] for one in self}
        by_seed: dict[int, list[float]] = {}
        for family, seed, method in regret:
            if method == other and (family, seed, MODEL) in regret:
                less = regret[family, seed, MODEL] - regret[family, seed, other]
                by_seed.setdefault(seed, []).append(less)
        return interval([float(np.mean(found)) for found in by_seed.values()]) if by_seed else None


def write(file: Path, searches: Sequence[Search]) -> None:
    """A line for each search, a column for each number of trainings."""
    numbers = sorted({number for one in searches for number in one.regrets})
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow([*Search._fields[:-1], *numbers])
        for one in searches:
            cells = (round(one.regrets[n], 4) if n in one.regrets else "" for n in numbers)
            writer.writerow([*one[:-1], *cells])


def read(file: Path) -> list[Search]:
    """What `write` has written."""
    with file.open(newline="", encoding="utf-8") as lines:
        heads, *rows = csv.reader(lines)
    numbers = [int(head) for head in heads[len(Search._fields) - 1 :]]
    return [
        Search(
            family,
            int(workers),
            int(seed),
            method,
            {n: float(cell) for n, cell in zip(numbers, cells, strict=True) if cell},
        )
        for family, workers, seed, method, *cells in rows
    ]


class _Trial:
    """As much of Ray's trial as a bracket asks for."""

    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


@cache
def _problem(family: str, seed: int) -> Problem:
    return load_table(RECORDED_FILE) if family == RECORDED else FamilyProblem(family, seed)


def _regrets(
    name: str,
    family: str,
    seed: int,
    settings: Settings,
    at: Sequence[int],
    peers: Mapping[str, driver.Peer] = MappingProxyType({}),
) -> dict[int, float] | None:
    problem = _problem(family, seed)
    package, _, method = name.partition("-")
    if (name == HYPERBAND or package in peers) and len(problem.space.settings.objectives) > 1:
        return None
    if name in (STOCK, HYPERBAND) or package in peers:
        if package in peers:
            found = driver.search(peers[package], method, problem, seed, settings)
        else:
            found = peer(name, problem, seed, settings)
        return {
            k: ([1.0] + [r for spent, r in found if spent <= k * problem.epochs])[-1] for k in at
        }
    if name in (RIGHT, WRONG):
        problem = with_priors(family, seed, right=name == RIGHT)
    changes: dict[str, Any] = dict(METHODS.get(name, {}))
    outcome = simulate(problem, seed, replace(settings, **changes))
    return {trainings: outcome.regret(trainings) for trainings in at}


def main() -> None:
    """Print the tables, one for each number of workers and of trainings."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument(
        "--families", nargs="+", default=list(FAMILIES), choices=[*FAMILIES, RECORDED]
    )
    parser.add_argument("--methods", nargs="+", default=[*METHODS, STOCK, HYPERBAND])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--at", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--csv", type=Path)
    parser.add_argument(
        "--peer", action="append", default=[], type=driver.named, metavar="PACKAGE=PYTHON"
    )
    given = parser.parse_args()
    for name in given.methods:
        package = name.partition("-")[0]
        if package in driver.PACKAGES and package not in dict(given.peer):
            parser.error(f"{name} needs --peer {package}=PYTHON")
        if package not in driver.PACKAGES and name not in OWN:
            parser.error(f"no such method: {name} (known: {', '.join(OWN)})")
    peers = {package: driver.Peer(python, package) for package, python in given.peer}
    for other in peers.values():
        atexit.register(other.close)
    settings = Settings(workers=given.workers, trainings=max(given.at))
    searches: list[Search] = []
    for family in given.families:
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            for name in given.methods:
                found = _regrets(name, family, seed, settings, given.at, peers)
                if found is not None:
                    searches.append(Search(family, given.workers, seed, name, found))
        if given.csv is not None:
            write(given.csv, searches)
        print(f"{family} is done", flush=True)
    groups = {family: [family] for family in given.families}
    groups |= {"held out": [family for family in given.families if family in HELD_OUT]}
    for k in given.at:
        print(f"\nafter {k} trainings, {given.workers} workers, {given.seeds} seeds")
        others = [name for name in given.methods if name != MODEL]
        print(f"{'':<16}{'model':>8}" + "".join(f"{'less ' + name:>24}" for name in others))
        for group, families in [*groups.items(), ("all", given.families)]:
            here = Searches(one for one in searches if one.family in families)
            if here:
                cells = "".join(f"{here.less(name, k) or ''!s:>24}" for name in others)
                print(f"{group:<16}{here.mean(MODEL, k):>8.2f}{cells}")


if __name__ == "__main__":
    main()
