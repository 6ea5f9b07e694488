"""Presents the study's scheduler to Ray Tune: as a search algorithm and as a trial scheduler.

Tune asks `TuneSearcher` for the next trial, and passes every report to `TuneScheduler` before
anything else. Both ask the study's own scheduler, which writes the ledger before it answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from study.analysis.evidence import path_of
from study.core.files import write_bytes
from study.core.names import IN_EPOCH
from study.engine.messages import (
    MESSAGE,
    ORDER,
    BeatMessage,
    EpochMessage,
    FailureMessage,
    FaultMessage,
    Message,
    TrialOrder,
    WorkerSettings,
)
from study.engine.nodes import NodeCheck
from study.engine.ray_internals import (
    LOW_ON_MEMORY,
    MEMORY_IN_USE,
    PROCESS_CRASHED,
    STILL_BUSY,
    actor_error,
    error_text,
    is_repeated,
    is_short_of_room,
    kill_process,
    make_folder,
    node_of,
    silent_progress,
    stop_everything,
    stop_trial,
    trials_with_process,
    was_preempted,
)
from study.scheduler.retries import BUSY, HUNG, LOST, MEMORY, PREEMPTED, UNFIT
from study.scheduler.stages import Done, Stop, Wait
from study.scheduler.study_scheduler import StudyScheduler
from study.scheduler.watchdog import Watchdog
from study.storage.checkpoints import CheckpointCleaner

WAIT_SECONDS = 10.0  # more than a process takes to start
LOOK_SECONDS = 0.5  # between two looks for trials that hang; less than the watchdog's LONGEST_TICK
Faults = dict[str, FaultMessage]  # by trial
SilentProgress = silent_progress()  # which DRIVER_ENVIRONMENT names


def order_of(trial: TuneTrial) -> TrialOrder:
    """The order in the config of one of Tune's trials."""
    order: TrialOrder = trial.config[ORDER]
    return order


