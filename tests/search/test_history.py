"""Standings against the plain definition: a walk over all trials."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from study.search.history import MAX_POINTS, History, Observation
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
    return [float(one) for one in History(space, items).standings()[:, 0]]


def test_on_the_first_rung_a_standing_is_the_value_in_standard_deviations(
    joint: SearchSpace,
) -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5]
    found = standings(joint, observed(joint, *({3: value} for value in values)))
    cut = np.maximum(values, 0.2)  # the lower quartile
    assert found == pytest.approx((cut - cut.mean()) / cut.std())


def test_on_a_later_rung_values_order_the_standings_of_before(joint: SearchSpace) -> None:
    low = [{3: value} for value in (0.1, 0.2, 0.3, 0.4)]
    high = [{3: 0.6, 8: 0.70}, {3: 0.8, 8: 0.65}]
    before = standings(joint, observed(joint, *low, {3: 0.6}, {3: 0.8}))
    found = standings(joint, observed(joint, *low, *high))
    assert found[:4] == before[:4]
    assert found[4] > found[5] > found[3], "the end has reversed these two"
    assert sum(found[4:]) == pytest.approx(sum(before[4:])), "their mean stays"


def test_the_only_trial_of_a_rung_keeps_its_standing(joint: SearchSpace) -> None:
    few = observed(joint, {3: 0.1}, {3: 0.2}, {3: 0.3})
    more = observed(joint, {3: 0.1}, {3: 0.2}, {3: 0.3, 8: 0.9})
    assert standings(joint, few) == pytest.approx(standings(joint, more))


def test_a_trial_whose_end_shows_it_is_good_stands_before_one_that_was_stopped(
    joint: SearchSpace,
) -> None:
    """A baseline with the lowest value of the first rung, which no rung stops."""
    slow, fast = {3: 0.1, 8: 0.9}, [{3: 0.5, 8: 0.5}, {3: 0.6, 8: 0.55}]
    found = standings(joint, observed(joint, slow, *fast, {3: 0.3}, {3: 0.35}))
    assert found[0] == max(found)


def test_a_failed_trial_is_worst_whatever_its_values_were(joint: SearchSpace) -> None:
    items = observed(joint, *({3: value} for value in (0.1, 0.2, 0.3, 0.4)))
    good = {3: dict.fromkeys(KEYS, 0.99), 8: dict.fromkeys(KEYS, 0.99)}
    items.append(Observation(stratified(joint, seed=0, number=9), good, failed=True))
    found = standings(joint, items)
    assert found[4] == min(found[:4]) == found[0]
    assert found[:4] == standings(joint, items[:4]), "and its values say nothing of others"


def test_trials_that_all_failed_have_one_standing(joint: SearchSpace) -> None:
    items = [replace(one, failed=True) for one in observed(joint, {}, {3: 0.5})]
    assert standings(joint, items) == [0, 0]


def test_each_objective_has_standings_of_its_own(joint: SearchSpace) -> None:
    params = [stratified(joint, seed=0, number=number) for number in range(6)]
    items = [
        Observation(one, {3: {MIOU: v, MACC: -v}, 8: {MIOU: v, MACC: -v}})
        for one, v in zip(params, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), strict=True)
    ]
    found = History(joint, items).standings()
    assert np.argmax(found[:, 0]) == 5 and np.argmax(found[:, 1]) == 0


def test_what_is_not_a_number_is_as_bad_as_a_bad_value(joint: SearchSpace) -> None:
    found = standings(joint, observed(joint, {3: math.nan}, {3: -math.inf}, {3: 0.0}, {3: 1.0}))
    assert found[0] == found[1] == min(found) < found[3] and np.isfinite(found).all()
    assert standings(joint, observed(joint, {3: math.nan}, {3: math.nan})) == [0, 0]


def test_what_runs_without_a_value_is_pending(joint: SearchSpace) -> None:
    items = observed(joint, {3: 0.1}, {3: 0.2})
    items += observed(joint, {}, running=True) + observed(joint, {3: 0.3}, running=True)
    history = History(joint, items)
    rows, found = history.judged()
    assert history.num_judged == len(rows) == len(found) == 3
    assert len(history.pending()) == 1


def test_of_very_many_that_run_the_model_sees_an_even_sample(joint: SearchSpace) -> None:
    one = stratified(joint, seed=0, number=0)
    places = np.linspace(0.25, 1.0, 5 * MAX_POINTS)
    items = [
        Observation({**one, "optimizer/lr_scale": float(place)}, running=True) for place in places
    ]
    history = History(joint, items)
    column = history.encoder.columns["optimizer/lr_scale"]
    seen, few = history.pending()[:, column], History(joint, items[:MAX_POINTS]).pending()
    assert len(seen) == len(few) == MAX_POINTS
    ends = History(joint, items[:: len(items) - 1]).pending()[:, column]
    assert [seen[0], seen[-1]] == ends.tolist()
    assert (np.diff(seen) > 0).all() and np.diff(seen).max() < (seen[-1] - seen[0]) / 50


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
    whole = History(joint, items).standings()[:, 0]
    best = np.sort(found[:, 0])[::-1]
    quarter = MAX_POINTS // 4
    assert best[:quarter].tolist() == np.sort(whole)[::-1][:quarter].tolist()
    assert best[-1] == whole.min() and best[MAX_POINTS // 2] > np.median(whole)


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
