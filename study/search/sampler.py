"""What is tried next. A proposal is a function of (space, history, seed, number) alone, so that a
resumed study goes on exactly where it stopped and needs no sampler state.

A model that learns from values of different fidelity learns who was stopped, not who is good:
rung values and final values must not be mixed. So the model takes the highest rung that holds at
least MIN_RESULTS results, and values of that rung only. Trials stopped below it are left out.
Until then the design is stratified. One proposal in three stays random for good. In a long study
the model sees the best and a sample of the others.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.losses import LossConfig, family
from study.losses.family import NEUTRAL
from study.search.shares import Owed, Spent, owed
from study.space import SearchSpace

MIN_RESULTS = 16
RANDOM_SHARE = 1 / 3
MAX_POINTS = 128
ATTEMPTS = 20  # at a loss that is not plain cross entropy, which is the reference trials' part
WORST = -1.0  # below every objective, which are shares in [0, 1]
Params = dict[str, Any]


@dataclass(frozen=True)
class Observation:
    """A trial as a sampler sees it.

    rungs: epoch -> objective -> value, the full budget's epoch included once it is reached.
    running: it may still reach further rungs. failed: it diverged, ran out of memory or raised.
    """

    params: Mapping[str, Any]
    rungs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    running: bool = False
    failed: bool = False


def propose(
    space: SearchSpace,
    history: Sequence[Observation],
    *,
    seed: int,
    number: int,
    sampler: str = "tpe",
    spent: Sequence[Spent] = (),
    full: int = 0,
) -> Params:
    """The params of search trial `number` (0-based). Where a draw comes to plain cross entropy it
    is drawn again: tuning that is the reference trials' part.

    Args:
        space: what is searched; its settings name the objectives, all maximised.
        history: the trials so far, in the order in which they were handed out. Those that lie
            outside of the space (it may have been narrowed on resume) are skipped.
        seed: the study's seed.
        number: counts the proposals of this study; also the point of a grid.
        sampler: tpe, random or grid.
        spent: the searched trials so far, of which options that are owed a trial get it (`shares`).
        full: epochs of a trial that nobody stops.
    """
    due = owed(space.choices, spent, full) if full else {}
    if sampler == "grid":
        return _grid_point(space, number, [item.params for item in spent if item.proposed], due)
    for attempt in range(ATTEMPTS):
        # the most urgent choice is the last to be left to chance
        few = dict(list(due.items())[: len(due) - attempt * (len(due) + 1) // ATTEMPTS])
        params = _draw(
            space, history, seed=seed, number=number, sampler=sampler, attempt=attempt, due=few
        )
        loss = LossConfig.model_validate(space.resolve(params)["loss"])
        if family(loss) != NEUTRAL:
            break
    return params


def _grid_point(
    space: SearchSpace, number: int, taken: Sequence[Mapping[str, Any]], due: Owed
) -> Params:
    """The first point left, of those with an option that is owed a trial where there are any."""
    grid = space.grid
    if grid is None or number >= len(grid):
        size = "no end" if grid is None else f"{len(grid)} points"
        raise ValueError(f"a grid's point {number} must exist, but the grid has {size}")
    in_order = len(taken) != number
    left = grid[number:] if in_order else [point for point in grid if point not in taken]
    return max(left, key=lambda point: [point[path] in options for path, options in due.items()])


def _draw(
    space: SearchSpace,
    history: Sequence[Observation],
    *,
    seed: int,
    number: int,
    sampler: str,
    attempt: int,
    due: Owed,
) -> Params:
    rng = np.random.default_rng([seed, number] if attempt == 0 else [seed, number, attempt])
    model_seed = int(rng.integers(2**31))
    if sampler == "random" or rng.random() < RANDOM_SHARE:
        points = None
    else:
        points = _model_points(space, history)
    if points is None and attempt == 0:
        return stratified(space, seed=seed, number=number, due=due)
    fixed = {path: options[int(rng.integers(len(options)))] for path, options in due.items()}
    with _quiet():
        if points is None:
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=model_seed))
            if fixed:
                study.enqueue_trial(fixed)
            return space.sample(study.ask())
        tpe = optuna.samplers.TPESampler(
            n_startup_trials=0,
            multivariate=True,
            group=True,  # the leaves of an option are modelled together, not one by one
            constant_liar=True,
            seed=model_seed,
        )
        study = optuna.create_study(
            directions=["maximize"] * len(space.settings.objectives), sampler=tpe
        )
        study.add_trials(points)
        if fixed:
            study.enqueue_trial(fixed)
        return space.sample(study.ask())


def stratified(space: SearchSpace, *, seed: int, number: int, due: Owed | None = None) -> Params:
    """Random leaves; every top-level choice takes each of its options once per block of proposals,
    in an order drawn anew for each block. An option that is owed a trial comes before its turn."""
    fixed: Params = {}
    for path, options in space.choices.items():
        block, position = divmod(number, len(options))
        order = np.random.default_rng([seed, zlib.crc32(path.encode()), block])
        turn = options[order.permutation(len(options))[position]]
        lacking = (due or {}).get(path, (turn,))
        fixed[path] = turn if turn in lacking else lacking[0]
    with _quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=_mix(seed, number)))
        study.enqueue_trial(fixed)
        return space.sample(study.ask())


def model_takes_over_at(num_observed: int, *, slots: int = 1) -> int:
    """The first search trial (1-based) that the model may propose: the first rung then holds
    MIN_RESULTS results at the earliest.

    Args:
        num_observed: trials that the space can represent and that come before the search ones
            (baselines), all of which reach the first rung.
        slots: trials that run at a time, of which all but one have no result yet.
    """
    return max(1, MIN_RESULTS - num_observed + slots)


def _mix(seed: int, number: int) -> int:
    return int(np.random.default_rng([seed, number, 1]).integers(2**31))


def _model_points(space: SearchSpace, history: Sequence[Observation]) -> list[FrozenTrial] | None:
    """The trials of the model, or None while no rung holds enough results."""
    known = [item for item in history if space.point(item.params) is not None]
    count = Counter(epoch for item in known for epoch in item.rungs)
    full = [epoch for epoch in count if count[epoch] >= MIN_RESULTS]
    if not full:
        return None
    rung, objectives = max(full), space.settings.objectives
    values: dict[int, list[float] | None] = {}  # by place in `known`; None is still running
    for place, item in enumerate(known):
        if rung in item.rungs:
            values[place] = [_finite(item.rungs[rung][key]) for key in objectives]
        elif item.failed:
            values[place] = [WORST] * len(objectives)
        elif item.running:
            values[place] = None
    points = []
    for place in _thinned(values):
        point = space.point(known[place].params)
        assert point is not None
        points.append(
            create_trial(
                state=TrialState.RUNNING if values[place] is None else TrialState.COMPLETE,
                values=values[place],
                params=point[0],
                distributions=point[1],
            )
        )
    return points


def _thinned(values: Mapping[int, list[float] | None]) -> list[int]:
    """All that run and at most MAX_POINTS of the others, so that a proposal costs the same however
    long the study: of each objective the best, half in all, and an even sample of the rest."""
    judged = {place: value for place, value in values.items() if value is not None}
    if len(judged) <= MAX_POINTS:
        return list(values)
    kept: set[int] = {place for place, value in values.items() if value is None}
    room = len(kept) + MAX_POINTS
    num_objectives = len(next(iter(judged.values())))
    for axis in range(num_objectives):
        order = sorted(judged, key=lambda place: judged[place][axis], reverse=True)
        kept.update(order[: MAX_POINTS // 2 // num_objectives])
    rest = [place for place in judged if place not in kept]
    even = np.linspace(0, len(rest) - 1, room - len(kept)).round().astype(int)
    kept.update(rest[index] for index in even)
    return sorted(kept)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else WORST


@contextmanager
def _quiet() -> Iterator[None]:
    """An in-memory study per proposal is no news, and `group` being experimental is known."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
