"""What a simulated study is searched on: a space, and the learning curve of every point of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from study.space.search_space import SearchSpace

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """A training: each metric by epoch, and the seconds of each epoch.

    It may be shorter than the schedule: then it fails after its last epoch, by its own fault.
    """

    metrics: Mapping[str, np.ndarray]
    seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.seconds)


class Problem(Protocol):
    """A problem to search. `epochs`: of a full training."""

    @property
    def name(self) -> str: ...
    @property
    def space(self) -> SearchSpace: ...
    @property
    def epochs(self) -> int: ...

    def curve(self, params: Params | None, seed: int) -> Curve:
        """The training of a point with a seed. None: a baseline that the space does not hold."""
        ...

    def truth(self, params: Params | None) -> np.ndarray:
        """What a training of this point is worth, by objective, without noise; NaN if it fails."""
        ...

    @property
    def scale(self) -> Scale: ...

    def alike(self) -> Problem:
        """One like it, from which an earlier study may know it."""
        ...


@dataclass(frozen=True)
class Scale:
    """The worth of the median and of the best config, by objective."""

    median: np.ndarray
    best: np.ndarray

    def regret(self, worth: np.ndarray) -> np.ndarray:
        """0: the best; 1: as the median random config; by objective."""
        span = np.where(self.best > self.median, self.best - self.median, 1.0)
        return (self.best - worth) / span


class Reversed:
    """A problem whose best configs are the worst ones of another."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.name = f"{problem.name}, reversed"
        self.space, self.epochs = problem.space, problem.epochs
        scale = problem.scale
        self.scale = Scale(-scale.median, scale.best - 2 * scale.median)

    def curve(self, params: Params | None, seed: int) -> Curve:
        """The training with all metrics negative."""
        curve = self._problem.curve(params, seed)
        return Curve({name: -values for name, values in curve.metrics.items()}, curve.seconds)

    def truth(self, params: Params | None) -> np.ndarray:
        """The negative worth."""
        return -self._problem.truth(params)

    def alike(self) -> Problem:
        """Itself."""
        return self
