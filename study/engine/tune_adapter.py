"""The study's scheduler as Ray Tune sees it: a search algorithm and a trial scheduler.

Tune asks `TuneSearcher` for the next trial and shows `TuneScheduler` every report before anything
else hears of it. Both ask the study's own scheduler, which writes the ledger before it answers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util import placement_group_table

from study.analysis.evidence import path_of
from study.core.files import write_bytes
from study.engine import spot
from study.scheduler.retries import LOST, MEMORY, PREEMPTED
from study.scheduler.stages import Done, Stop, Wait
from study.scheduler.study_scheduler import StudyScheduler
from study.storage.checkpoints import CheckpointCleaner

FAILED_KEY, FAULT_KEY = "failed", "fault"
REPORT_KEY, CHECKPOINT_KEY = "report", "checkpoint"
OUT_OF_MEMORY = "low on memory"  # Ray's words where its memory monitor ends a process
CRASHED = "Worker exit type: SYSTEM_ERROR"  # and all the causes it can think of
WAIT_SECONDS = 10.0  # more than a process takes to start
Faults = dict[str, tuple[str, str]]  # by trial: cause and reason


class TuneSearcher(Searcher):
    """`suggest` gives the scheduler's next trial, with our own id inside its config.

    Tune's budget is never used (``num_samples=-1``): the scheduler says when nothing is left. It
    also counts the live trials, so the concurrency limit is only passed on.
    """

    def __init__(self, scheduler: StudyScheduler, settings: dict[str, Any], faults: Faults) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._settings = settings
        self._faults = faults
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
        """A trial's config; None to be asked again; FINISHED at the end."""
        action = self._scheduler.suggest()
        if isinstance(action, Wait):
            return None
        if isinstance(action, Done | Stop):
            return Searcher.FINISHED
        self._trials[trial_id] = action.trial
        run = {
            **self._settings,
            "id": action.trial,
            "attempt": action.attempt,
            "stage": action.stage,
            "gpus": action.gpus,
            "reported": self._scheduler.state.trials[action.trial].epochs,
        }
        return {"run": run, "trial": action.config}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The slot is free. An error is the machine's: what a trial raises itself, it reports."""
        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        if error:
            self._scheduler.fault(trial, *self._faults.pop(trial))
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
    """The scheduler hears of a report before searcher and callbacks do, so it writes the ledger.

    `faults` takes what the machine did to a trial, by our own id, for the searcher, which hears
    only that there was something. `check` is called all the time, and raises to end everything.
    """

    def __init__(
        self,
        scheduler: StudyScheduler,
        folder: Path,
        faults: Faults,
        cleaner: CheckpointCleaner,
        say: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._folder = folder
        self._faults = faults
        self._cleaner = cleaner
        self._say = say
        self._check = check
        self._troubles: set[str] = set()  # that were said
        self._pending: dict[str, float] = {}  # since when, by our own id

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (dict, ())

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        """Nothing to set: objectives are the scheduler's."""
        return True

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """STOP or CONTINUE, after the ledger knows."""
        trial_id = trial.config["run"]["id"]
        if FAILED_KEY in result:
            reason, by_machine = result[FAILED_KEY]
            self._scheduler.fail(trial_id, reason, by_machine=by_machine)
            self._cleaner.notify()
            return str(TrialScheduler.STOP)
        if FAULT_KEY in result:
            self._scheduler.fault(trial_id, *result[FAULT_KEY])
            self._cleaner.notify()
            return str(TrialScheduler.STOP)
        if REPORT_KEY not in result or result.get("done"):
            return str(TrialScheduler.STOP)
        epoch, metrics, evidence, environment = result[REPORT_KEY]
        if evidence is not None:
            try:
                write_bytes(path_of(self._folder, trial_id), evidence)
            except OSError as error:
                self._scheduler.fail(trial_id, f"no evidence: {error}", by_machine=True)
                self._cleaner.notify()
                return str(TrialScheduler.STOP)
        trouble = result.get(CHECKPOINT_KEY, "")
        if trouble and trouble not in self._troubles:
            self._troubles.add(trouble)
            self._say(f"{trial_id}'s checkpoint after epoch {epoch} has to wait: {trouble}")
        keep = self._scheduler.report(trial_id, epoch, metrics, environment)
        if not keep:
            self._cleaner.notify()
        return str(TrialScheduler.CONTINUE if keep else TrialScheduler.STOP)

    def on_trial_complete(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Every stop comes here. A training that ends by itself before its budget has failed."""
        trial_id = trial.config["run"]["id"]
        if trial_id in self._scheduler.live:
            self._scheduler.fail(trial_id, "ended before its budget")

    def choose_trial_to_run(self, controller: Any) -> TuneTrial | None:
        """In order; but a session that closes starts nothing, and one whose time is over ends what
        runs, too."""
        self._check()
        if self._scheduler.budget.is_over:
            controller.request_stop_experiment()
            return None
        pending = [t for t in controller.get_live_trials() if t.status == TuneTrial.PENDING]
        if not self._scheduler.closing:
            self._see_who_waits(pending)
            return super().choose_trial_to_run(controller)
        for trial in pending:
            controller.stop_trial(trial)
        return None

    def _see_who_waits(self, pending: list[TuneTrial]) -> None:
        now = time.monotonic()
        ids = [trial.config["run"]["id"] for trial in pending]
        self._pending = {trial: self._pending.get(trial, now) for trial in ids}
        overdue = [trial for trial, since in self._pending.items() if now - since > WAIT_SECONDS]
        if overdue and _something_has_no_place():
            for trial in overdue:
                self._scheduler.wait(trial)

    def on_trial_error(self, controller: Any, trial: TuneTrial) -> None:
        """The machine failed the trial; tried again, it goes on after its last report."""
        run = trial.config["run"]
        self._faults[run["id"]] = _fault(trial)
        run["reported"] = self._scheduler.state.trials[run["id"]].epochs

    def on_trial_add(self, controller: Any, trial: TuneTrial) -> None:
        """Its folder, which Tune asks for at the end of a trial that was never started, too."""
        trial.init_local_path()

    def on_trial_remove(self, controller: Any, trial: TuneTrial) -> None:
        """Nothing to forget."""


def _something_has_no_place() -> bool:
    """Else what is pending has its place, and only its process is slow to start."""
    states = {group["state"] for group in placement_group_table().values()}
    return not states.isdisjoint(("PENDING", "RESCHEDULING"))


def _fault(trial: TuneTrial) -> tuple[str, str]:
    """Cause and reason of what ended a trial's process."""
    if _is_preempted(trial):
        return PREEMPTED, "its node is drained"
    text = ""
    if trial.error_file and Path(trial.error_file).is_file():
        text = Path(trial.error_file).read_text(encoding="utf-8").strip()
    if OUT_OF_MEMORY in text:
        used = re.search(r"was ([\d.]+GB) used / ([\d.]+GB)", text)
        told = f", {used[1]} of {used[2]} in use" if used else ""
        return MEMORY, f"out of memory: ended by Ray, for its node was low on memory{told}"
    lines = text.splitlines()
    if not lines or CRASHED in text:
        return (
            LOST,
            "its process died: killed, perhaps by the system for want of memory, or crashed",
        )
    return LOST, lines[-1][:500]


def _is_preempted(trial: TuneTrial) -> bool:
    """Whether the node of the process that was lost was drained. The error knows it of a process
    that died with its node, the cluster of one that left it."""
    path = trial.pickled_error_file
    if path is None or not Path(path).is_file():
        return False
    error = cloudpickle.loads(Path(path).read_bytes())
    if not isinstance(error, RayActorError):
        return False
    return error.preempted or (bool(error.actor_id) and spot.was_on_drained_node(error.actor_id))
