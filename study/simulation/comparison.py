"""Methods of search side by side, on the same problems with the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from study.search.sampler import MODEL
from study.simulation.problem import Problem
from study.simulation.run import ALIKE, REVERSED, Outcome, Settings, simulate

METHODS: Mapping[str, dict[str, object]] = {
    MODEL: {},
    "random": {"sampler": "random"},
    "full-length": {"sampler": "random", "early_stopping": False},
    "warm": {"warm": ALIKE},
    "misled": {"warm": REVERSED},
}


@dataclass(frozen=True)
class Interval:
    """A mean of paired differences with its 95 % interval (Student's t over the pairs)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def interval(differences: Sequence[float] | np.ndarray) -> Interval:
    """The interval of at least two differences; without end for one."""
    found = np.asarray(differences, float)
    mean = float(found.mean())
    if len(found) < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5)
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Comparison:
    """The outcomes of each method, by seed in the same order."""

    outcomes: Mapping[str, Sequence[Outcome]]

    def regrets(self, method: str, trainings: float) -> np.ndarray:
        """Of each seed."""
        return np.array([outcome.regret(trainings) for outcome in self.outcomes[method]])

    def difference(self, method: str, other: str, trainings: float) -> Interval:
        """The regret of a method less that of another; below 0 the first is better."""
        return interval(self.regrets(method, trainings) - self.regrets(other, trainings))

    def lines(self, at: Sequence[int]) -> Iterator[str]:
        """A table: the mean regret of each method, then what the first one gains."""
        first, *others = self.outcomes
        yield f"{'regret after trainings':<24}" + "".join(f"{trainings:>24}" for trainings in at)
        for method in self.outcomes:
            means = (float(self.regrets(method, trainings).mean()) for trainings in at)
            yield f"{method:<24}" + "".join(f"{mean:>24.2f}" for mean in means)
        for other in others:
            cells = (str(self.difference(first, other, trainings)) for trainings in at)
            yield f"{first + ' less ' + other:<24}" + "".join(f"{cell:>24}" for cell in cells)


def compare(
    problem_of: Callable[[int], Problem],
    methods: Mapping[str, Settings],
    seeds: Sequence[int],
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Search the problem of each seed by each method."""
    found: dict[str, list[Outcome]] = {name: [] for name in methods}
    for seed in seeds:
        problem = problem_of(seed)
        for name, settings in methods.items():
            found[name].append(simulate(problem, seed, settings))
            say(f"{problem.name}, seed {seed}, {name}: {found[name][-1].line()}")
    return Comparison(found)
