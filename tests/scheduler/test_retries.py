"""What the machine does to a trial, and how often that is taken."""

from __future__ import annotations

from typing import Any

import pytest

from study.ledger.records import FaultRecord
from study.ledger.state import Trial
from study.scheduler.retries import (
    GPU_MEMORY,
    LOST,
    MEMORY,
    PREEMPTED,
    TRIES,
    UNFIT,
    doublings,
    should_retry,
)


def trial(*faults: tuple[str, int], gpus: float = 0.5, epochs: int = 2) -> Trial:
    """A trial with reports up to an epoch, and with faults by cause and epoch."""
    given: dict[str, Any] = {"label": "ce", "family": "ce", "params": None, "config": {}}
    made = Trial("t0000", 0, "search", **given, seed=0, source=None, started=0.0, handed_out=0.0)
    made.gpus = gpus
    made.reports = {epoch: {} for epoch in range(1, epochs + 1)}
    made.faults = [FaultRecord("t0000", 0, epoch, cause, "") for cause, epoch in faults]
    return made


def test_a_trial_that_is_lost_is_tried_again_until_an_epoch_has_cost_it_three_attempts() -> None:
    assert should_retry(trial(*[(LOST, 2)] * (TRIES - 1)), LOST, slots=1)
    assert not should_retry(trial(*[(LOST, 2)] * TRIES), LOST, slots=1)
    assert should_retry(trial(*[(LOST, 1)] * TRIES), LOST, slots=1), "it has come further since"


@pytest.mark.parametrize("cause", [LOST, MEMORY, GPU_MEMORY, PREEMPTED, UNFIT])
def test_only_to_leave_a_drained_or_an_unfit_node_is_never_counted(cause: str) -> None:
    often = trial(*[(cause, 2)] * 10)
    assert should_retry(often, PREEMPTED, slots=8)
    assert should_retry(often, UNFIT, slots=8)
    assert should_retry(often, LOST, slots=8) == (cause in (PREEMPTED, UNFIT))
    assert bool(doublings(often)) == (cause in (LOST, MEMORY))


def test_a_trial_out_of_gpu_memory_is_tried_again_while_it_shares_the_gpu() -> None:
    assert should_retry(trial(gpus=0.5), GPU_MEMORY, slots=2)
    assert not should_retry(trial(gpus=1.0), GPU_MEMORY, slots=2)
