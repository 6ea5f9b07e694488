"""Longer training as a rival: curves, confirmed numbers and steps are made up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from study.analysis.longer import final_slope, ladder, longer, rising_note
from study.analysis.statistics import Comparison
from study.core.names import CONFIRM
from study.ledger.records import ReportRecord, TrialRecord
from study.ledger.state import State, Trial

KEY = "val/tuned/miou"


def trained(
    curve: Callable[[int], float],
    *,
    seeds: int = 3,
    epochs: int = 32,
    every: int = 1,
    noise: float = 0.0,
) -> list[Trial]:
    """Trainings of one config, with a curve of mIoU by epoch and noise that is a seed's own."""
    state = State()
    for seed in range(seeds):
        state.apply(TrialRecord(f"t{seed}", seed, CONFIRM, "ce", "ce", None, {}, seed))
        drawn = np.random.default_rng(seed).normal(0, noise, epochs + 1)
        for epoch in range(1, epochs + 1):
            metrics = {"train/loss": 1.0}
            if epoch % every == 0:
                metrics |= {"val/miou": 0.3, KEY: curve(epoch) + drawn[epoch]}
            state.apply(ReportRecord(f"t{seed}", 0, epoch, metrics))
    return list(state.trials.values())


def line(slope: float) -> Callable[[int], float]:
    return lambda epoch: 0.3 + slope * epoch


def test_a_reference_that_was_rising_is_said_with_its_slope() -> None:
    (said,) = rising_note(trained(line(0.0012), noise=1e-4), KEY)
    assert said.startswith(
        "the reference was still rising by 0.12 points of val mIoU per epoch when its 32 epochs "
        "ended"
    )


def test_the_slope_is_that_of_the_last_quarter() -> None:
    found = final_slope(trained(lambda epoch: 0.2 + 0.01 * min(epoch, 24) + 0.001 * epoch), KEY)
    assert found is not None
    assert found.slope == pytest.approx(0.001)


@pytest.mark.parametrize(
    "trials",
    [
        trained(line(0.0)),
        trained(line(-0.002)),
        trained(line(0.0006)),  # 8 further epochs give .48 points
        trained(lambda epoch: 0.5 * (1 - np.exp(-epoch / 3))),  # saturated
        trained(line(0.001), noise=0.03),  # as large as the noise
    ],
    ids=["flat", "falling", "too little", "saturated", "noise"],
)
def test_no_other_curve_is_said(trials: list[Trial]) -> None:
    assert rising_note(trials, KEY) == []


def test_slopes_that_differ_between_seeds_are_not_sure() -> None:
    trials = [
        trained(line(slope), seeds=seed + 1)[seed]
        for seed, slope in enumerate((0.0065, 0.0, -0.0005))
    ]
    found = final_slope(trials, KEY)
    assert found is not None
    assert found.slope == pytest.approx(0.002)
    assert not found.is_rising


@pytest.mark.parametrize(("every", "epochs", "said"), [(1, 8, 1), (2, 8, 0), (1, 5, 0), (4, 32, 1)])
def test_a_slope_needs_evaluations(every: int, epochs: int, said: int) -> None:
    trials = trained(line(0.01), every=every, epochs=epochs)
    assert len(rising_note(trials, KEY)) == said


def test_without_a_training_there_is_no_slope() -> None:
    assert final_slope([], KEY) is None


def judged(values: dict[int, float], key: str = "test/miou") -> list[Trial]:
    state = State()
    for seed, number in values.items():
        state.apply(TrialRecord(f"t{seed}", seed, CONFIRM, "ce", "ce", None, {}, seed))
        state.apply(ReportRecord(f"t{seed}", 0, 8, {key: number}))
    return list(state.trials.values())


def test_a_step_is_paired_by_seed() -> None:
    first = judged({1: 0.30, 2: 0.40, 3: 0.50})
    second = judged({3: 0.52, 1: 0.31, 2: 0.43, 4: 0.90})
    below, above = ladder([("a", first, "test/miou"), ("b", second, "test/miou")])
    assert [rung.mean for rung in (below, above)] == pytest.approx([0.4, 0.54])
    assert (below.name, below.seeds, below.step, above.seeds) == ("a", 3, None, 4)
    assert above.step is not None and above.step.interval is not None
    assert above.step.difference == pytest.approx(0.02)
    # t(.975, 2) = 4.3027, and the differences' sd is .01
    assert above.step.interval.high - 0.02 == pytest.approx(4.3027 * 0.01 / np.sqrt(3), rel=1e-4)
    assert above.step.interval.low + above.step.interval.high == pytest.approx(0.04)


def test_one_shared_seed_gives_a_step_without_an_interval_and_none_gives_no_step() -> None:
    rungs = [judged({1: 0.3}), judged({1: 0.4, 2: 0.5}), judged({3: 0.6})]
    _, second, third = ladder([("", trials, "test/miou") for trials in rungs])
    assert second.step == Comparison(0.4 - 0.3)
    assert third.step is None


def test_a_longer_budget_is_paired_by_seed_and_both_have_it() -> None:
    short = judged({1: 0.30, 2: 0.40, 3: 0.50})
    long, other = judged({1: 0.41, 2: 0.50, 3: 0.61}), judged({1: 0.40, 3: 0.58, 4: 0.9})
    found = longer(4, short, long, other, "test/miou")
    assert found is not None and (found.budget, found.seeds) == (4, 2)
    assert found.added.difference == pytest.approx((0.11 + 0.10 + 0.11) / 3)
    assert found.gain.difference == pytest.approx((-0.01 - 0.03) / 2)
    assert found.gain.interval is not None
    assert longer(4, short, long, judged({4: 0.9}), "test/miou") is None
    assert longer(4, short, [], other, "test/miou") is None


def test_a_rung_without_a_number_is_left_out() -> None:
    empty, other = judged({1: float("nan")}), judged({1: 0.3}, key="test/tuned/miou")
    first = judged({1: 0.3})
    found = ladder([("a", first, "test/miou"), ("b", empty, "test/miou"), ("c", [], "test/miou"),
                    ("d", other, "test/miou"), ("e", other, "test/tuned/miou")])  # fmt: skip
    assert [rung.name for rung in found] == ["a", "e"]
    assert found[1].step == Comparison(0.0)


def test_who_trains_longer_is_not_told_to() -> None:
    rising = trained(line(0.01))
    assert "--longer 4" in rising_note(rising, KEY)[0]
    assert "longer" not in rising_note(rising, KEY, measured=True)[0]
