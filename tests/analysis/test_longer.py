"""Longer training as a rival: curves, confirmed numbers and steps are made up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from study.analysis.longer import final_slope, rising_note
from study.core.names import CONFIRM
from study.ledger.records import ReportRecord, TrialRecord
from study.ledger.state import State, Trial


def trained(
    curve: Callable[[int], float],
    *,
    seeds: int = 3,
    epochs: int = 32,
    every: int = 1,
    noise: float = 0.0,
    key: str = "val/tuned/miou",
) -> list[Trial]:
    """Trainings of one config, with a curve of mIoU by epoch and noise that is a seed's own."""
    state = State()
    for seed in range(seeds):
        state.apply(TrialRecord(f"t{seed}", seed, CONFIRM, "ce", "ce", None, {}, seed))
        drawn = np.random.default_rng(seed).normal(0, noise, epochs + 1)
        for epoch in range(1, epochs + 1):
            metrics = {"train/loss": 1.0}
            if epoch % every == 0:
                metrics |= {"val/miou": 0.3, key: curve(epoch) + drawn[epoch]}
            state.apply(ReportRecord(f"t{seed}", 0, epoch, metrics))
    return list(state.trials.values())


def line(slope: float) -> Callable[[int], float]:
    return lambda epoch: 0.3 + slope * epoch


def test_a_reference_that_was_rising_is_said_with_its_slope() -> None:
    (said,) = rising_note(trained(line(0.0012), noise=1e-4))
    assert said.startswith(
        "the reference was still rising by 0.12 points of val mIoU per epoch when its 32 epochs "
        "ended"
    )


def test_the_slope_is_that_of_the_last_quarter() -> None:
    found = final_slope(trained(lambda epoch: 0.2 + 0.01 * min(epoch, 24) + 0.001 * epoch))
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
    assert rising_note(trials) == []


def test_slopes_that_differ_between_seeds_are_not_sure() -> None:
    trials = [
        trained(line(slope), seeds=seed + 1)[seed]
        for seed, slope in enumerate((0.0065, 0.0, -0.0005))
    ]
    found = final_slope(trials)
    assert found is not None
    assert found.slope == pytest.approx(0.002)
    assert not found.is_rising


@pytest.mark.parametrize(("every", "epochs", "said"), [(1, 8, 1), (2, 8, 0), (1, 5, 0), (4, 32, 1)])
def test_a_slope_needs_evaluations(every: int, epochs: int, said: int) -> None:
    trials = trained(line(0.01), every=every, epochs=epochs)
    assert len(rising_note(trials)) == said


def test_an_older_ledger_is_judged_at_the_argmax() -> None:
    assert rising_note(trained(line(0.01), key="val/miou"))


def test_without_a_training_there_is_no_slope() -> None:
    assert final_slope([]) is None
