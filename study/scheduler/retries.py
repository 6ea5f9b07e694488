"""Decides whether a trial that the machine has ended is tried again, and with how much room.

A trial that runs out of GPU memory on a fraction of a GPU gets a whole one. A trial that runs out
of the machine's memory takes twice as many of the study's slots at each attempt, at most all of
them. A trial whose process or node is lost is tried again as it is; if that happens twice after the
same epoch, it is treated as short of memory, because the operating system kills without a message.
One that has hung is tried again as it is (`watchdog` finds it).
Leaving a drained node (a spot node on notice, for instance) is no failure, however often it occurs,
nor is a start on a node that is unfit, because it lacks the package for instance, or in a process
that still trains the trial before.
"""

from __future__ import annotations

import math

from study.ledger.state import Trial

LOST, HUNG = "lost", "hung"
MEMORY, GPU_MEMORY, PREEMPTED, UNFIT = "memory", "gpu_memory", "preempted", "unfit"
BUSY = "busy"
HARMLESS = (PREEMPTED, UNFIT, BUSY)  # the trial has not failed
TRIES = 3  # after the same epoch


def should_retry(trial: Trial, cause: str, slots: int) -> bool:
    """Whether a trial is tried again after one more fault.

    Args:
        trial: its `faults` do not hold the new one yet.
        cause: of the new fault, one of CAUSES.
        slots: trials that the study runs at a time.
    """
    if cause in HARMLESS:
        return True
    if cause == GPU_MEMORY:
        return 0 < trial.gpus < 1
    if cause == MEMORY and doublings(trial) >= math.log2(slots):
        return False  # it had the machine to itself
    failures = [fault.epochs for fault in trial.faults if fault.cause not in HARMLESS]
    return failures.count(trial.epochs) < TRIES


def gpus_needed(trial: Trial, gpus: float) -> float:
    """What a trial gets where others get `gpus`, one GPU or a fraction of it."""
    short = any(fault.cause == GPU_MEMORY for fault in trial.faults)
    return max(gpus, 1.0) if short and gpus else gpus


def slots_needed(trial: Trial, gpus: float, slots: int) -> int:
    """How many of the study's slots the trial takes, at most all of them."""
    of_gpu = int(gpus_needed(trial, gpus) / gpus + 1e-9) if gpus else 1
    return min(slots, of_gpu * 2 ** doublings(trial))


def doublings(trial: Trial) -> int:
    """How often the trial did not fit, or may not have fitted, into the machine's memory."""
    lost = [fault.epochs for fault in trial.faults if fault.cause == LOST]
    repeated = len(lost) - len(set(lost))
    return repeated + sum(fault.cause == MEMORY for fault in trial.faults)
