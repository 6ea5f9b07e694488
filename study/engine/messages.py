"""What crosses the border between the driver and a trial's process, as frozen records.

Tune takes dicts of its own on both ways: a record is the one value of one key in it (`ORDER` in a
trial's config, `MESSAGE` in a result). Tune flattens the dicts inside of a result and looks at
every number in them; it leaves a record alone. Records are pickled, so that both sides need this
package in the same version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.engine.probe import Probe
from study.trials.message import EpochMessage

ORDER, MESSAGE = "order", "message"


@dataclass(frozen=True)
class WorkerSettings:
    """What is the same for every trial of a session.

    folder: of the study. prefix: its address in a bucket, if its checkpoints are kept there.
    num_threads: CPU threads of a trial. rungs: epochs that are evaluated in any case. keep_last:
    whether the checkpoint of the last epoch is kept, too. keep_weights: whether the weights of a
    confirmation are kept for the exports. beat_s: seconds between two signs of life of a trial.
    probe: what a node must have beside the package, if it is one of a cluster that was joined.
    gpus_only: whether a trial with a GPU must not train on a CPU where torch finds no GPU. ranks:
    processes that share a trial's batches; num_threads are those of each.
    """

    folder: str
    prefix: str | None
    num_threads: int
    rungs: tuple[int, ...]
    keep_last: bool
    keep_weights: bool
    beat_s: float
    probe: Probe | None = None
    gpus_only: bool = False
    ranks: int = 1


@dataclass(frozen=True)
class TrialOrder:
    """One attempt at a trial: what a worker is told.

    config: of the trial, as the ledger holds it. stage: of the study. gpus: a fraction of one,
    or a whole number; 0 for the CPU. attempt: 0 for the first. reported: epochs that the ledger
    holds. fit: the ids of the nodes that are known to be fit; None where all are. unfit: of those
    it must not be placed on.
    """

    trial: str
    config: Mapping[str, Any]
    stage: str
    gpus: float
    attempt: int
    reported: int
    settings: WorkerSettings
    fit: frozenset[str] | None = None
    unfit: frozenset[str] = frozenset()


@dataclass(frozen=True)
class BeatMessage:
    """A sign of life of a trial. doing: what it is about to do, or goes on with, after "while".
    may_end: whether the trial may end here: an epoch was trained again, and none is under way."""

    doing: str
    may_end: bool = False


@dataclass(frozen=True)
class FailureMessage:
    """A trial has failed for good. by_machine: by no fault of its own, a full disk for instance."""

    reason: str
    by_machine: bool


@dataclass(frozen=True)
class FaultMessage:
    """The machine ended an attempt, and the trial may be tried again. cause: see
    `scheduler.retries`."""

    cause: str
    reason: str


Message = BeatMessage | EpochMessage | FailureMessage | FaultMessage
