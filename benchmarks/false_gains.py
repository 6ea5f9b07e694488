"""How often a study claims a gain for a loss that does nothing: `python -m benchmarks.false_gains`.

Whole studies of the joint space run through the project's own functions: what is tried, what is
selected, how it is compared, which words the answer uses. Only the training is made up. A trial's
metrics depend on its learning rate and its seed alone, the same for every loss:

    metric = top - curvature * (log2 lr_scale - best)^2 + noise

Everybody trains to the end, so the losses are selected from more values than in a real study.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from scipy.stats import beta

from study.analysis.answer import Answer, answer
from study.analysis.selection import select
from study.config.task import TaskConfig, load_task
from study.core.names import (
    CE,
    COMPLETED,
    CONFIRM,
    MACC,
    MIOU,
    TEST,
    TEST_MACC,
    TEST_MIOU,
    TUNED,
    TUNED_MACC,
    VAL,
)
from study.ledger.records import EndRecord, ReportRecord, StudyRecord, TrialRecord
from study.ledger.state import State
from study.scheduler.stages import ChooseSeeds, Done, Select, Stop, Wait, next_action
from study.scheduler.trials import TrialFactory
from study.session.prepare import make_plan
from study.space.search_space import SearchSpace, load_space

SPACE, TASK = "joint", "tiny"
OCTAVES = 2.0  # the space reaches so far below and above the task's own rate
NOWHERE = Path("/nonexistent")


@dataclass(frozen=True)
class World:
    """A training that no loss changes; in points.

    curvature: points of mIoU and of mean accuracy lost per octave^2 away from the best rate.
    noise: standard deviation over seeds. shared: the fraction of its variance that val and test of
    one training share.
    """

    curvature: float = 0.6
    noise: float = 0.5
    shared: float = 0.5

    def metrics(
        self, lr_scale: float, best: float, splits: tuple[str, ...], rng: np.random.Generator
    ) -> dict[str, float]:
        """The metrics of one training, at the argmax and, equal to these, at the tuned rules."""
        lost = self.curvature * (math.log2(lr_scale) - best) ** 2
        found = {}
        for metric, top, rule in ((MIOU, 40.0, TUNED), (MACC, 46.0, TUNED_MACC)):
            of_training = rng.normal(0, math.sqrt(self.shared))
            for split in splits:
                own = rng.normal(0, math.sqrt(1 - self.shared))
                number = (top - lost + self.noise * (of_training + own)) / 100
                found[f"{split}/{metric}"] = found[f"{split}/{rule}/{metric}"] = number
        return found


@cache
def _given() -> tuple[SearchSpace, TaskConfig]:
    return load_space(SPACE), load_task(TASK).trained_here


def simulate(world: World, seed: int, best: float | None = None) -> State:
    """One study. `best`: the best rate in octaves from the task's own; if None, it is
    drawn from the space's range."""
    rng = np.random.default_rng(seed)
    best = float(rng.uniform(-OCTAVES, OCTAVES)) if best is None else best
    space, task = _given()
    plan = make_plan(space, task, num_trials=None, seed=seed)
    plan = replace(plan, epochs=1, rungs=())
    state = State()
    state.apply(StudyRecord("s", seed, TASK, {}, SPACE, dict(space.data), plan.as_dict(), {}, {}))
    factory = TrialFactory(plan, space, task, state, gpus=0.0)
    while not isinstance(action := next_action(plan, state, ()), Done):
        assert not isinstance(action, (Wait, Stop, ChooseSeeds))
        if isinstance(action, Select):
            state.apply(select(state, top=plan.confirm_top))
            continue
        trial: TrialRecord = factory.record(action)
        splits = (VAL, TEST) if trial.stage == CONFIRM else (VAL,)
        scale = trial.config["optimizer"]["lr_scale"]
        state.apply(trial)
        state.apply(ReportRecord(trial.trial, 0, 1, world.metrics(scale, best, splits, rng)))
        state.apply(EndRecord(trial.trial, COMPLETED, "full budget", 1))
    return state


def claims_a_gain(found: Answer) -> bool:
    """Whether the answer calls a loss better than cross entropy, in either column."""
    for source, key in ((found.best_miou, TEST_MIOU), (found.best_macc, TEST_MACC)):
        config = found.config(source)
        if config is None or config.family == CE:
            continue
        if key in config.versus and config.versus[key].is_gain:
            return True
    return False


def interval(count: int, total: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share."""
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return float(low), float(high)


def _claim(job: tuple[World, int, float | None]) -> bool:
    return claims_a_gain(answer(simulate(*job), NOWHERE))


def main() -> None:
    """Print the share of studies with a false gain, for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--curvature", type=float, default=World.curvature, metavar="POINTS")
    parser.add_argument("--noise", type=float, default=World.noise, metavar="POINTS")
    parser.add_argument("--shared", type=float, default=World.shared, metavar="FRACTION")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    world = World(args.curvature, args.noise, args.shared)
    print(world)
    cases: tuple[tuple[str, tuple[float | None, ...]], ...] = (
        ("best rate uniform over the range", (None,)),
        ("task's rate two octaves off", (-OCTAVES, OCTAVES)),
    )
    with Pool(args.processes) as pool:
        for name, bests in cases:
            jobs = [(world, seed, bests[seed % len(bests)]) for seed in range(args.studies)]
            count = sum(pool.imap_unordered(_claim, jobs, chunksize=20))
            low, high = interval(count, args.studies)
            share = count / args.studies
            print(f"{name}: {share:.1%} [{low:.1%}, {high:.1%}] of {args.studies}", flush=True)


if __name__ == "__main__":
    main()
