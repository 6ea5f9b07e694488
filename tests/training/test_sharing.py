"""Trainings that share a device, measured in real processes on the CPU. No test asks how fast."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import CONVOLUTION, tiny

from study.training.sharing import NotMeasured, _is_over, _rate, measure

MINUTES = 600.0


def children() -> list[str]:
    """The processes that this one has started and that still run."""
    own = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [
        pid for pid in own if "sharer" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[-2]
    ]


def measured(trainings: int, *, seconds: float = 0.2, limit: float = MINUTES, **task: Any) -> Any:
    changed = tiny(**{"model": CONVOLUTION, **task}).trained_here
    return measure(
        changed,
        trainings,
        device="cpu",
        num_threads=1,
        until=time.monotonic() + limit,
        seconds=seconds,
        steps=2,
    )


@pytest.mark.slow
@pytest.mark.parametrize("trainings", [1, 2, 3])
@pytest.mark.timeout(900)
def test_so_many_trainings_are_measured_and_gone(trainings: int) -> None:
    states = torch.get_rng_state(), random.getstate()
    reading = measured(trainings)
    assert reading.trainings == trainings
    assert reading.images_per_s > 0
    assert 2**20 < reading.memory < reading.total
    assert (reading.context, reading.steps) == (0, 2)
    assert children() == []
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "limit", "why"),
    [
        ({"factory": "tiny_task:failing"}, MINUTES, "no such network"),
        ({"factory": "tiny_task:ending"}, MINUTES, "was ended with exit code 3"),
        ({"factory": "tiny_task:greedy"}, MINUTES, "out of GPU memory"),
        (CONVOLUTION, 0.0, "it takes too long"),
    ],
)
@pytest.mark.timeout(900)
def test_a_measurement_that_fails_says_why_and_leaves_no_process(
    model: dict[str, Any], limit: float, why: str
) -> None:
    with pytest.raises(NotMeasured, match=why):
        measured(1, limit=limit, model=model)
    assert children() == []


@pytest.mark.parametrize(
    ("marks", "over", "rate"),
    [
        ({0: [(1.0, 8)], 1: []}, False, None),
        ({0: [(1.0, 8), (4.0, 32)], 1: [(2.0, 4), (3.0, 8)]}, False, None),  # 0 has one mark there
        ({0: [(1.0, 8), (3.0, 24), (5.0, 40)], 1: [(2.0, 4), (4.0, 8)]}, True, 8 + 2),
        ({0: [(2.0, 4), (3.0, 8), (4.5, 14)]}, False, None),  # 2.5 s of 3
        ({0: [(2.0, 4), (5.0, 10)]}, True, 2),
    ],
)
def test_rates_are_taken_in_the_window_that_all_share(
    marks: dict[int, list[tuple[float, int]]], over: bool, rate: float | None
) -> None:
    assert _is_over(marks, 3.0) == over
    if rate is not None:
        assert _rate(marks) == rate
