"""What `stop_when` saves and what it costs: `python -m benchmarks.stop_when`.

On the made-up curves of `study.simulation.families`, each study is run whole and with each
threshold. The table has, over the instances of a family: how many studies end early, the trials
that they save, what going on was expected to gain, and what the whole study did gain: the worth,
without noise, of the better of the two trials that the confirmation would take. Points are
hundredths of an objective; in every family the best config is some 25 points better than the median
one, so 2.5 points are a tenth of the range.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from study.core.names import BASELINE, REFERENCE, SEARCH
from study.ledger.state import State
from study.simulation.families import FAMILIES, FamilyProblem
from study.simulation.run import Settings, simulate
from study.space.settings import StopWhen

TOP = 2


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--below", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    parser.add_argument("--instances", type=int, default=6)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    print("| family | gain_below | ended early | trials saved | expected gain | real gain |")
    print("|---|---|---|---|---|---|")
    for family in options.families:
        for below, found in _family(family, options).items():
            ended = [one for one in found if one is not None]
            means = [f"{np.mean(values):.1f}" for values in zip(*ended, strict=True)]
            cells = " | ".join(means or ["", "", ""])
            count = f"{len(ended)} of {len(found)}"
            print(f"| {family} | {below:g} | {count} | {cells} |", flush=True)


def _family(
    family: str, options: argparse.Namespace
) -> dict[float, list[tuple[float, float, float] | None]]:
    found: dict[float, list[tuple[float, float, float] | None]] = {b: [] for b in options.below}
    for instance in range(options.instances):
        problem: Any = FamilyProblem(family, instance)
        whole = simulate(problem, instance, _settings(options))
        for below in options.below:
            settings = problem.space.settings.model_copy(
                update={"stop_when": StopWhen(gain_below=below)}
            )
            stopping = FamilyProblem(family, instance)
            stopping.space = replace(problem.space, settings=settings)
            short = simulate(stopping, instance, _settings(options))
            end = short.state.search_end
            if end is None:
                found[below].append(None)
                continue
            gained = 100 * (_worth(problem, whole.state) - _worth(problem, short.state))
            saved = whole.num_trials - short.num_trials
            found[below].append((saved, max(end.expected.values()), float(gained.max())))
    return found


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(workers=options.workers, num_trials=options.trials)


def _worth(problem: FamilyProblem, state: State) -> np.ndarray:
    """Of the better one of the TOP by each objective."""
    found = []
    for index, name in enumerate(problem.space.settings.objectives):
        done = [
            trial
            for trial in state.completed(BASELINE, REFERENCE, SEARCH)
            if trial.params is not None
        ]
        top = sorted(done, key=lambda trial: -trial.last[name])[:TOP]
        found.append(max(float(problem.truth(trial.params)[index]) for trial in top))
    return np.array(found)


if __name__ == "__main__":
    main()
