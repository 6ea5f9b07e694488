"""Syne Tune: ASHA, with random proposals (`syne-asha`) or those of a model (`syne-cqr`: conformal
quantile regression, `syne-bohb`: kernel densities, `syne-bore`: density ratios).

All leaves are flat: those that are not active are proposed and ignored. The first rung is that of
the study; with `1` after the name it is the package's default, the first epoch.

At its defaults BOHB proposes at random until 15 % of its trials are more than there are leaves.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import numpy
from protocol import Job, Message, serve
from syne_tune import config_space as domains
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer import baselines

PACKAGE = "syne_tune"
METHODS = {"asha": "ASHA", "cqr": "ASHACQR", "bohb": "BOHB", "bore": "ASHABORE"}


class Syne:
    """A scheduler, called as Syne Tune's own tuner calls it."""

    def __init__(self, message: Message) -> None:
        numpy.random.seed(message["seed"])
        space: dict[str, Any] = {}
        for leaf in message["leaves"]:
            if "options" in leaf:
                space[leaf["name"]] = domains.choice(leaf["options"])
            else:
                kinds = (domains.uniform, domains.loguniform, domains.randint, domains.lograndint)
                kind = kinds[2 * leaf["is_int"] + leaf["log"]]
                space[leaf["name"]] = kind(leaf["low"], leaf["high"])
        method = message["method"] or "asha"
        self._epochs = message["epochs"]
        self._scheduler = getattr(baselines, METHODS[method.removesuffix("1")])(
            space, metric="value", time_attr="epoch", max_t=self._epochs, do_minimize=False,
            random_seed=message["seed"],
            grace_period=1 if method.endswith("1") else message["first"],
        )  # fmt: skip
        self._trials: list[Any] = []

    def ask(self) -> tuple[Job, Mapping[str, Any]]:
        """The scheduler's next trial, which may run to its end."""
        config = self._scheduler.suggest().config
        trial = Trial(len(self._trials), config, datetime.datetime.now())
        self._trials.append(trial)
        self._scheduler.on_trial_add(trial)
        return (str(trial.trial_id), self._epochs), config

    def report(self, job: Job, epoch: int, value: float) -> bool:
        """What ASHA decides."""
        trial = self._trials[int(job[0])]
        decision = self._scheduler.on_trial_result(trial, {"value": value, "epoch": epoch})
        if decision == "STOP":
            self._scheduler.on_trial_remove(trial)
        return bool(decision == "STOP")

    def failed(self, job: Job) -> None:
        """The scheduler is told of the error."""
        self._scheduler.on_trial_error(self._trials[int(job[0])])


if __name__ == "__main__":
    serve(PACKAGE, Syne)
