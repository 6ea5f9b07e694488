"""Faults of the machine on a scheduler without Ray: who is tried again, and with how much room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from simulated_driver import Driver, curve

from study.core.names import CONFIRM, FAILED
from study.ledger.records import TrialRecord
from study.ledger.state import Trial
from study.scheduler.retries import GPU_MEMORY, LOST, MEMORY, TRIES, doublings, slots_needed
from study.scheduler.stages import Wait
from study.scheduler.study_scheduler import StudyScheduler
from study.storage.studies import load


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path, slots=4, gpus_per_trial=0.5)


def hand_out(scheduler: StudyScheduler) -> TrialRecord:
    step = scheduler.suggest()
    assert isinstance(step, TrialRecord)
    return step


def trial_of(driver: Driver, record: TrialRecord) -> Trial:
    return driver.ledger.state.trials[record.trial]


def report(driver: Driver, record: TrialRecord) -> bool:
    epoch = trial_of(driver, record).epochs + 1
    return driver.scheduler.on_report(record.trial, epoch, curve(record, epoch))


def test_a_lost_trial_is_tried_again_where_it_was_until_it_gets_no_further(driver: Driver) -> None:
    record = hand_out(driver.scheduler)
    report(driver, record)
    for attempt in range(1, TRIES + 1):
        driver.scheduler.fault(record.trial, LOST, "the node is gone")
        again = hand_out(driver.scheduler)
        assert (again.trial, again.attempt) == (record.trial, attempt)
    report(driver, record)
    driver.scheduler.fault(record.trial, LOST, "the node is gone")
    assert trial_of(driver, record).end is None, "it had got further"
    for _ in range(TRIES):
        hand_out(driver.scheduler)
        driver.scheduler.fault(record.trial, LOST, "the node is gone")
    trial = trial_of(driver, record)
    assert trial.status == FAILED
    assert trial.end is not None
    assert (trial.end.reason, trial.end.by_machine) == ("the node is gone", True)


def test_out_of_gpu_memory_is_tried_once_more_on_a_whole_gpu(driver: Driver) -> None:
    scheduler = driver.scheduler
    records = [hand_out(scheduler) for _ in range(4)]
    assert {record.gpus for record in records} == {0.5}
    scheduler.fault(records[0].trial, GPU_MEMORY, "2 GiB")
    assert scheduler.suggest() == Wait(), "one half is free, a whole GPU is not"
    scheduler.fail(records[1].trial, "x")
    again = hand_out(scheduler)
    assert (again.trial, again.gpus) == (records[0].trial, 1.0)
    scheduler.fail(records[2].trial, "x")
    assert scheduler.suggest() == Wait(), "nobody takes a half of what it waits for"
    report(driver, again)
    assert hand_out(scheduler).gpus == 0.5
    scheduler.fault(again.trial, GPU_MEMORY, "2 GiB")
    assert trial_of(driver, again).status == FAILED


def test_each_fault_of_memory_leaves_a_trial_more_of_the_machine(driver: Driver) -> None:
    scheduler = driver.scheduler
    record, *others = [hand_out(scheduler) for _ in range(4)]
    for free in (2, 4):
        scheduler.fault(record.trial, MEMORY, "low on memory")
        while free - 1 > sum(trial_of(driver, other).end is not None for other in others):
            assert scheduler.suggest() == Wait()
            scheduler.fail(next(o for o in others if trial_of(driver, o).end is None).trial, "x")
        assert hand_out(scheduler).trial == record.trial
    assert scheduler.suggest() == Wait(), "it has the machine to itself"
    scheduler.fault(record.trial, MEMORY, "low on memory")
    assert trial_of(driver, record).status == FAILED


def test_a_loss_that_repeats_itself_is_taken_for_one_of_memory(driver: Driver) -> None:
    record = hand_out(driver.scheduler)
    for expected in (0, 1, 2):
        driver.scheduler.fault(record.trial, LOST, "the worker process died")
        assert doublings(trial_of(driver, record)) == expected
        hand_out(driver.scheduler)
    assert slots_needed(trial_of(driver, record), 0.5, 4) == 4


def test_a_resumed_driver_remembers_what_a_trial_needs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"slots": 2, "gpus_per_trial": 0.5}
    driver = Driver(tmp_path, **options)
    record = hand_out(driver.scheduler)
    driver.scheduler.fault(record.trial, GPU_MEMORY, "2 GiB")
    driver.ledger.close()
    driver = Driver(tmp_path, **options)
    again = hand_out(driver.scheduler)
    assert (again.trial, again.attempt, again.gpus) == (record.trial, 1, 1.0)
    while report(driver, again):
        pass
    driver.run()
    confirmations = [t for t in load(tmp_path).of_stage(CONFIRM) if t.source == record.trial]
    assert confirmations
    assert {trial.gpus for trial in confirmations} == {1.0}, "its seeds need what it needed"
