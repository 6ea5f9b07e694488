"""Standings against the plain definition: a walk over all trials."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from study.search.history import MAX_POINTS, WORST, History, Observation
from study.search.sampler import stratified
from study.space.search_space import SearchSpace, load_space

MIOU, MACC = "val/tuned/miou", "val/tuned_macc/macc"
KEYS = (MIOU, MACC)


@pytest.fixture(scope="module")
def joint() -> SearchSpace:
    return load_space("joint")


def observed(space: SearchSpace, *rungs: dict[int, float], **states: bool) -> list[Observation]:
    """A trial for each mapping of rungs, with the same value of both objectives."""
    return [
        Observation(
            stratified(space, seed=0, number=number),
            {epoch: dict.fromkeys(KEYS, value) for epoch, value in found.items()},
            **states,
        )
        for number, found in enumerate(rungs)
    ]


def standings(space: SearchSpace, items: Sequence[Observation]) -> list[float]:
    return [round(float(one), 4) for one in History(space, items).standings()[:, 0]]


def test_a_standing_counts_rungs_and_then_who_is_beaten(joint: SearchSpace) -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    items = observed(joint, *({3: v} for v in values[:4]), {3: 0.5, 8: 0.7}, {3: 0.6, 8: 0.65})
    assert standings(joint, items) == [0, 0.1667, 0.3333, 0.5, 1.5, 1.0]


def test_who_is_let_through_has_the_standing_that_judgement_would_give(
    joint: SearchSpace,
) -> None:
    """A baseline at its end with the lowest value of the first rung is the worst of all, whatever
    the others that have ended came to."""
    items = observed(joint, {3: 0.1, 8: 0.9}, *({3: v} for v in (0.2, 0.3, 0.4)), {3: 0.6, 8: 0.7})
    assert standings(joint, items) == [0, 0.2, 0.4, 0.6, 1.0]


def test_an_early_trial_that_would_pass_today_is_the_best_of_its_rung(joint: SearchSpace) -> None:
    items = observed(joint, {3: 0.9}, *({3: v} for v in (0.1, 0.2, 0.3, 0.4)), {3: 0.8, 8: 0.6})
    assert standings(joint, items) == [0.8333, 0, 0.1667, 0.3333, 0.5, 1.0]


def test_a_failed_trial_is_worst_whatever_its_values_were(joint: SearchSpace) -> None:
    items = observed(joint, *({3: v} for v in (0.1, 0.2, 0.3)))
    items.append(
        Observation(
            stratified(joint, seed=0, number=9), {3: dict.fromkeys(KEYS, 0.99)}, failed=True
        )
    )
    found = History(joint, items).standings()
    assert found[3].tolist() == [WORST, WORST]
    assert (found[:3] > WORST).all() and found[2, 0] == 0.75


def test_each_objective_has_standings_of_its_own(joint: SearchSpace) -> None:
    params = [stratified(joint, seed=0, number=number) for number in range(6)]
    items = [
        Observation(one, {3: {MIOU: v, MACC: -v}, 8: {MIOU: v, MACC: -v}})
        for one, v in zip(params, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), strict=True)
    ]
    found = History(joint, items).standings()
    assert np.argmax(found[:, 0]) == 5 and np.argmax(found[:, 1]) == 0


def test_what_is_not_a_number_is_beaten_by_all(joint: SearchSpace) -> None:
    items = observed(joint, {3: math.nan}, {3: -math.inf}, {3: 0.0})
    assert standings(joint, items)[:2] == [0, 0] and standings(joint, items)[2] > 0


def test_what_runs_without_a_value_is_pending(joint: SearchSpace) -> None:
    items = observed(joint, {3: 0.1}, {3: 0.2})
    items += observed(joint, {}, running=True) + observed(joint, {3: 0.3}, running=True)
    history = History(joint, items)
    rows, found = history.judged()
    assert history.num_judged == len(rows) == len(found) == 3
    assert len(history.pending()) == 1


def test_points_outside_of_the_space_are_skipped(joint: SearchSpace) -> None:
    data = {**joint.data, "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 1.0}}}}
    narrow = load_space(data)
    items = observed(joint, *({3: 0.1 * number} for number in range(20)))
    inside = [one for one in items if one.params["optimizer/lr_scale"] <= 1]
    assert 0 < len(inside) < 20
    assert History(narrow, items).num_judged == len(inside)


def test_a_long_history_is_thinned_to_the_best_and_a_sample_of_the_rest(
    joint: SearchSpace,
) -> None:
    one = stratified(joint, seed=0, number=0)
    items = [Observation(one, {3: dict.fromkeys(KEYS, i / 1000)}) for i in range(1000)]
    rows, found = History(joint, items).judged()
    assert len(rows) == len(found) == MAX_POINTS
    best = np.sort(found[:, 0])[::-1]
    assert best[: MAX_POINTS // 4].tolist() == pytest.approx(
        [(999 - i) / 1000 for i in range(MAX_POINTS // 4)]
    )
    rest = best[MAX_POINTS // 2 :]
    assert rest[-1] == 0 and abs(float(np.diff(rest).mean()) + 0.007) < 0.001, "an even sample"


@pytest.mark.parametrize("size", [10, 40, 120])
def test_a_history_that_grows_is_that_of_all_trials(joint: SearchSpace, size: int) -> None:
    rng = random.Random(size)
    growing, items = History(joint), list[Observation]()
    for number in range(size):
        for place in range(max(0, number - 4), number):
            if items[place].running and rng.random() < 0.5:
                rungs = {**items[place].rungs, 8: dict.fromkeys(KEYS, rng.random())}
                over = replace(items[place], rungs=rungs, running=rng.random() < 0.3)
                items[place] = replace(over, failed=not over.running and rng.random() < 0.2)
                growing.put(place, items[place])
        params = stratified(joint, seed=0, number=number)
        if number % 7 == 3:
            params = {**params, "optimizer/lr_scale": 100.0}  # outside of the space
        rungs = {3: dict.fromkeys(KEYS, rng.random())} if rng.random() < 0.6 else {}
        items.append(Observation(params, rungs, running=rng.random() < 0.6))
        growing.put(number, items[-1])
    whole = History(joint, items)
    for mine, other in zip(growing.judged(), whole.judged(), strict=True):
        assert np.array_equal(mine, other, equal_nan=True)
    assert np.array_equal(growing.pending(), whole.pending(), equal_nan=True)
