"""A study's budgets on made-up curves and a made-up clock: no Ray, no training."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from simulated_driver import EPOCH, Cost, Driver, Timed, even

from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH
from study.ledger.records import TrialRecord
from study.scheduler.stages import left_out
from study.storage.studies import load


def slow_to_begin(record: TrialRecord, epoch: int, now: float) -> float:
    return 6 * EPOCH if epoch == 1 else EPOCH


def slow_later(record: TrialRecord, epoch: int, now: float) -> float:
    return EPOCH if now < 60 else 2.5 * EPOCH


def unequal(record: TrialRecord, epoch: int, now: float) -> float:
    return EPOCH * (1 + record.number % 4)


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Cost, int], float]:
    """What a study takes that has all the time it needs."""

    @cache
    def found(cost: Cost, slots: int) -> float:
        return Timed(tmp_path_factory.mktemp("whole"), cost, slots=slots).run_session()

    return found


@pytest.mark.slow
@pytest.mark.parametrize("cost", [even, slow_to_begin, slow_later, unequal])
@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_a_session_ends_within_its_time_and_confirms_what_it_has_chosen(
    tmp_path: Path, seconds: Callable[[Cost, int], float], cost: Cost, slots: int, share: float
) -> None:
    budget = share * seconds(cost, slots)
    driver = Timed(tmp_path / "short", cost, slots=slots, time_budget=budget)
    assert driver.run_session() <= budget - min(30.0, 0.1 * budget) + 1e-9, "room for the report"
    state = load(tmp_path / "short")
    left = left_out(driver.plan, state)
    assert left
    if share > 0.1:
        assert state.completed(BASELINE)
    if cost is even and share >= 0.7:
        assert state.finished
        assert not any("confirmations" in line for line in left)


def test_a_budget_of_time_is_used(tmp_path: Path, seconds: Callable[[Cost, int], float]) -> None:
    whole = seconds(even, 4)
    used = Timed(tmp_path / "short", slots=4, time_budget=0.8 * whole).run_session()
    assert used >= 0.5 * whole


def test_too_little_time_for_the_baselines_goes_to_the_first_ones(tmp_path: Path) -> None:
    driver = Timed(tmp_path, time_budget=60.0)
    assert driver.run_session() <= 54.0
    state = load(tmp_path)
    assert [trial.label for trial in state.completed(BASELINE)] == ["ce"]
    assert not state.of_stage(SEARCH, REFERENCE)
    assert left_out(driver.plan, state) == [
        "5 of 6 baselines",
        "16 of 16 searched",
        "1 of 3 confirmations",
    ]
    assert not state.finished


def test_no_time_at_all_trains_nothing_and_chooses_nothing(tmp_path: Path) -> None:
    driver = Timed(tmp_path, time_budget=1.0, started=90.0)
    driver.run_session()
    state = load(tmp_path)
    assert not state.trials
    assert state.selection is None
    assert not state.finished


def test_time_that_runs_out_in_the_middle_of_trials_leaves_them_unfinished(tmp_path: Path) -> None:
    def ever_slower(record: TrialRecord, epoch: int, now: float) -> float:
        return EPOCH * (1 + now / 20)

    driver = Timed(tmp_path, ever_slower, slots=2, time_budget=300.0)
    assert driver.run_session() <= 300.0
    state = load(tmp_path)
    assert not state.finished
    Timed(tmp_path, slots=2).run_session()
    state = load(tmp_path)
    assert state.finished
    assert left_out(driver.plan, state) == []


@pytest.mark.slow
@pytest.mark.parametrize("cost", [even, slow_to_begin, slow_later, unequal])
@pytest.mark.parametrize("hours", [0.02, 0.08])
def test_gpu_hours_are_kept_over_all_sessions(tmp_path: Path, cost: Cost, hours: float) -> None:
    for _ in range(2):
        driver = Timed(tmp_path, cost, slots=2, gpu_hours=hours, gpus_per_trial=0.5)
        driver.run_session()
    state = load(tmp_path)
    spent = sum(
        0.5 * report["time/epoch_s"] for t in state.trials.values() for report in t.reports.values()
    )
    assert spent == pytest.approx(sum(trial.gpu_s for trial in state.trials.values()))
    slack = 2 * 0.5 * 6 * EPOCH  # an epoch under way may be slower than any before
    assert spent <= 3600 * hours + slack


@pytest.mark.slow
def test_gpu_hours_end_the_search_so_that_confirming_fits_and_more_of_them_go_on(
    tmp_path: Path,
) -> None:
    whole = Driver(tmp_path / "whole")
    whole.run()
    half_a_gpu: dict[str, Any] = {"slots": 2, "gpus_per_trial": 0.5}

    def spent() -> float:
        trials = load(tmp_path / "small").trials.values()
        return sum(2.0 * 0.5 * len(trial.reports) for trial in trials) / 3600

    Driver(tmp_path / "small", gpu_hours=190 * 2.0 * 0.5 / 3600, **half_a_gpu).run()
    first = load(tmp_path / "small")
    assert first.finished
    assert 0 < len(first.of_stage(SEARCH, REFERENCE)) < 16
    assert {(t.source, t.seed) for t in first.completed(CONFIRM)}
    assert 0.6 * 190 < spent() * 3600 <= 190
    Driver(tmp_path / "small", gpu_hours=1.0, **half_a_gpu).run()
    state = load(tmp_path / "small")
    assert state.finished
    assert len(state.of_stage(SEARCH, REFERENCE)) == 16
    assert state.selection is not None
    assert state.selection.searched == 16
    sources = set(state.selection.sources)
    confirmed = {(t.source, t.seed) for t in state.completed(CONFIRM)}
    assert {(source, seed) for source in sources for seed in (1, 2, 3)} <= confirmed


def test_a_share_that_grew_is_paid_for(tmp_path: Path) -> None:
    driver = Timed(tmp_path, slots=2, gpus_per_trial=0.5)
    record = driver.scheduler.suggest()
    assert isinstance(record, TrialRecord)
    driver.scheduler.on_report(record.trial, 1, {"time/epoch_s": 10.0})
    driver.scheduler.fault(record.trial, "gpu_memory", "out of GPU memory")
    again = driver.scheduler.suggest()
    assert isinstance(again, TrialRecord)
    driver.scheduler.on_report(again.trial, 2, {"time/epoch_s": 10.0})
    driver.ledger.close()
    assert load(tmp_path).trials[record.trial].gpu_s == 0.5 * 10 + 1.0 * 10
    assert not math.isnan(driver.scheduler.budget.seconds_left)
