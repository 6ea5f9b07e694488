from __future__ import annotations

import math
import random

import pytest

from study.search.asha import Rung, decide, rung_epochs

MIOU, MACC = "val/miou", "val/macc"


@pytest.mark.parametrize(
    ("first", "factor", "epochs", "rungs"),
    [
        (0.375, 3, 8, [3]),
        (0.375, 3, 16, [6]),
        (0.1, 3, 60, [6, 18, 54]),
        (0.07, 3, 100, [7, 21, 63]),  # 0.07 * 100 is 7.000000000000001
        (0.34, 2, 10, [4, 8]),
        (1.0, 3, 8, []),
        (0.375, 3, 1, []),
        (0.01, 3, 9, [1, 3]),
    ],
)
def test_rungs_start_at_a_share_of_the_schedule_and_end_before_it_does(
    first, factor, epochs, rungs
):
    assert rung_epochs(first, factor, epochs) == rungs


def one(*values: float) -> list[dict[str, float]]:
    return [{MIOU: value} for value in values]


def test_a_rung_stops_nobody_before_it_holds_twice_the_reduction_factor():
    assert decide(one(0.9, 0.8, 0.7, 0.6), {MIOU: 0.1}, reduction_factor=3).keep
    assert not decide(one(0.9, 0.8, 0.7, 0.6, 0.5), {MIOU: 0.1}, reduction_factor=3).keep


def test_a_third_of_six_goes_on():
    before = one(0.1, 0.2, 0.3, 0.4, 0.5)
    kept = [value for value in (0.05, 0.35, 0.45, 0.55) if decide(
        before, {MIOU: value}, reduction_factor=3).keep]  # fmt: skip
    assert kept == [0.45, 0.55]


def test_five_of_fifteen_go_on_and_the_sixth_does_not():
    before = one(*(value / 100 for value in range(14)))
    fifth = decide(before, {MIOU: 0.095}, reduction_factor=3)
    sixth = decide(before, {MIOU: 0.085}, reduction_factor=3)
    assert (fifth.keep, fifth.ranks, fifth.size) == (True, {MIOU: 5}, 15)
    assert (sixth.keep, sixth.ranks) == (False, {MIOU: 6})


def test_ties_go_on():
    assert decide(one(*[0.5] * 20), {MIOU: 0.5}, reduction_factor=3).keep


def test_the_best_by_any_objective_goes_on():
    before = [{MIOU: 0.5 + i / 100, MACC: 0.5 + i / 100} for i in range(9)]
    decision = decide(before, {MIOU: 0.1, MACC: 0.9}, reduction_factor=3)
    assert decision.keep
    assert decision.ranks == {MIOU: 10, MACC: 1}
    assert not decide(before, {MIOU: 0.1, MACC: 0.1}, reduction_factor=3).keep


@pytest.mark.parametrize("worst", [math.nan, -math.inf])
def test_a_value_that_is_not_finite_stops_even_on_an_empty_rung(worst):
    decision = decide([], {MIOU: worst, MACC: 0.9}, reduction_factor=3)
    assert not decision.keep
    assert decision.reason == "val/miou is not finite"


def test_values_that_are_not_finite_rank_last():
    before = one(math.nan, math.nan, -math.inf, 0.6, 0.7)
    assert decide(before, {MIOU: 0.65}, reduction_factor=3).ranks == {MIOU: 2}


def test_at_least_one_trial_goes_on():
    assert decide(one(0.1, 0.2, 0.3), {MIOU: 0.4}, reduction_factor=2).keep


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_rung_in_order_judges_as_counting_does(factor):
    rng = random.Random(factor)
    rung, before = Rung(factor), []
    for size in range(1, 80):
        values = [rng.choice([math.nan, -math.inf, 0.5]), rng.random(), round(rng.random(), 1)]
        value = {MIOU: rng.choice(values), MACC: rng.choice(values[1:])}
        decision = rung.judge(value)
        score = [
            {k: v if math.isfinite(v) else -math.inf for k, v in item.items()} for item in before
        ]
        mine = {k: v if math.isfinite(v) else -math.inf for k, v in value.items()}
        ranks = {key: 1 + sum(item[key] > mine[key] for item in score) for key in value}
        assert (decision.ranks, decision.size) == (ranks, size)
        kept = size < 2 * factor or min(ranks.values()) <= size // factor
        assert decision.keep == (kept and all(map(math.isfinite, value.values())))
        rung.add(value)
        before.append(value)
