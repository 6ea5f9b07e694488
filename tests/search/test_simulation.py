"""The sampler and the rungs together, on synthetic learning curves instead of training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from study.analysis.tuning import Tried
from study.search.asha import decide, rung_epochs
from study.search.reference import reference_params
from study.search.sampler import Observation, propose
from study.space.search_space import load_space

MIOU, MACC, LR = "val/tuned/miou", "val/tuned_macc/macc", "optimizer/lr_scale"
EPOCHS = 8


@dataclass
class Trial:
    params: dict | None
    curve: list[dict[str, float]]
    protected: bool
    rungs: dict[int, dict[str, float]] = field(default_factory=dict)
    kept: bool = True


def curve(params, rng):
    """Quality by loss and learning rate; recall-like losses start slowly and cross over."""
    lr = math.log2(params.get("optimizer/lr_scale", 1.0))
    rare = params.get("loss/recall", "off") != "off"
    weighted = params.get("loss/class_weights", "none") != "none"
    mix = params.get("loss/jaccard/mix", 0.0)
    miou = 0.40 - 0.02 * (lr - 0.5) ** 2 + 0.05 * mix - 0.03 * weighted + rng.normal(0, 0.01)
    macc = miou + 0.08 + 0.12 * weighted + 0.08 * rare
    pace = 3.0 if rare else 2.0
    grown = 1 - np.exp(-np.arange(1, EPOCHS + 1) / pace)
    noise = rng.normal(0, 0.008, (EPOCHS, 2))
    return [
        {MIOU: miou * share + a, MACC: macc * share + b}
        for share, (a, b) in zip(grown, noise, strict=True)
    ]


def simulate(seed: int, num_trials: int = 16, num_reference: int = 4) -> list[Trial]:
    space = load_space("joint")
    rng = np.random.default_rng(seed)
    bracket = space.settings.rungs
    assert bracket is not None
    factor = bracket.reduction_factor
    epochs = rung_epochs(bracket.first, factor, EPOCHS)
    trials: list[Trial] = []

    def run(params, known, protected):
        trial = Trial(known, curve(params, rng), protected)
        trials.append(trial)
        for epoch in epochs:
            best = {key: max(report[key] for report in trial.curve[:epoch]) for key in (MIOU, MACC)}
            before = [other.rungs[epoch] for other in trials if epoch in other.rungs]
            trial.rungs[epoch] = best
            if not decide(before, best, reduction_factor=factor).keep and not protected:
                trial.kept = False
                return
        trial.rungs[EPOCHS] = trial.curve[-1]

    for name in space.settings.baseline_names:
        known = space.params_of(space.settings.baseline_loss(name))
        run(known or {}, known, True)
    tried = [Tried({LR: 1.0}, trials[0].curve[-1][MIOU])]
    for rank in range(num_reference):
        params = reference_params(space, tried, rank, num_reference)
        config = space.reference.resolve(params)
        run(params, space.params_of(config.loss, config.optimizer), True)
        tried.append(Tried(params, trials[-1].curve[-1][MIOU]))
    for number in range(num_trials - num_reference):
        history = [
            Observation(trial.params, trial.rungs) for trial in trials if trial.params is not None
        ]
        params = propose(space, history, seed=seed, number=number).params
        run(params, params, False)
    return trials


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))]
)
def test_at_least_four_of_the_twelve_searched_trials_are_stopped(seed):
    trials = simulate(seed)
    assert len(trials) == 22
    assert 4 <= sum(not trial.kept for trial in trials) <= 11


@pytest.mark.slow
def test_the_best_trial_by_each_objective_is_seldom_stopped():
    lost = 0
    for seed in range(8):
        trials = simulate(seed)
        for key in (MIOU, MACC):
            best = max(trials, key=lambda trial: trial.curve[-1][key])
            lost += not best.kept
    assert lost <= 3


@pytest.mark.slow
def test_a_longer_search_learns():
    better = []
    for seed in range(3):
        searched = simulate(seed, num_trials=80)[8:]
        final = [trial.curve[-1][MIOU] + trial.curve[-1][MACC] for trial in searched]
        better.append(np.mean(final[50:]) - np.mean(final[:16]))
    assert np.mean(better) > 0.01


def test_two_simulations_of_one_seed_are_the_same():
    first, second = simulate(3), simulate(3)
    assert [trial.params for trial in first] == [trial.params for trial in second]
    assert [trial.kept for trial in first] == [trial.kept for trial in second]
