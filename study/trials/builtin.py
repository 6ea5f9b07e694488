"""The training of this package as the training of a trial."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from study.analysis.evidence import pack
from study.config.task import TaskConfig
from study.core.errors import InputError
from study.core.names import EPOCH_SECONDS, IN_EPOCH
from study.data import SegmentationData, open_data
from study.training.checkpoint import IncompatibleCheckpoint
from study.training.trainer import EpochReport, train
from study.trials.context import Save, TrialContext

OPENING = "opening its data"
_opened: dict[str, SegmentationData] = {}


def _data(task: TaskConfig, context: TrialContext) -> SegmentationData:
    """The task's data, opened once per process; all processes of a machine share its cache's
    pages."""
    key = task.data.model_dump_json()
    if key not in _opened:
        context.beat(OPENING)
        _opened.clear()
        progress = partial(context.beat, OPENING)
        _opened[key] = open_data(task.data, on_progress=progress, begun=True)
    return _opened[key]


def train_task(context: TrialContext, task: TaskConfig) -> None:
    """Train a task of this package, from scratch or from the trial's last good checkpoint."""
    data, begun = _data(task, context), context.place.begun
    context.beat("loading its checkpoint and model" if begun else "building its model")
    for checkpoint in itertools.chain(context.store.found() if begun else (), (None,)):
        try:
            _train_from(checkpoint, context, data)
            return
        except IncompatibleCheckpoint:
            raise
        except InputError:
            if checkpoint is None:
                raise


def _train_from(checkpoint: Path | None, context: TrialContext, data: SegmentationData) -> None:
    judged, place = context.is_confirmation, context.place
    reports = train(
        context.config,
        data=data,
        device=context.device,
        resume_from=checkpoint,
        reported=place.reported,
        evaluate_test=judged,
        evaluate_at=place.rungs,
        on_step=partial(context.beat, IN_EPOCH),
        ranks=place.ranks,
    )
    with closing(reports):  # its ranks end now, not with the last reference to it
        _deliver(context, reports, judged=judged)


def _deliver(context: TrialContext, reports: Iterator[EpochReport], *, judged: bool) -> None:
    place, interval = context.place, context.config.trained_here.checkpoint.interval
    kept = time.monotonic()
    for report in reports:
        counts = report.evidence if judged else None
        save: Save | None = None if report.again else report.save
        context.unkept = None
        if interval and save is not None and report.epoch < report.num_epochs:
            if time.monotonic() - kept >= interval:
                save, kept = report.snapshot(), time.monotonic()
            else:
                context.unkept = (report.epoch, save)
                save = None
        if report.epoch <= place.reported and report.epoch < report.num_epochs:
            seconds = report.metrics[EPOCH_SECONDS]
            goes_on = context.repeat(report.epoch, seconds, save=save)
        else:
            goes_on = context.deliver(
                report.epoch,
                dict(report.metrics),
                None if counts is None else pack(counts.class_names, counts.splits),
                save=save,
                weights=report.save_weights,
            )
        if not goes_on:
            return