class TuneSearcher(Searcher):
    """Gives Tune the scheduler's next trial, with the study's own id in its order.

    Tune has no budget of its own (``num_samples=-1``): the scheduler says when nothing is left. It
    also counts the live trials, so Tune's limit on them is not used here.

    Args:
        scheduler: of the study.
        settings: what is the same for every trial of the session.
        faults: where TuneScheduler leaves why a trial's process ended.
        nodes: tells which nodes are fit for trials.
    """

    def __init__(
        self,
        scheduler: StudyScheduler,
        settings: WorkerSettings,
        faults: Faults,
        nodes: NodeCheck,
    ) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._settings = settings
        self._faults = faults
        self._nodes = nodes
        self._trials: dict[str, str] = {}

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (dict, ())

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Nothing to set: objectives are the scheduler's."""
        return True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Live trials are counted here."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """A config with the next trial's order; None to be asked later; FINISHED at the end."""
        action = self._scheduler.suggest()
        if isinstance(action, Wait):
            return None
        if isinstance(action, Done | Stop):
            return Searcher.FINISHED
        self._trials[trial_id] = action.trial
        order = TrialOrder(
            trial=action.trial,
            config=action.config,
            stage=action.stage,
            gpus=action.gpus or 0.0,
            attempt=action.attempt,
            reported=self._scheduler.state.trials[action.trial].epochs,
            settings=self._settings,
            fit=self._nodes.checked,
            unfit=frozenset(self._nodes.unfit),
        )
        return {ORDER: order}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Free the slot. An error is the machine's: a trial reports its own in a message."""
        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        if error:
            fault = self._faults.pop(trial)
            self._scheduler.fault(trial, fault.cause, fault.reason)
        self._scheduler.release(trial)

    def save(self, checkpoint_path: str) -> None:
        """The ledger holds everything."""

    def restore(self, checkpoint_path: str) -> None:
        """The ledger holds everything."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """The ledger holds everything."""

    def get_state(self) -> dict[str, Any]:
        """The ledger holds everything."""
        return {}


class TuneScheduler(FIFOScheduler):
    """Passes each report to the study's scheduler, before Tune's searcher and callbacks get it.

    `faults` takes why a trial's process ended, by the study's own id: Tune tells the searcher only
    that there was an error. `check` is called all the time, and raises to end everything. The
    process of a trial that `watchdog` finds hung is killed.
    """

    def __init__(
        self,
        scheduler: StudyScheduler,
        folder: Path,
        faults: Faults,
        cleaner: CheckpointCleaner,
        say: Callable[[str], None],
        check: Callable[[], None],
        watchdog: Watchdog,
        nodes: NodeCheck | None = None,
    ) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._watchdog = watchdog
        self._hung: dict[str, str] = {}  # killed, and Tune does not know it yet
        self._folder = folder
        self._faults = faults
        self._cleaner = cleaner
        self._nodes = nodes or NodeCheck()
        self._say = say
        self._check = check
        self._troubles: set[str] = set()  # already said
        self._waiting: dict[str, float] = {}  # since when, by our own id
        self._added: list[TuneTrial] = []  # in order, those that were started left out
        self._next_look = -math.inf

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (dict, ())

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        """Nothing to set: objectives are the scheduler's."""
        return True

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """STOP or CONTINUE, once the ledger is written."""
        message: Message | None = result.get(MESSAGE)
        if message is None or is_repeated(result):
            return str(TrialScheduler.STOP)
        trial_id = order_of(trial).trial
        if trial_id in self._hung:
            return str(TrialScheduler.CONTINUE)  # or the killed process would get the next trial
        if isinstance(message, BeatMessage):
            self._watchdog.heard(trial_id, message.doing)
            if message.may_end and not self._scheduler.may_go_on(trial_id):
                return str(TrialScheduler.STOP)
            return str(TrialScheduler.CONTINUE)
        self._watchdog.heard(trial_id, IN_EPOCH)
        goes_on = self._take(trial_id, message)
        if not goes_on:
            self._cleaner.notify()
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def _take(self, trial_id: str, message: EpochMessage | FailureMessage | FaultMessage) -> bool:
        """Write what a worker says into the ledger; whether its trial goes on."""
        match message:
            case FailureMessage(reason=reason, by_machine=by_machine):
                self._scheduler.fail(trial_id, reason, by_machine=by_machine)
                return False
            case FaultMessage(cause=cause, reason=reason):
                self._scheduler.fault(trial_id, cause, reason)
                return False
        if message.evidence is not None:
            try:
                write_bytes(path_of(self._folder, trial_id), message.evidence)
            except OSError as error:
                self._scheduler.fail(trial_id, f"no evidence: {error}", by_machine=True)
                return False
        trouble = message.trouble
        if trouble and trouble not in self._troubles:
            self._troubles.add(trouble)
            self._say(f"{trial_id}'s checkpoint after epoch {message.epoch} has to wait: {trouble}")
        if message.no_weights:
            self._say(f"{trial_id}'s weights are not kept: {message.no_weights}")
        return self._scheduler.on_report(
            trial_id, message.epoch, message.metrics, environment=message.environment
        )

    def on_trial_complete(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Called at every stop. A training that ends by itself before its budget has failed."""
        trial_id = order_of(trial).trial
        if trial_id in self._scheduler.live:
            self._scheduler.fail(trial_id, "ended before its budget")

    def choose_trial_to_run(self, controller: Any) -> TuneTrial | None:
        """The trials in order. A session that closes starts none; one whose time is over ends those
        that run, too. Tune calls it after each event: nothing in it walks over all trials."""
        self._check()
        self._kill_hung(controller)
        if self._scheduler.budget.is_over:
            stop_everything(controller)
            return None
        self._added = waiting = [trial for trial in self._added if trial.status == trial.PENDING]
        if not self._scheduler.closing:
            self._note_waiting(waiting)
            return next(iter(waiting), None)
        for trial in waiting:
            stop_trial(controller, trial)
        return None

    def _kill_hung(self, controller: Any) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        trials = {order_of(trial).trial: trial for trial in trials_with_process(controller)}
        for trial_id, reason in self._watchdog.look(trials.keys() - self._hung.keys()).items():
            self._hung[trial_id] = reason
            kill_process(controller, trials[trial_id])

    def _note_waiting(self, waiting: list[TuneTrial]) -> None:
        now = time.monotonic()
        ids = [order_of(trial).trial for trial in waiting]
        self._waiting = {trial: self._waiting.get(trial, now) for trial in ids}
        overdue = [trial for trial, since in self._waiting.items() if now - since > WAIT_SECONDS]
        if overdue and is_short_of_room():  # else its process is only slow to start
            for trial in overdue:
                self._scheduler.wait(trial)

    def on_trial_error(self, controller: Any, trial: TuneTrial) -> None:
        """The machine ended the trial's process: keep the reason for the searcher."""
        trial_id = order_of(trial).trial
        self._watchdog.forget(trial_id)
        hung = self._hung.pop(trial_id, None)
        ended = self._unfit(trial) or _fault(trial) if hung is None else FaultMessage(HUNG, hung)
        self._faults[trial_id] = ended

    def _unfit(self, trial: TuneTrial) -> FaultMessage | None:
        """The fault of a trial that was placed on a node before that was found unfit."""
        error = actor_error(trial)
        node = node_of(error.actor_id) if error is not None and error.actor_id else ""
        why = self._nodes.why_unfit(node) if node else ""
        return FaultMessage(UNFIT, f"its node is unfit: {why}") if why else None

    def on_trial_add(self, controller: Any, trial: TuneTrial) -> None:
        """Take it in, and make its folder."""
        self._added.append(trial)
        make_folder(trial)

    def on_trial_remove(self, controller: Any, trial: TuneTrial) -> None:
        """Nothing to forget."""


def _fault(trial: TuneTrial) -> FaultMessage:
    """Why a trial's process ended."""
    if _was_preempted(trial):
        return FaultMessage(PREEMPTED, "its node is drained")
    text = error_text(trial)
    if STILL_BUSY in text:
        return FaultMessage(BUSY, STILL_BUSY)
    if LOW_ON_MEMORY in text:
        found = MEMORY_IN_USE.search(text)
        used = f", {found[1]} of {found[2]} in use" if found else ""
        reason = f"out of memory: ended by Ray, for its node was low on memory{used}"
        return FaultMessage(MEMORY, reason)
    lines = text.splitlines()
    if not lines or PROCESS_CRASHED in text:
        reason = "its process died: killed, perhaps by the system for want of memory, or crashed"
        return FaultMessage(LOST, reason)
    return FaultMessage(LOST, lines[-1][:500])


def _was_preempted(trial: TuneTrial) -> bool:
    """Whether the node of the process that was lost was drained. The error says so of a process
    that died with its node, the cluster of one that left it."""
    error = actor_error(trial)
    if error is None:
        return False
    return error.preempted or (bool(error.actor_id) and was_preempted(error.actor_id))
