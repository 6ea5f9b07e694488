"""What runs in a trial's process: train, report, and turn every fault into a reason."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray import tune

from study.config.task import TaskConfig, TrialConfig
from study.core.errors import InputError
from study.core.names import CONFIRM
from study.data import SegmentationData, open_data
from study.engine import spot
from study.engine.tune_adapter import CHECKPOINT_KEY, FAILED_KEY, FAULT_KEY, REPORT_KEY
from study.scheduler.retries import GPU_MEMORY, MEMORY
from study.storage.checkpoints import CheckpointStore, open_checkpoint_store
from study.training.checkpoint import IncompatibleCheckpoint
from study.training.environment import environment, set_up_process
from study.training.trainer import Evidence, train

_opened: dict[str, SegmentationData] = {}


def _data(task: TaskConfig) -> SegmentationData:
    """The task's data, opened once per process: pages of its cache are shared by the machine."""
    key = task.data.model_dump_json()
    if key not in _opened:
        _opened.clear()
        _opened[key] = open_data(task.data)
    return _opened[key]


def run(config: dict[str, Any]) -> None:
    """One trial, from scratch or from its last checkpoint."""
    settings = config["run"]
    set_up_process(settings["num_threads"])
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        if 0 < settings["gpus"] < 1:
            torch.cuda.set_per_process_memory_fraction(settings["gpus"])
    try:
        spot.leave_if_drained()
        _train(TrialConfig.model_validate(config["trial"]), settings)
    except spot.Drained:
        os._exit(0)  # not to be handed the next trial
    except torch.AcceleratorError:
        raise  # this process can use the device no more; the trial is tried again in a fresh one
    except torch.OutOfMemoryError as error:
        tune.report({FAULT_KEY: (GPU_MEMORY, f"out of GPU memory: {_line(error)}")})
    except MemoryError as error:
        tune.report({FAULT_KEY: (MEMORY, f"out of memory: {_line(error)}")})
    except Exception as error:
        _fail(f"{type(error).__name__}: {_line(error)}", by_machine=isinstance(error, OSError))


def _fail(reason: str, *, by_machine: bool) -> None:
    tune.report({FAILED_KEY: (reason, by_machine)})


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]


def _train(config: TrialConfig, settings: dict[str, Any]) -> None:
    data = _data(config.task)
    store = open_checkpoint_store(Path(settings["folder"]), settings["prefix"], settings["id"])
    try:
        begun = settings["attempt"] or settings["reported"]
        for checkpoint in itertools.chain(store.found() if begun else (), (None,)):
            try:
                _report_all(config, data, settings, store, checkpoint)
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
    settings: dict[str, Any],
    store: CheckpointStore,
    checkpoint: Path | None,
) -> None:
    device = None if settings["gpus"] else "cpu"
    judged = settings["stage"] == CONFIRM
    where: dict[str, Any] | None = environment(config, device)
    for report in train(
        config,
        data=data,
        device=device,
        resume_from=checkpoint,
        reported=settings["reported"],
        evaluate_test=judged,
        evaluate_at=settings["rungs"],
    ):
        evidence = pack(report.evidence) if judged and report.evidence is not None else None
        last = report.epoch == report.num_epochs
        if not report.again and (not last or settings["keep_last"]):
            store.keep(report.epoch, report.save)
        if last and settings["keep_last"] and not store.trouble:
            store.flush()
        result = (report.epoch, dict(report.metrics), evidence, where)
        tune.report({REPORT_KEY: result, CHECKPOINT_KEY: store.trouble})
        where = None
        spot.leave_if_drained()


def pack(evidence: Evidence) -> bytes:
    """The arrays of an evidence as the bytes of an npz file."""
    fields = {item.name: getattr(evidence, item.name) for item in dataclasses.fields(evidence)}
    arrays: dict[str, Any] = {k: np.asarray(v) for k, v in fields.items() if v is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
