"""Simulated studies: the real scheduler by an event clock, on curves that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from study.core.names import BASELINE, COMPLETED, FAILED, REFERENCE, SEARCH, STOPPED_EARLY
from study.ledger.journal import Ledger, replay
from study.ledger.records import TrialRecord
from study.scheduler.study_scheduler import StudyScheduler
from study.search.encoding import Encoder
from study.simulation.comparison import compare, interval
from study.simulation.driver import Epoch, drive
from study.simulation.families import FAMILIES, FamilyProblem
from study.simulation.problem import Reversed
from study.simulation.run import ALIKE, REVERSED, Settings, prepared, simulate

SHORT = Settings(trainings=8, sampler="random")


def params_of(outcome):
    return [trial.params for trial in outcome.state.trials.values()]


def test_a_study_ends_after_its_epochs_and_repeats_to_the_last_bit() -> None:
    problem = FamilyProblem("smooth", 0)
    first, again = simulate(problem, 3, SHORT), simulate(FamilyProblem("smooth", 0), 3, SHORT)
    assert params_of(first) == params_of(again)
    assert first.found == again.found and first.seconds == again.seconds > 0
    assert 8 * problem.epochs == first.state.num_epochs
    assert params_of(first) != params_of(simulate(problem, 4, SHORT))
    assert first.count(STOPPED_EARLY) > 0 and first.count(COMPLETED) > 0
    assert first.regret(0.1) == 1.0 and first.regret(8) == first.found[-1][1]


def test_the_memory_holds_what_a_ledger_on_disk_would(tmp_path: Path) -> None:
    problem, settings = FamilyProblem("smooth", 1), replace(SHORT, num_trials=6, trainings=None)
    in_memory = simulate(problem, 0, settings)
    scheduler, clock = prepared(problem, 0, settings)
    ledger = Ledger(tmp_path)
    assert scheduler.state.study is not None
    ledger.append(scheduler.state.study)
    real = StudyScheduler(
        ledger, scheduler.plan, problem.space, scheduler.task, slots=8, clock=clock
    )

    def train(record: TrialRecord, epoch: int, now: float) -> Epoch:
        curve = problem.curve(record.params, record.seed)
        return Epoch(
            float(curve.seconds[epoch - 1]),
            {k: float(v[epoch - 1]) for k, v in curve.metrics.items()},
        )

    drive(real, clock, train)
    ledger.close()
    found = [(t.params, t.status, t.epochs) for t in replay(ledger.path).trials.values()]
    assert found == [(t.params, t.status, t.epochs) for t in in_memory.state.trials.values()]


def test_workers_share_the_time_and_stragglers_take_more() -> None:
    problem = FamilyProblem("smooth", 0)
    full = replace(SHORT, trainings=None, num_trials=8, early_stopping=False)
    one, four = (simulate(problem, 0, replace(full, workers=workers)) for workers in (1, 4))
    slow = simulate(problem, 0, replace(full, workers=4, stragglers=0.5))
    assert one.count(COMPLETED) == four.count(COMPLETED) == 8
    assert 3 < one.seconds / four.seconds <= 4.001
    assert slow.seconds > 1.5 * four.seconds


def test_a_training_that_diverges_is_a_failed_trial_and_no_end_of_the_study() -> None:
    problem = FamilyProblem("failing", 0)
    outcome = simulate(problem, 0, replace(SHORT, trainings=16))
    failed = [trial for trial in outcome.state.trials.values() if trial.status == FAILED]
    assert failed and all(np.isnan(problem.truth(trial.params)).all() for trial in failed)


def test_a_space_of_losses_has_its_baselines_and_tunes_cross_entropy() -> None:
    outcome = simulate(FamilyProblem("joint", 0), 0, replace(SHORT, trainings=12))
    assert outcome.state.count(BASELINE) == 6
    assert outcome.state.count(REFERENCE) >= 2 and outcome.state.count(SEARCH) >= 2


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_a_median_and_a_best(name: str) -> None:
    problem = FamilyProblem(name, 0)
    scale = problem.scale
    assert np.all(scale.best > scale.median)
    assert scale.regret(scale.best) == pytest.approx(0)
    assert scale.regret(scale.median) == pytest.approx(1)
    other = FamilyProblem(name, 1)
    encoder = problem._encoder
    drawn = encoder.uniform(3, np.random.default_rng(0))
    for params in map(encoder.params, drawn):
        assert problem.space.point(params) is not None
        assert not np.array_equal(problem.truth(params), other.truth(params))
        curve = problem.curve(params, 0)
        assert len(curve) == problem.epochs or np.isnan(problem.truth(params)).all()


def test_curves_of_the_crossing_family_cross() -> None:
    def agreement(name: str) -> float:
        """Rank correlation of the first rung with the end."""
        problem = FamilyProblem(name, 0)
        drawn = problem._encoder.uniform(60, np.random.default_rng(1))
        curves = [problem.curve(problem._encoder.params(row), 0) for row in drawn]
        values = np.array([curve.metrics["objective"] for curve in curves])
        ranks = values[:, [8, -1]].argsort(axis=0).argsort(axis=0)
        return float(spearmanr(ranks[:, 0], ranks[:, 1]).statistic)

    assert agreement("crossing") < agreement("smooth") - 0.1


@pytest.mark.slow
def test_the_model_makes_most_proposals_and_better_ones() -> None:
    worth = {}
    for sampler in ("model", "random"):
        found = []
        for seed in range(3):
            problem = FamilyProblem("smooth", seed)
            outcome = simulate(problem, seed, Settings(trainings=16, sampler=sampler))
            if sampler == "model":
                assert outcome.by_model() > 0.5
            trials = list(outcome.state.trials.values())[14:]
            found += [problem.truth(trial.params)[0] for trial in trials]
        worth[sampler] = np.mean(found)
    assert worth["model"] > worth["random"] + 0.05


def test_a_comparison_is_paired_by_seed() -> None:
    methods = {"random": SHORT, "full": replace(SHORT, early_stopping=False)}
    found = compare(lambda seed: FamilyProblem("smooth", seed), methods, (0, 1, 2))
    difference = found.difference("random", "full", 8)
    by_hand = found.regrets("random", 8) - found.regrets("full", 8)
    assert difference.mean == pytest.approx(by_hand.mean())
    assert difference.low < difference.mean < difference.high
    assert "random less full" in "\n".join(found.lines([4, 8]))


def test_an_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, round(found.low, 3), round(found.high, 3)) == (2.0, -0.484, 4.484)


@pytest.mark.slow
def test_an_earlier_study_warms_or_misleads() -> None:
    """One alike is nearer to the best half-way; one of the reverse is overruled."""
    cold = Settings(trainings=16)
    regrets: dict[str, list[list[float]]] = {"": [], ALIKE: [], REVERSED: []}
    for seed in (0, 1):
        for warm, found in regrets.items():
            outcome = simulate(FamilyProblem("smooth", seed), seed, replace(cold, warm=warm))
            found.append([outcome.regret(8), outcome.regret(16)])
            assert (outcome.state.study.prior is not None) == bool(warm)  # type: ignore[union-attr]
            by = {trial.proposed_by for trial in outcome.state.trials.values()}
            assert ("warm_start" in by) == bool(warm)
    mean = {warm: np.mean(found, axis=0) for warm, found in regrets.items()}
    assert mean[ALIKE][0] < 0.7 * mean[""][0]
    assert mean[REVERSED][1] < mean[""][1] + 0.2


def test_a_problem_and_its_reverse() -> None:
    problem = FamilyProblem("smooth", 0)
    rows = Encoder(problem.space).uniform(200, np.random.default_rng(0))
    points = [Encoder(problem.space).params(row) for row in rows]
    other, alike = Reversed(problem), problem.alike()
    truth = np.array([problem.truth(point)[0] for point in points])
    assert np.array_equal([other.truth(point)[0] for point in points], -truth)
    near = spearmanr(truth, [alike.truth(point)[0] for point in points])[0]
    assert 0.8 < near < 0.99
    curve, back = problem.curve(points[0], 1), other.curve(points[0], 1)
    assert np.array_equal(back.metrics["objective"], -curve.metrics["objective"])
