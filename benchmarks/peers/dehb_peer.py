"""DEHB: differential evolution with Hyperband, as it comes.

Conditions are ConfigSpace's. The fitness is 1 less the value, and 1 of a failed training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dehb import DEHB
from protocol import ByBudget, Job, Message, config_space, serve

PACKAGE = "DEHB"


class Dehb(ByBudget):
    """An optimizer that is asked and told."""

    def __init__(self, message: Message) -> None:
        super().__init__(self.tell)
        self._optimizer = DEHB(
            cs=config_space(message), f=None, seed=message["seed"], n_workers=1,
            min_fidelity=1, max_fidelity=message["epochs"], save_freq="end", output_path="dehb",
        )  # fmt: skip
        self._jobs: dict[Job, Any] = {}

    def ask(self) -> tuple[Job, Mapping[str, Any]]:
        """The optimizer's next job."""
        asked = self._optimizer.ask()
        job = str(asked["config_id"]), round(asked["fidelity"])
        self._jobs[job] = asked
        return job, dict(asked["config"])

    def tell(self, job: Job, value: float | None) -> None:
        """The fitness of a job."""
        fitness = 1.0 if value is None else 1 - value
        self._optimizer.tell(self._jobs.pop(job), {"fitness": fitness, "cost": job[1]})


if __name__ == "__main__":
    serve(PACKAGE, Dehb)
