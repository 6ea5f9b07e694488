"""A loss that does nothing is seldom called a gain: whole studies, on made-up values."""

from __future__ import annotations

import pytest

from benchmarks.false_gains import (
    NOWHERE,
    OCTAVES,
    World,
    claims_a_gain,
    interval,
    simulate,
)
from study.analysis.answer import answer
from study.core.names import CONFIRM


@pytest.mark.parametrize("best", [0.3, OCTAVES])
def test_of_ten_studies_few_claim_a_gain(best: float) -> None:
    """At a share of 5 %, five or more of ten are claimed once in 15,000 times; seeds are fixed."""
    states = [simulate(World(), seed, best) for seed in range(10)]
    assert sum(claims_a_gain(answer(one, NOWHERE)) for one in states) <= 4


@pytest.mark.slow
def test_a_real_gain_is_claimed() -> None:
    state = simulate(World(), 0, 0.0)
    for trial in state.completed(CONFIRM):
        if trial.family != "ce":
            for epoch, report in trial.reports.items():
                trial.reports[epoch] = {key: value + 0.05 for key, value in report.items()}
    assert claims_a_gain(answer(state, NOWHERE))


def test_the_interval_of_a_share_holds_it_and_shrinks() -> None:
    assert interval(0, 20) == pytest.approx((0.0, 0.168), abs=1e-3)
    low, high = interval(50, 1000)
    assert low < 0.05 < high and high - low < 0.03
