"""Runs in a trial's process: trains, reports, and turns every error into a message."""

from __future__ import annotations

import itertools
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune

from study.analysis.evidence import pack
from study.config.task import TaskConfig, TrialConfig
from study.core.errors import InputError, deed, is_out_of_memory
from study.core.names import CONFIRM
from study.data import SegmentationData, open_data
from study.engine import spot
from study.engine.messages import (
    IN_EPOCH,
    MESSAGE,
    BeatMessage,
    EpochMessage,
    FailureMessage,
    FaultMessage,
    Message,
    TrialOrder,
)
from study.engine.ray_internals import TRIAL_ENDED
from study.scheduler.retries import GPU_MEMORY, MEMORY
from study.storage.checkpoints import CheckpointStore, open_checkpoint_store
from study.storage.weights import open_weights_store
from study.training.checkpoint import IncompatibleCheckpoint
from study.training.environment import environment, set_up_process
from study.training.trainer import train

_opened: dict[str, SegmentationData] = {}


def _data(task: TaskConfig, beat: _Beats) -> SegmentationData:
    """The task's data, opened once per process; all processes of a machine share its cache's
    pages."""
    key = task.data.model_dump_json()
    if key not in _opened:
        beat("opening its data")
        _opened.clear()
        progress = partial(beat, "opening its data")
        _opened[key] = open_data(task.data, on_progress=progress, begun=True)
    return _opened[key]


def run(order: TrialOrder) -> None:
    """Train one trial, from scratch or from its last checkpoint, and report each epoch to Tune."""
    try:
        _run(order)
    except _Stopped:
        sys.exit(0)  # as Tune's report did: a return would wait for Tune to take one more report


class _Beats:
    """Tells the driver what a trial does: at once where that is new, then every `every` seconds."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._doing = ""
        self._next = 0.0

    def __call__(self, doing: str) -> None:
        if doing == self._doing and time.monotonic() < self._next:
            return
        _send(BeatMessage(doing))
        self._doing = doing
        self._next = time.monotonic() + self._every


def _run(order: TrialOrder) -> None:
    beat = _Beats(order.settings.beat_s)
    beat("setting up its process")
    set_up_process(order.settings.num_threads)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        if 0 < order.gpus < 1:
            torch.cuda.set_per_process_memory_fraction(order.gpus)
    try:
        spot.leave_if_drained()
        _train(TrialConfig.model_validate(order.config), order, beat)
    except spot.Drained:
        os._exit(0)  # not to be handed the next trial
    except _Stopped:
        raise
    except torch.AcceleratorError:
        raise  # this process can use the device no more; the trial is tried again in a fresh one
    except torch.OutOfMemoryError as error:
        _send(FaultMessage(GPU_MEMORY, f"out of GPU memory: {_line(str(error))}"))
    except BaseException as error:  # a KeyboardInterrupt, too: Ctrl-C never gets into this thread
        if is_out_of_memory(error):
            _send(FaultMessage(MEMORY, f"out of memory: {_line(str(error))}"))
            return
        what = deed(error)
        if not isinstance(error, Exception) or what.startswith("raised StopIteration"):
            what = f"the trial's own code {what}"
        reason = _line(what.removeprefix("raised "))
        _send(FailureMessage(reason, by_machine=isinstance(error, OSError)))


class _Stopped(BaseException):
    """Tune has ended the trial."""


def _send(message: Message) -> None:
    try:
        tune.report({MESSAGE: message})
    except TRIAL_ENDED:
        raise _Stopped from None


def _line(text: str) -> str:
    return " ".join(text.split())[:400]


def _train(config: TrialConfig, order: TrialOrder, beat: _Beats) -> None:
    data = _data(config.task, beat)
    settings = order.settings
    store = open_checkpoint_store(Path(settings.folder), settings.prefix, order.trial)
    try:
        begun = order.attempt or order.reported
        beat("loading its checkpoint and model" if begun else "building its model")
        for checkpoint in itertools.chain(store.found() if begun else (), (None,)):
            try:
                _report_all(config, data, order, store, checkpoint, beat)
                return
            except IncompatibleCheckpoint:
                raise
            except InputError:
                if checkpoint is None:
                    raise
    except spot.Drained:
        store.flush()
        raise
    finally:
        store.close()


def _report_all(
    config: TrialConfig,
    data: SegmentationData,
    order: TrialOrder,
    store: CheckpointStore,
    checkpoint: Path | None,
    beat: _Beats,
) -> None:
    settings = order.settings
    device = None if order.gpus else "cpu"
    judged = order.stage == CONFIRM
    weights = open_weights_store(Path(settings.folder), settings.prefix)
    trained_on: dict[str, Any] | None = environment(config, device)
    for report in train(
        config,
        data=data,
        device=device,
        resume_from=checkpoint,
        reported=order.reported,
        evaluate_test=judged,
        evaluate_at=settings.rungs,
        on_step=partial(beat, IN_EPOCH),
    ):
        counts = report.evidence if judged else None
        evidence = None if counts is None else pack(counts.class_names, counts.splits)
        last = report.epoch == report.num_epochs
        if last:
            beat("storing its last checkpoint and weights")
        if not report.again and (not last or settings.keep_last):
            store.keep(report.epoch, report.save)
        if last and settings.keep_last and not store.trouble:
            store.flush()
        no_weights = ""
        if last and judged and settings.keep_weights:
            no_weights = weights.keep(order.trial, report.save_weights)
        metrics = dict(report.metrics)
        _send(EpochMessage(report.epoch, metrics, evidence, trained_on, store.trouble, no_weights))
        trained_on = None
        spot.leave_if_drained()
