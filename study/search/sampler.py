"""Proposes what to try next.

A proposal is a function of (space, history, seed, number) alone, so that a resumed study continues
exactly where it stopped and needs no state of a sampler. Proposals are stratified until a rung
holds enough results for a model (see `history`). After that the model makes two in three, and the
third stays random.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from study.core.names import CE
from study.search.history import MIN_RESULTS, History, Observation
from study.search.quota import Due, EpochsUsed, below_minimum_share
from study.space.search_space import Resolved, SearchSpace

RANDOM_FRACTION = 1 / 3
ATTEMPTS = 20  # to draw a loss that is not plain cross entropy
Params = dict[str, Any]


@dataclass(frozen=True)
class Proposal:
    """A point of the space, and the configs that it resolves to."""

    params: Params
    config: Resolved


def propose(
    space: SearchSpace,
    history: History | Sequence[Observation],
    *,
    seed: int,
    number: int,
    sampler: str = "tpe",
    used: Sequence[EpochsUsed] = (),
    full: int = 0,
) -> Proposal:
    """Search trial `number` (0-based). A draw that amounts to plain cross entropy is repeated, at
    most ATTEMPTS times: the reference trials tune cross entropy.

    Args:
        space: what is searched; its settings name the objectives, all maximised.
        history: the trials so far, in the order in which they were handed out.
        seed: the study's seed.
        number: counts the proposals of this study; also the point of a grid.
        sampler: tpe, random or grid.
        used: the searched trials so far; an option below its minimum share (`quota`) comes next.
        full: epochs of a trial that no rung stops; 0 where no option has a minimum share.
    """
    due = below_minimum_share(space.choices, used, full) if full else {}
    if sampler == "grid":
        taken = [item.params for item in used if item.proposed]
        params = _grid_point(space, number, taken, due)
        return Proposal(params, space.resolve(params))
    if not isinstance(history, History):
        history = History(space, history)
    for attempt in range(ATTEMPTS):
        # the most urgent choice is the last to be left to chance
        few = dict(list(due.items())[: len(due) - attempt * (len(due) + 1) // ATTEMPTS])
        params = _draw(
            space, history, seed=seed, number=number, sampler=sampler, attempt=attempt, due=few
        )
        config = space.resolve(params)
        if config.family != CE:
            break
    return Proposal(params, config)


def _grid_point(
    space: SearchSpace, number: int, taken: Sequence[Mapping[str, Any]], due: Due
) -> Params:
    """The first point that is left; one with an option that is due comes before the others."""
    grid = space.grid
    if grid is None or number >= len(grid):
        size = "no end" if grid is None else f"{len(grid)} points"
        raise ValueError(f"no point {number} in a grid of {size}")
    in_order = len(taken) != number
    left = grid[number:] if in_order else [point for point in grid if point not in taken]
    return max(left, key=lambda point: [point[path] in options for path, options in due.items()])


def _draw(
    space: SearchSpace,
    history: History,
    *,
    seed: int,
    number: int,
    sampler: str,
    attempt: int,
    due: Due,
) -> Params:
    rng = np.random.default_rng([seed, number] if attempt == 0 else [seed, number, attempt])
    model_seed = int(rng.integers(2**31))
    is_random = sampler == "random" or rng.random() < RANDOM_FRACTION
    points = None if is_random else history.model_points()
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


def stratified(space: SearchSpace, *, seed: int, number: int, due: Due | None = None) -> Params:
    """Random leaves under balanced choices.

    In each block of proposals every top-level choice takes each of its options once, in an order
    that is drawn anew for each block. An option that is due comes before its turn.
    """
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
    """The first search trial (1-based) that the model may propose: no rung holds MIN_RESULTS
    results before it.

    Args:
        num_observed: trials that the space can represent and that come before the search ones
            (baselines), all of which reach the first rung.
        slots: trials that run at a time, of which all but one have no result yet.
    """
    return max(1, MIN_RESULTS - num_observed + slots)


def _mix(seed: int, number: int) -> int:
    return int(np.random.default_rng([seed, number, 1]).integers(2**31))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna: it would announce each in-memory study, and that `group` is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
