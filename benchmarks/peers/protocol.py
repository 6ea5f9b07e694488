"""The side of another package: it answers JSON lines, by what that package and Python have.

    {"do": "begin", "leaves": [...], "seed": 3, "epochs": 24, "first": 9, "trials": 192,
     "workers": 8, "method": "asha"}          -> {"package": "syne_tune 0.16.0"}
    {"do": "ask"}                             -> {"id": "7", "params": {"x0": 0.1}, "until": 24}
    {"do": "report", "id": "7", "until": 24, "epoch": 1, "value": 0.4}        -> {"stop": false}
    {"do": "failed", "id": "7", "until": 24}  -> {}

leaves: `name`; of a range `low`, `high`, `is_int` and `log`; of a choice `options`, which are text;
`when`: the choices on the way to it, each with the options under which it is active. first: the
epoch of the study's own first rung. trials: about how many that many epochs suffice for. until: the
epoch up to which to train; an id that is asked for again goes on from the epoch that it has
reached. value: more is better, mostly from 0 to 1. The report of the epoch `until` ends the job.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Protocol

Message = Mapping[str, Any]
Job = tuple[str, int]  # id, until


class Peer(Protocol):
    """A search of another package."""

    def ask(self) -> tuple[Job, Mapping[str, Any]]:
        """The next job, and its params; those that are not active do not matter."""
        ...

    def report(self, job: Job, epoch: int, value: float) -> bool:
        """Whether it stops before its last epoch."""
        ...

    def failed(self, job: Job) -> None:
        """The training has failed."""
        ...


class ByBudget:
    """A search that hears of the last epoch of a job alone. tell: job, value or None (failed)."""

    def __init__(self, tell: Callable[[Job, float | None], object]) -> None:
        self._tell = tell

    def report(self, job: Job, epoch: int, value: float) -> bool:
        """Never stop, and tell the last value."""
        if epoch >= job[1]:
            self._tell(job, value)
        return False

    def failed(self, job: Job) -> None:
        """Tell that there is none."""
        self._tell(job, None)


def serve(package: str, begin: Callable[[Message], Peer]) -> None:
    """Answer until the lines end. What the package prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    peer: Peer | None = None
    for line in sys.stdin:
        message = json.loads(line)
        answer: dict[str, Any] = {}
        if message["do"] == "begin":
            peer = begin(message)
            answer = {"package": f"{package} {version(package)}"}
        elif peer is None:
            raise ValueError("the first message must be begin")
        elif message["do"] == "ask":
            (name, until), params = peer.ask()
            answer = {"id": name, "params": dict(params), "until": until}
        else:
            job = message["id"], message["until"]
            if message["do"] == "failed":
                peer.failed(job)
            else:
                answer = {"stop": peer.report(job, message["epoch"], message["value"])}
        print(json.dumps(answer, default=_plain), file=answers, flush=True)


def _plain(value: Any) -> Any:
    """A number of NumPy as Python's."""
    return value.item()


def config_space(message: Message) -> Any:
    """The leaves as a ConfigurationSpace with conditions, for packages that take one."""
    import ConfigSpace as cs

    space = cs.ConfigurationSpace(seed=message["seed"])
    for leaf in message["leaves"]:
        if "options" in leaf:
            space.add(cs.CategoricalHyperparameter(leaf["name"], leaf["options"]))
        else:
            kind = (cs.UniformFloatHyperparameter, cs.UniformIntegerHyperparameter)[leaf["is_int"]]
            space.add(kind(leaf["name"], leaf["low"], leaf["high"], log=leaf["log"]))
    for leaf in message["leaves"]:
        conditions = [
            cs.InCondition(space[leaf["name"]], space[choice], options)
            for choice, options in leaf["when"].items()
        ]
        if conditions:
            alone = len(conditions) == 1
            space.add(conditions[0] if alone else cs.AndConjunction(*conditions))
    return space
