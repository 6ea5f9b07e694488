"""SMAC3: its multi-fidelity facade, which is Hyperband with a random forest, as it comes.

Conditions are ConfigSpace's. The cost is 1 less the value, and 1 of a failed training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol import ByBudget, Job, Message, config_space, serve
from smac import MultiFidelityFacade, Scenario
from smac.runhistory import StatusType, TrialValue

PACKAGE = "smac"


class Smac(ByBudget):
    """A facade that is asked and told."""

    def __init__(self, message: Message) -> None:
        super().__init__(self.tell)
        scenario = Scenario(
            config_space(message), deterministic=True, n_trials=message["trials"],
            seed=message["seed"], min_budget=1, max_budget=message["epochs"],
            crash_cost=1.0, output_directory=Path("smac"),
        )  # fmt: skip
        self._facade = MultiFidelityFacade(
            scenario, lambda config, seed, budget: 0.0, overwrite=True, logging_level=40
        )
        self._jobs: dict[Job, Any] = {}

    def ask(self) -> tuple[Job, Mapping[str, Any]]:
        """The facade's next trial. It is the same training as an earlier one of its config."""
        trial = self._facade.ask()
        params = dict(trial.config)
        job = repr(sorted(params.items())), round(trial.budget)
        self._jobs[job] = trial
        return job, params

    def tell(self, job: Job, value: float | None) -> None:
        """The cost of a trial."""
        status = StatusType.CRASHED if value is None else StatusType.SUCCESS
        result = TrialValue(cost=1.0 if value is None else 1 - value, status=status)
        self._facade.tell(self._jobs.pop(job), result, save=False)


if __name__ == "__main__":
    serve(PACKAGE, Smac)
