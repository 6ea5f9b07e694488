"""Ray Tune asks here for the next trial; the director answers."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from study.engine.scheduler import Faults
from study.scheduler.stages import Done, Stop, Wait
from study.scheduler.study_scheduler import Director


class DirectedSearcher(Searcher):
    """`suggest` gives the director's next trial, with our own id inside its config.

    Tune's budget is never used (``num_samples=-1``): the director says when nothing is left. It
    also counts the live trials, so the concurrency limit is only passed on.
    """

    def __init__(self, director: Director, settings: dict[str, Any], faults: Faults) -> None:
        super().__init__()
        self._director = director
        self._settings = settings
        self._faults = faults
        self._trials: dict[str, str] = {}

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (dict, ())

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Nothing to set: objectives are the director's."""
        return True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Live trials are counted here."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """A trial's config; None to be asked again; FINISHED at the end."""
        step = self._director.suggest()
        if isinstance(step, Wait):
            return None
        if isinstance(step, Done | Stop):
            return Searcher.FINISHED
        self._trials[trial_id] = step.trial
        run = {
            **self._settings,
            "id": step.trial,
            "attempt": step.attempt,
            "stage": step.stage,
            "gpus": step.gpus,
            "reported": self._director.state.trials[step.trial].epochs,
        }
        return {"run": run, "trial": step.config}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The slot is free. An error is the machine's: what a trial raises itself, it reports."""
        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        if error:
            self._director.fault(trial, *self._faults.pop(trial))
        self._director.release(trial)

    def save(self, checkpoint_path: str) -> None:
        """The ledger holds everything."""

    def restore(self, checkpoint_path: str) -> None:
        """The ledger holds everything."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """The ledger holds everything."""

    def get_state(self) -> dict[str, Any]:
        """The ledger holds everything."""
        return {}
