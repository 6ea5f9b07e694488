"""When the machine ends an attempt at a trial: whether it is tried again, and with how much room.

A trial that ran out of the memory of its share of a GPU gets a whole one. One that ran out of the
machine's memory takes twice as many of the study's slots each time, in the end all of them. One
whose process or node is gone is simply tried again; where that happens twice after the same epoch,
memory may be the cause, for the system kills without a word. To leave a node that is drained, such
as a spot node on its notice, is no failure, however often it happens.
"""

from __future__ import annotations

import math

from study.ledger.state import Trial

LOST, MEMORY, GPU_MEMORY, PREEMPTED = "lost", "memory", "gpu_memory", "preempted"
TRIES = 3  # after one epoch


def should_retry(trial: Trial, cause: str, slots: int) -> bool:
    """Whether a trial is tried again after one more fault, which its `faults` do not hold yet."""
    if cause == PREEMPTED:
        return True
    if cause == GPU_MEMORY:
        return 0 < trial.gpus < 1
    if cause == MEMORY and doublings(trial) >= math.log2(slots):
        return False  # it had the machine to itself
    failures = [fault.epochs for fault in trial.faults if fault.cause != PREEMPTED]
    return failures.count(trial.epochs) < TRIES


def gpus_needed(trial: Trial, gpus: float) -> float:
    """What a trial gets of a GPU, or its GPUs, where `gpus` is what others get."""
    short = any(fault.cause == GPU_MEMORY for fault in trial.faults)
    return max(gpus, 1.0) if short and gpus else gpus


def slots_needed(trial: Trial, gpus: float, slots: int) -> int:
    """How many of the study's slots the trial takes."""
    of_gpu = int(gpus_needed(trial, gpus) / gpus + 1e-9) if gpus else 1
    return min(slots, of_gpu * 2 ** doublings(trial))


def doublings(trial: Trial) -> int:
    """How often the trial was, or may have been, too large for the memory it found."""
    lost = [fault.epochs for fault in trial.faults if fault.cause == LOST]
    repeated = len(lost) - len(set(lost))
    return repeated + sum(fault.cause == MEMORY for fault in trial.faults)
