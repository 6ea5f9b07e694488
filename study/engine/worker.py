"""Runs in a trial's process: trains, reports, and turns every error into a message."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from ray import tune

from study.config.own_training import CommandTrial, OwnTrainingTask
from study.config.task import TaskConfig, TrialConfig
from study.core.errors import InputError, deed, is_out_of_memory
from study.core.names import IN_EPOCH, TEACHER, TRIALS
from study.engine import spot
from study.engine.messages import (
    MESSAGE,
    BeatMessage,
    FailureMessage,
    FaultMessage,
    Message,
    TrialOrder,
)
from study.engine.ray_internals import END_SECONDS, TRIAL_ENDED
from study.scheduler.retries import GPU_MEMORY, LOST, MEMORY
from study.storage.checkpoints import CheckpointWriter, open_checkpoint_store
from study.storage.weights import open_weights_store
from study.training.environment import environment, resolve_device, set_up_process
from study.training.ranks import RankLost
from study.trials.command import OutOfMemory
from study.trials.context import Place, Stopped, TrialContext
from study.trials.message import EpochMessage
from study.trials.run import run_trial

NO_GPU = "it was given a GPU, and torch finds none there (--device gpu)"
LEAST_TO_END, MOST_TO_END = 5, 60  # seconds


def run(order: TrialOrder) -> None:
    """Train one trial, from scratch or from its last checkpoint, and report each epoch to Tune."""
    try:
        _run(order)
    except Stopped:
        sys.exit(0)  # as Tune's report did: a return would wait for Tune to take one more report


def lacks(order: TrialOrder) -> str:
    """What the node of this process lacks for the trial, which is not checked yet; empty if
    nothing."""
    probe = order.settings.probe
    if probe is None:
        return ""
    beat = _Beats(order.settings.beat_s)
    return replace(probe, gpus=int(order.gpus > 0 and probe.gpus)).trouble(
        partial(beat, "checking its node")
    )


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
    if order.gpus and order.settings.gpus_only and resolve_device().type == "cpu":
        _send(FailureMessage(NO_GPU, by_machine=True))
        return
    try:
        spot.leave_if_drained()
        _train(TrialConfig.model_validate(order.config), order, beat)
    except spot.Drained:
        os._exit(0)  # not to be handed the next trial
    except Stopped:
        raise
    except torch.AcceleratorError:
        raise  # this process can use the device no more; the trial is tried again in a fresh one
    except RankLost as error:
        _send(FaultMessage(LOST, _line(str(error.strerror))))
    except OutOfMemory as error:
        _send(FaultMessage(GPU_MEMORY if error.on_gpu else MEMORY, _line(str(error))))
    except torch.OutOfMemoryError as error:
        _send(FaultMessage(GPU_MEMORY, f"out of GPU memory: {_line(str(error))}"))
    except BaseException as error:  # a KeyboardInterrupt, too: Ctrl-C never gets into this thread
        if is_out_of_memory(error):
            _send(FaultMessage(MEMORY, f"out of memory: {_line(str(error))}"))
            return
        own = "trial" in order.config["task"]
        by_machine = isinstance(error, OSError) and not own
        _send(FailureMessage(_reason(error, own), by_machine=by_machine))


def _reason(error: BaseException, own: bool) -> str:
    """Why a trial has failed, in a line. own: whether its training is the user's own."""
    if own and isinstance(error, InputError):
        return _line(str(error))
    what = deed(error)
    if not isinstance(error, Exception) or what.startswith("raised StopIteration"):
        what = f"the trial's own code {what}"
    place = f" ({error.__notes__[-1]})" if own and getattr(error, "__notes__", None) else ""
    return _line(f"{what.removeprefix('raised ')}{place}")


class _Link:
    """The driver, as a trial sees it."""

    def __init__(self, beat: _Beats) -> None:
        self.beat = beat

    def report(self, message: EpochMessage) -> None:
        """Send the report; leave a node that is drained."""
        _send(message)
        spot.leave_if_drained()

    def repeated(self) -> None:
        """Ask whether to go on after an epoch that was trained again."""
        _send(BeatMessage(IN_EPOCH, may_end=True))
        spot.leave_if_drained()


def _send(message: Message) -> None:
    try:
        tune.report({MESSAGE: message})
    except TRIAL_ENDED:
        raise Stopped from None


def _line(text: str) -> str:
    return " ".join(text.split())[:400]


def _train(config: TrialConfig, order: TrialOrder, beat: _Beats) -> None:
    settings, device = order.settings, None if order.gpus else "cpu"
    folder = Path(settings.folder)
    store = open_checkpoint_store(folder, settings.prefix, order.trial)
    if isinstance(config.task, TaskConfig) and config.task.checkpoint.interval:
        store = CheckpointWriter(store)
    context: TrialContext | None = None
    weights = open_weights_store(folder, settings.prefix)
    keeps = settings.keep_weights or order.stage == TEACHER
    weights.fetch_teacher(config)
    try:
        with _own_folder(config, order) as own:
            place = Place(
                trial=order.trial,
                stage=order.stage,
                folder=own,
                device=str(resolve_device(device)),
                num_threads=settings.num_threads,
                ranks=settings.ranks,
                rungs=settings.rungs,
                reported=order.reported,
                begun=bool(order.attempt or order.reported),
                keep_last=settings.keep_last,
                keep_weights=partial(weights.keep, order.trial) if keeps else None,
            )
            context = TrialContext(config, place, _Link(beat), store)
            context.environment = environment(config, device, ranks=settings.ranks)
            os.environ[END_SECONDS] = str(_seconds_to_end(config))
            run_trial(context)
            if context.has_stopped:
                raise Stopped
    except spot.Drained:
        if context is not None:
            context.keep_unkept()
        store.flush()
        raise
    finally:
        store.close()


def _seconds_to_end(config: TrialConfig) -> int:
    """How long the next trial waits for the process of this one, rather than take another."""
    trial = config.task.trial if isinstance(config.task, OwnTrainingTask) else None
    grace = 2 * trial.grace_s if isinstance(trial, CommandTrial) else 0
    return min(math.ceil(grace) + LEAST_TO_END, MOST_TO_END)


@contextmanager
def _own_folder(config: TrialConfig, order: TrialOrder) -> Iterator[Path]:
    """A folder for what a training of the user's own writes: below the study's folder where this
    node sees that, and kept; else a temporary one."""
    study = Path(order.settings.folder)
    if not isinstance(config.task, OwnTrainingTask):
        yield study
        return
    if order.settings.prefix is None and study.is_dir():
        folder = study / TRIALS / order.trial
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=f"{order.trial}-") as temporary:
        yield Path(temporary)
