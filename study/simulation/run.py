"""One simulated study: the regret of its best config over the epochs that it has spent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from study.config.budget import EpochBudget
from study.config.own_training import FunctionTrial, OwnTrainingTask
from study.core.names import (
    COMPLETED,
    EPOCH_SECONDS,
    FAILED,
    STOPPED_EARLY,
)
from study.ledger.records import StudyRecord, TrialRecord
from study.ledger.state import State, Trial
from study.scheduler.planning import make_plan
from study.scheduler.study_scheduler import StudyScheduler
from study.search.sampler import MODEL
from study.search.warm_start import STUDIES, taken_from
from study.simulation.driver import Clock, Epoch, MemoryLedger, drive
from study.simulation.problem import Curve, Problem, Reversed

TRAINING = "study.simulation:nothing"  # a simulated trial's function, which nobody imports
TRIALS_PER_TRAINING = 3  # more than early stopping makes of a training's epochs
ALIKE, REVERSED = "alike", "reversed"
OTHER_SEED = 1000  # more than the study's own: of the earlier study of a warm start
SLOWER = 5.0  # times, of a straggler's epochs


@dataclass(frozen=True)
class Settings:
    """How a study is simulated.

    trainings: the search ends after so many full trainings' worth of epochs; None: after the
    space's num_trials, or `num_trials`. sampler, early_stopping: in place of the space's.
    stragglers: the part of trials that is SLOWER. references: how many trials tune cross entropy
    where the space is of losses; as many as a study of `trainings` trials has, unless given.
    warm: an earlier study of the same size comes first, and warms this one: on a problem like this
    one (ALIKE), or on its reverse (REVERSED).
    """

    workers: int = 8
    trainings: int | None = None
    num_trials: int | None = None
    sampler: str = MODEL
    early_stopping: bool = True
    stragglers: float = 0.0
    references: int | None = None
    warm: str = ""


@dataclass
class Outcome:
    """What a simulated study came to.

    found: (epochs spent so far, regret) at each new best config. seconds: by its clock.
    """

    state: State
    epochs: int
    seconds: float
    found: list[tuple[int, float]] = field(default_factory=list)

    def regret(self, trainings: float) -> float:
        """The regret after so many full trainings' worth of epochs: 0 is the best config, 1 the
        median random one, which is what it is before the first training has ended."""
        before = [value for spent, value in self.found if spent <= trainings * self.epochs]
        return before[-1] if before else 1.0

    @property
    def num_trials(self) -> int:
        """Trials that were begun."""
        return len(self.state.trials)

    def count(self, status: str) -> int:
        """How many trials have ended so."""
        return sum(trial.status == status for trial in self.state.trials.values())

    def by_model(self, after: int = 6) -> float:
        """The part of the proposals after the first `after` trials that is the model's; NaN where
        there are none."""
        later = [t for t in self.state.trials.values() if t.number >= after and t.proposed_by]
        return float(np.mean([t.proposed_by == MODEL for t in later])) if later else math.nan

    def line(self) -> str:
        """In one line."""
        statuses = (COMPLETED, STOPPED_EARLY, FAILED)
        counts = ", ".join(f"{self.count(s)} {s.replace('_', ' ')}" for s in statuses)
        after = self.state.search_ended_after
        ended = "" if after is None else f"; the search ended after {after}"
        hours = f"{self.seconds / 3600:.1f} h by the clock"
        return f"{self.num_trials} trials: {counts}; {hours}{ended}"


def simulate(problem: Problem, seed: int, settings: Settings) -> Outcome:
    """Search a problem once. The same arguments give the same study."""
    scheduler, clock = prepared(problem, seed, settings)
    curves: dict[str, Curve] = {}
    outcome = Outcome(scheduler.state, problem.epochs, 0.0)
    incumbents: dict[str, tuple[float, float]] = {}
    rng = np.random.default_rng([seed, 5])

    def train(record: TrialRecord, epoch: int, now: float) -> Epoch:
        if record.trial not in curves:
            curve = problem.curve(record.params, record.seed)
            slower = SLOWER if rng.random() < settings.stragglers else 1.0
            curves[record.trial] = Curve(curve.metrics, slower * curve.seconds)
        curve = curves[record.trial]
        if epoch > len(curve):
            return Epoch(float(curve.seconds[-1]) if len(curve) else 1.0, None, "the curve ends")
        metrics = {name: float(values[epoch - 1]) for name, values in curve.metrics.items()}
        seconds = float(curve.seconds[epoch - 1])
        return Epoch(seconds, {**metrics, EPOCH_SECONDS: seconds})

    def watch(record: object) -> None:
        trial = scheduler.state.trials.get(getattr(record, "trial", ""))
        if getattr(record, "kind", "") == "end" and trial is not None:
            curves.pop(trial.id, None)
            if trial.status == COMPLETED and trial.params is not None:
                _better(problem, trial, incumbents)
                regret = _regret(problem, incumbents)
                if not outcome.found or outcome.found[-1][1] != regret:
                    outcome.found.append((scheduler.state.num_epochs, regret))

    scheduler.listeners = (watch,)
    most = math.inf if settings.trainings is None else settings.trainings * problem.epochs
    drive(scheduler, clock, train, max_epochs=most)
    outcome.seconds = clock.now
    return outcome


class SimulatedTask(OwnTrainingTask):
    """A training whose curves are known, whatever its loss."""

    asks_teachers: ClassVar[bool] = True


def prepared(problem: Problem, seed: int, settings: Settings) -> tuple[StudyScheduler, Clock]:
    """A scheduler at the beginning of a study of the search alone, and its clock."""
    space = problem.space
    num_trials = settings.num_trials
    if settings.trainings is not None:
        changed = {"reference_trials": settings.references or max(4, -(-settings.trainings // 4))}
        space = replace(space, settings=space.settings.model_copy(update=changed))
        num_trials = num_trials or TRIALS_PER_TRAINING * settings.trainings
    task = SimulatedTask(
        trial=FunctionTrial(function=TRAINING), budget=EpochBudget(epochs=problem.epochs)
    )
    plan = make_plan(space, task, num_trials=num_trials, seed=seed)
    plan = replace(
        plan,
        sampler=settings.sampler,
        rungs=plan.rungs if settings.early_stopping else (),
        confirm_top=0,
        confirm_seeds=0,
        confirm_budgets=(1,),
        confirm_ablations=0,
        confirm_half_width=0.0,
    )
    clock = Clock()
    ledger = MemoryLedger(clock)
    ledger.append(
        StudyRecord(
            problem.name, seed, problem.name, task.model_dump(), space.name,
            dict(space.data), plan.as_dict(), {}, {}, prior=_earlier(problem, seed, settings),
        )
    )  # fmt: skip
    scheduler = StudyScheduler(ledger, plan, space, task, slots=settings.workers, clock=clock)
    return scheduler, clock


def _earlier(problem: Problem, seed: int, settings: Settings) -> dict[str, Any] | None:
    """What an earlier study tells this one; None without a warm start."""
    if not settings.warm:
        return None
    other = Reversed(problem) if settings.warm == REVERSED else problem.alike()
    earlier = simulate(other, seed + OTHER_SEED, replace(settings, warm=""))
    return {STUDIES: [taken_from(other.name, earlier.state, problem.space)]}


def _better(problem: Problem, trial: Trial, incumbents: dict[str, tuple[float, float]]) -> None:
    """Take a trial for the best by each objective by which it is."""
    objectives = problem.space.settings.objectives
    worth = problem.truth(trial.params)
    for index, name in enumerate(objectives):
        value = trial.last[name]
        if math.isfinite(value) and value > incumbents.get(name, (-math.inf, 0.0))[0]:
            incumbents[name] = value, float(worth[index])


def _regret(problem: Problem, incumbents: dict[str, tuple[float, float]]) -> float:
    scale = problem.scale
    worth = np.array(
        [
            incumbents.get(name, (0.0, float(scale.median[index])))[1]
            for index, name in enumerate(problem.space.settings.objectives)
        ]
    )
    return float(np.mean(scale.regret(worth)))
