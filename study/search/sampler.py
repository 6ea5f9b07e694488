"""Proposes what to try next.

A proposal is a function of (space, history, seed, number) alone, so that a resumed study continues
exactly where it stopped and needs no state of a sampler. Proposals are stratified until six trials
are judged; with a warm start, earlier studies make half of these (see `warm_start`). After that a
model makes them (see `model`), but for a part that stays random: that part takes, of each top-level
choice, the option that the fewest trials had, so that no option is forgotten.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning

from study.core.names import CE, GRID, RANDOM
from study.search.history import History, Observation, key_of
from study.search.model import candidates, linear_algebra
from study.search.priors import near_priors
from study.search.warm_start import Prior
from study.space.search_space import Resolved, SearchSpace

MODEL = "model"
MIN_JUDGED = 6
RANDOM_FRACTION = 0.15
WARM_START = "warm_start"
WARM_FRACTION = 0.5  # of the proposals before the model's, with a warm start
STARTS = 4  # best points of each earlier study whose neighbours are looked at
ATTEMPTS = 20  # to draw a loss that is not plain cross entropy
Params = dict[str, Any]


@dataclass(frozen=True)
class Proposal:
    """A point of the space, and the configs that it resolves to. by: model, warm_start (the
    earlier studies), random or grid."""

    params: Params
    config: Resolved
    by: str


def propose(
    space: SearchSpace,
    history: History | Sequence[Observation],
    *,
    seed: int,
    number: int,
    sampler: str = MODEL,
    prior: Prior | None = None,
) -> Proposal:
    """Search trial `number` (0-based). A draw that amounts to plain cross entropy is repeated, at
    most ATTEMPTS times: the reference trials tune cross entropy.

    Args:
        space: what is searched; its settings name the objectives, all maximised.
        history: the trials so far, in the order in which they were handed out.
        seed: the study's seed.
        number: counts the proposals of this study; also the point of a grid.
        sampler: random, grid, or any other name for the model: `tpe` is an earlier one.
        prior: what earlier studies tell the model; it must be in the rows of the history's encoder.
    """
    if not isinstance(history, History):
        history = History(space, history)
    if sampler == GRID:
        params = _grid_point(space, number, history)
        return Proposal(params, space.resolve(params), GRID)
    rng = np.random.default_rng([seed, number])
    by_model = sampler != RANDOM and history.num_judged >= MIN_JUDGED
    if by_model and rng.random() >= RANDOM_FRACTION:
        drawn, by = _modelled(space, history, number, rng, prior), MODEL
    elif (
        prior
        and prior.points
        and sampler != RANDOM
        and not by_model
        and rng.random() < WARM_FRACTION
    ):
        drawn, by = _from_earlier(space, history, number, rng, prior), WARM_START
    else:
        drawn, by = iter(()), RANDOM
    for params in drawn:
        config = space.resolve(params)
        if config.family != CE and key_of(params) not in history.proposed:
            return Proposal(params, config, by)
    for attempt in range(ATTEMPTS):
        least = history if by_model and attempt == 0 else None
        params = stratified(space, seed=seed, number=number, attempt=attempt, least=least)
        config = space.resolve(params)
        if config.family != CE:
            break
    return Proposal(params, config, RANDOM)


def _grid_point(space: SearchSpace, number: int, history: History) -> Params:
    """The first point that is left."""
    grid = space.grid
    if grid is None or number >= len(grid):
        size = "no end" if grid is None else f"{len(grid)} points"
        raise ValueError(f"no point {number} in a grid of {size}")
    return next(point for point in grid if key_of(point) not in history.proposed)


def _modelled(
    space: SearchSpace,
    history: History,
    number: int,
    rng: np.random.Generator,
    prior: Prior | None,
) -> Iterator[Params]:
    """What the model would try, best first; the objectives take turns."""
    rows, standings = history.judged()
    turn = number % len(space.settings.objectives)
    with linear_algebra().limit(limits=1):  # the same sums on every machine; trials need the cores
        drawn = candidates(
            history.encoder,
            rows,
            standings[:, turn],
            history.pending(),
            rng,
            means=prior.means(turn) if prior else (),
            starts=prior.best(turn, STARTS) if prior else None,
        )
    return (history.encoder.params(row) for row in drawn)


def _from_earlier(
    space: SearchSpace, history: History, number: int, rng: np.random.Generator, prior: Prior
) -> Iterator[Params]:
    """What the earlier studies would try, best first, away from what this one has begun."""
    turn = number % len(space.settings.objectives)
    begun = np.concatenate([history.judged()[0], history.pending()])
    with linear_algebra().limit(limits=1):
        drawn = candidates(history.encoder, *prior.together(turn), begun, rng)
    return (history.encoder.params(row) for row in drawn)


def stratified(
    space: SearchSpace,
    *,
    seed: int,
    number: int,
    attempt: int = 0,
    least: History | None = None,
) -> Params:
    """Random leaves under balanced choices.

    In each block of proposals every top-level choice takes each of its options once, in an order
    that is drawn anew for each block. With `least`, it takes the option that the fewest trials of
    that history had, of several the first by this order. Further attempts are random throughout.
    Without `least`, every second proposal lies near the priors of the space, if it has any.
    """
    fixed: Params = {}
    for path, options in space.choices.items() if attempt == 0 else ():
        block, position = divmod(number, len(options))
        order = np.random.default_rng([seed, zlib.crc32(path.encode()), block])
        turns = [options[index] for index in np.roll(order.permutation(len(options)), -position)]
        fixed[path] = turns[0] if least is None else least.least_taken(path, turns)
    if least is None:
        salt = (seed, number, 2, *([attempt] if attempt else []))
        fixed |= near_priors(space, np.random.default_rng(salt))
    with _quiet():
        salt = (seed, number, 1, *([attempt] if attempt else []))
        leaf_seed = int(np.random.default_rng(salt).integers(2**31))
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=leaf_seed))
        study.enqueue_trial(fixed)
        return space.sample(study.ask())


def model_takes_over_at(num_observed: int, *, slots: int = 1) -> int:
    """The first search trial (1-based) that the model may propose: MIN_JUDGED are judged before it.

    Args:
        num_observed: trials that the space can represent and that come before the search ones
            (baselines), all of which reach the first rung.
        slots: trials that run at a time, of which all but one have no result yet.
    """
    return max(1, MIN_JUDGED - num_observed + slots)


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
