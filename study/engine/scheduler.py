"""Ray Tune shows every report here first; the director writes it down and says who goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from study.analysis.evidence import path_of
from study.director import Director
from study.files import write_bytes
from study.keeping import Janitor

FAILED_KEY, REPORT_KEY, CHECKPOINT_KEY = "failed", "report", "checkpoint"


class DirectedScheduler(FIFOScheduler):
    """The scheduler hears of a report before searcher and callbacks do, so it writes the ledger.

    `faults` takes what the machine did to a trial, by our own id. Tune calls `on_trial_error` each
    time, also when it goes on to try the trial again; only the searcher hears that it gave up.
    """

    def __init__(
        self, director: Director, folder: Path, faults: dict[str, str], janitor: Janitor
    ) -> None:
        super().__init__()
        self._director = director
        self._folder = folder
        self._faults = faults
        self._janitor = janitor

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (dict, ())

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        """Nothing to set: objectives are the director's."""
        return True

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """STOP or CONTINUE, after the ledger knows."""
        trial_id = trial.config["run"]["id"]
        if FAILED_KEY in result:
            reason, by_machine = result[FAILED_KEY]
            self._director.fail(trial_id, reason, by_machine=by_machine)
            self._janitor.poke()
            return str(TrialScheduler.STOP)
        if REPORT_KEY not in result or result.get("done"):
            return str(TrialScheduler.STOP)
        epoch, metrics, evidence, environment = result[REPORT_KEY]
        if evidence is not None:
            try:
                write_bytes(path_of(self._folder, trial_id), evidence)
            except OSError as error:
                self._director.fail(trial_id, f"no evidence: {error}", by_machine=True)
                self._janitor.poke()
                return str(TrialScheduler.STOP)
        checkpoint = result.get(CHECKPOINT_KEY)
        keep = self._director.report(trial_id, epoch, metrics, checkpoint, environment)
        if not keep:
            self._janitor.poke()
        return str(TrialScheduler.CONTINUE if keep else TrialScheduler.STOP)

    def on_trial_complete(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """A training that ends by itself before its budget has failed."""
        self._director.fail(trial.config["run"]["id"], "ended before its budget")

    def on_trial_error(self, controller: Any, trial: TuneTrial) -> None:
        """The machine failed the trial; tried again, it goes on after its last report."""
        run = trial.config["run"]
        self._faults[run["id"]] = _reason(trial)
        run["reported"] = self._director.state.trials[run["id"]].epochs

    def on_trial_add(self, controller: Any, trial: TuneTrial) -> None:
        """Nothing to prepare."""

    def on_trial_remove(self, controller: Any, trial: TuneTrial) -> None:
        """Nothing to forget."""


def _reason(trial: TuneTrial) -> str:
    if trial.error_file and Path(trial.error_file).is_file():
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
        if lines:
            return lines[-1][:500]
    return "the worker process died"
