"""NePS: what it chooses itself for epochs without priors, which is Hyperband; or `neps-NAME`.

All leaves are flat: those that are not active are proposed and ignored. The objective is 1 less
the value.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import neps
import numpy
import torch
from neps.optimizers import load_optimizer
from protocol import ByBudget, Job, Message, serve

PACKAGE = "neural-pipeline-search"
EPOCHS = "epochs"


class Neps(ByBudget):
    """An optimizer in its wrapper to ask and tell."""

    def __init__(self, message: Message) -> None:
        super().__init__(self.tell)
        for seeded in (random.seed, numpy.random.seed, torch.manual_seed):
            seeded(message["seed"])
        epochs = neps.HPOInteger(1, message["epochs"], is_fidelity=True)
        leaves: dict[str, Any] = {EPOCHS: epochs}
        for leaf in message["leaves"]:
            if "options" in leaf:
                leaves[leaf["name"]] = neps.HPOCategorical(leaf["options"])
            else:
                kind = (neps.HPOFloat, neps.HPOInteger)[leaf["is_int"]]
                leaves[leaf["name"]] = kind(leaf["low"], leaf["high"], log=leaf["log"])
        optimizer, _ = load_optimizer(message["method"] or "auto", neps.SearchSpace(leaves))
        self._optimizer = neps.AskAndTell(optimizer)
        self._jobs: dict[Job, Any] = {}

    def ask(self) -> tuple[Job, Mapping[str, Any]]:
        """The optimizer's next trial; its id has the config's before the rung's."""
        trial = self._optimizer.ask()
        params = dict(trial.config)
        job = trial.metadata.id.partition("_rung_")[0], round(params.pop(EPOCHS))
        self._jobs[job] = trial
        return job, params

    def tell(self, job: Job, value: float | None) -> None:
        """The objective of a trial, or that it has failed."""
        result = RuntimeError("failed") if value is None else 1 - value
        self._optimizer.tell(self._jobs.pop(job), result)


if __name__ == "__main__":
    serve(PACKAGE, Neps)
