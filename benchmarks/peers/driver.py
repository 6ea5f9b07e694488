"""The study's side of `protocol`: clock, epochs and regret of another package's search."""

from __future__ import annotations

import heapq
import itertools
import json
import os
import subprocess
import tempfile
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FixedTrial

from study.search.asha import rung_epochs
from study.simulation.problem import Curve, Problem
from study.simulation.run import TRIALS_PER_TRAINING, Settings
from study.space.grammar import Choice, Leaf
from study.space.search_space import SearchSpace, conditional

HERE = Path(__file__).parent
PACKAGES = tuple(sorted(file.name.removesuffix("_peer.py") for file in HERE.glob("*_peer.py")))
ENVIRONMENT = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")} | {
    "PYTHONPATH": str(HERE.resolve())
}


class Peer:
    """A file `PACKAGE_peer.py` that answers the lines of `protocol`, run by the Python of its
    environment."""

    def __init__(self, python: str, package: str, folder: Path = HERE) -> None:
        script = folder.resolve() / f"{package}_peer.py"
        self._folder = tempfile.TemporaryDirectory(prefix="peer")  # where packages write
        self._errors = Path(self._folder.name, "errors.txt")
        with self._errors.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors, cwd=self._folder.name, env=os.environ | ENVIRONMENT, text=True,
            )  # fmt: skip

    def say(self, do: str, **message: Any) -> dict[str, Any]:
        """Its answer; a RuntimeError with the last lines of what it has printed if it has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **message}) + "\n")
            self._process.stdin.flush()
            return dict(json.loads(self._process.stdout.readline()))
        except (BrokenPipeError, json.JSONDecodeError) as error:
            lines = self._errors.read_text(encoding="utf-8").splitlines()[-5:]
            raise RuntimeError("\n".join(["the peer has ended:", *lines])) from error

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


def named(text: str) -> tuple[str, str]:
    """The package and the Python of a flag `PACKAGE=PYTHON`."""
    package, _, python = text.partition("=")
    if package not in PACKAGES:
        raise ArgumentTypeError(f"no such package: {package!r} (known: {', '.join(PACKAGES)})")
    if not os.path.isfile(python) or not os.access(python, os.X_OK):
        raise ArgumentTypeError(f"{python!r} is no Python that can be run")
    return package, python


class Leaves:
    """The leaves and choices of a space as `protocol` tells of them, named x0, x1 and so on."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._nodes: dict[str, Leaf | Choice] = {}
        self._when: dict[str, dict[str, list[str]]] = {}
        for node, conditions in conditional(space.tree, {}):
            when = self._when.setdefault(node.path, {choice: [] for choice in conditions})
            for choice in when.keys() & conditions.keys():
                when[choice].append(conditions[choice])
            self._nodes[node.path] = node
        self._names = {path: f"x{number}" for number, path in enumerate(self._nodes)}

    def message(self) -> list[dict[str, Any]]:
        """For the line `begin`."""
        found = []
        for path, node in self._nodes.items():
            of = node.distribution
            leaf: dict[str, Any] = {"name": self._names[path]}
            if isinstance(of, CategoricalDistribution):
                leaf |= {"options": [str(option) for option in of.choices]}
            else:
                is_int = isinstance(of.low, int)
                leaf |= {"low": of.low, "high": of.high, "is_int": is_int, "log": of.log}
            leaf["when"] = {self._names[c]: options for c, options in self._when[path].items()}
            found.append(leaf)
        return found

    def params(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """The active ones of what was proposed, as a config holds them."""
        values = {}
        for path, node in self._nodes.items():
            value, of = proposed.get(self._names[path]), node.distribution
            if value is None:
                continue
            if isinstance(of, CategoricalDistribution):
                values[path] = {str(option): option for option in of.choices}[value]
            else:
                values[path] = min(max(value, of.low), of.high)
        return self._space.sample(FixedTrial(values))


@dataclass
class _Training:
    """A training, and the epochs that it has had."""

    params: dict[str, Any]
    curve: Curve
    epochs: int = 0


def search(
    peer: Peer, method: str, problem: Problem, seed: int, settings: Settings
) -> list[tuple[int, float]]:
    """(epochs spent, regret) at each new best config of a problem with one objective.

    The workers are asynchronous, as in the study. The best config is that with the best value at
    the end of the schedule. A training that is asked for again goes on where it has stopped.
    """
    assert settings.trainings is not None
    space = problem.space
    (objective,) = space.settings.objectives
    rungs = space.settings.rungs
    assert rungs is not None
    leaves = Leaves(space)
    peer.say(
        "begin", leaves=leaves.message(), seed=seed, epochs=problem.epochs, method=method,
        first=rung_epochs(rungs.first, rungs.reduction_factor, problem.epochs)[0],
        trials=TRIALS_PER_TRAINING * settings.trainings, workers=settings.workers,
    )  # fmt: skip
    trainings: dict[str, _Training] = {}
    tie, spent, best = itertools.count(), 0, -np.inf
    running: list[tuple[float, int, str, int]] = []
    found: list[tuple[int, float]] = []

    def value(training: _Training, epoch: int) -> float:
        return float(training.curve.metrics[objective][epoch - 1])

    def go_on(now: float, name: str, until: int) -> None:
        training = trainings[name]
        seconds = float(training.curve.seconds[training.epochs])
        heapq.heappush(running, (now + seconds, next(tie), name, until))

    def begin(now: float) -> None:
        while True:
            asked = peer.say("ask")
            name, until = asked["id"], asked["until"]
            if name not in trainings:
                params = leaves.params(asked["params"])
                trainings[name] = _Training(params, problem.curve(params, seed))
            training = trainings[name]
            if training.epochs < min(until, len(training.curve)):
                return go_on(now, name, until)
            if until <= training.epochs:
                peer.say("report", id=name, until=until, epoch=until, value=value(training, until))
            else:
                peer.say("failed", id=name, until=until)

    for _ in range(settings.workers):
        begin(0.0)
    while spent < settings.trainings * problem.epochs:
        now, _, name, until = heapq.heappop(running)
        training = trainings[name]
        training.epochs += 1
        spent += 1
        epoch, last = training.epochs, value(training, training.epochs)
        if epoch == len(training.curve) < problem.epochs:
            peer.say("failed", id=name, until=until)
            begin(now)
            continue
        if epoch == problem.epochs and last > best:
            best = last
            regret = problem.scale.regret(problem.truth(training.params))
            found.append((spent, float(np.mean(regret))))
        answer = peer.say("report", id=name, until=until, epoch=epoch, value=last)
        if answer["stop"] or epoch >= until:
            begin(now)
        else:
            go_on(now, name, until)
    return found
