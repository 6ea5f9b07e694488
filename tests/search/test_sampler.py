from __future__ import annotations

import math
from collections import Counter

import numpy as np
import optuna
import pytest

from study.losses import family
from study.search import sampler
from study.search.history import MAX_POINTS, WORST, History, Observation
from study.search.sampler import model_takes_over_at, propose, stratified
from study.space.search_space import load_space

MIOU, MACC = "val/tuned/miou", "val/tuned_macc/macc"
ALPHA, MIX, OPTION = "loss/jaccard/alpha", "loss/jaccard/mix", "loss/jaccard"
CONDITIONAL = {
    "loss": {
        "jaccard": {
            "choice": {
                "off": {"mix": 0.0},
                "on": {
                    "mix": {"float": {"low": 0.0, "high": 1.0}},
                    "alpha": {"float": {"low": 0.0, "high": 1.0}},
                },
            }
        }
    },
    "study": {"objectives": [MIOU]},
}


@pytest.fixture(scope="module")
def joint():
    return load_space("joint")


@pytest.fixture(scope="module")
def conditional():
    return load_space(CONDITIONAL)


def is_neutral(space, params):
    return family(space.resolve(params).loss) == "ce"


def observed(space, count, value, *, seed=0, epoch=3):
    params = [stratified(space, seed=seed, number=number) for number in range(count)]
    return [
        Observation(one, {epoch: dict.fromkeys(space.settings.objectives, value(one))})
        for one in params
    ]


def model_numbers(count):
    """Proposals that the model makes, where it may: the third that stays random is left out."""
    numbers = []
    for number in range(10 * count):
        rng = np.random.default_rng([0, number])
        rng.integers(2**31)
        if rng.random() >= sampler.RANDOM_FRACTION:
            numbers.append(number)
    return numbers[:count]


def model_points(space, history):
    points = History(space, history).model_points()
    assert points is not None
    return points


def on_the_diagonal(params):
    return 0.2 if params[OPTION] == "off" else 1 - abs(params[ALPHA] - params[MIX])


def distance(points):
    return float(np.mean([abs(p[ALPHA] - p[MIX]) for p in points if p[OPTION] == "on"]))


@pytest.mark.slow
def test_the_model_uses_conditional_leaves(conditional):
    history = observed(conditional, 60, on_the_diagonal)
    proposals = [
        propose(conditional, history, seed=0, number=number).params for number in model_numbers(40)
    ]
    assert distance(proposals) < 0.5 * distance([one.params for one in history])
    assert sum(one[OPTION] == "on" for one in proposals) > 35


@pytest.mark.slow
def test_modelling_leaves_in_groups_finds_what_one_by_one_does_not(conditional):
    def asked(group, seed, history):
        with sampler._quiet():
            study = optuna.create_study(
                direction="maximize",
                sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, group=group),
            )
            study.add_trials(model_points(conditional, history))
            return conditional.sample(study.ask())

    found: dict[bool, list] = {True: [], False: []}
    for seed in range(4):
        history = observed(conditional, 60, on_the_diagonal, seed=seed)
        for group, proposals in found.items():
            proposals += [asked(group, number, history) for number in range(20)]
    assert distance(found[True]) < 0.7 * distance(found[False])


def test_every_option_comes_equally_often_while_there_is_no_model(joint):
    proposals = [propose(joint, [], seed=3, number=number).params for number in range(12)]
    for path, options in joint.choices.items():
        counts = Counter(one[path] for one in proposals)
        assert counts == dict.fromkeys(options, 12 // len(options))
    for start in (0, 3, 6, 9):
        block = {one["loss/recall"] for one in proposals[start : start + 3]}
        assert block == {"off", "instantaneous", "ema"}


def test_choices_are_not_tied_to_each_other(joint):
    proposals = [stratified(joint, seed=0, number=number) for number in range(60)]
    pairs = {(one["loss/class_weights"], one["loss/pooling"]) for one in proposals}
    assert len(pairs) == 4


def test_a_proposal_is_a_function_of_seed_number_and_history(joint):
    history = observed(joint, 20, lambda one: one["optimizer/lr_scale"] / 4)
    for number in (0, 1, 2, 20):
        first = propose(joint, history, seed=1, number=number)
        assert first == propose(joint, history, seed=1, number=number)
        assert first != propose(joint, history, seed=2, number=number)
        assert first != propose(joint, history, seed=1, number=number + 1)


def test_there_is_no_model_below_sixteen_results(joint):
    history = observed(joint, 15, lambda one: one["optimizer/lr_scale"] / 4)
    assert History(joint, history).model_points() is None
    assert propose(joint, history, seed=0, number=7).params == stratified(joint, seed=0, number=7)


def test_the_model_learns_from_the_highest_full_rung_alone(joint):
    history = [
        Observation(
            stratified(joint, seed=0, number=number),
            {3: {MIOU: 0.1, MACC: 0.1}}
            | ({9: {MIOU: 0.2, MACC: 0.3}} if number < 16 else {})
            | ({27: {MIOU: 0.9, MACC: 0.9}} if number < 5 else {}),
        )
        for number in range(30)
    ]
    points = model_points(joint, history)
    assert len(points) == 16
    assert all(point.values == [0.2, 0.3] for point in points)


def test_running_trials_are_known_as_running_and_failed_ones_as_bad(joint):
    history = observed(joint, 16, lambda one: 0.5)
    more = [stratified(joint, seed=0, number=number) for number in (20, 21, 22)]
    history += [
        Observation(more[0], running=True),
        Observation(more[1], failed=True),
        Observation(more[2]),  # stopped below the rung
    ]
    points = model_points(joint, history)
    assert len(points) == 18
    assert points[16].state == optuna.trial.TrialState.RUNNING
    assert points[17].values == [WORST] * 2


@pytest.mark.slow
def test_a_long_history_is_thinned_to_the_best_and_a_sample_of_the_rest(joint):
    history = observed(joint, 1000, lambda one: one["optimizer/lr_scale"] / 4)
    more = Observation(stratified(joint, seed=0, number=1001), running=True)
    points = model_points(joint, [*history, more])
    assert len(points) == MAX_POINTS + 1
    assert points[-1].state == optuna.trial.TrialState.RUNNING
    found = [point.values[0] for point in points[:-1]]
    everything = [one.rungs[3][MIOU] for one in history]
    assert sorted(found)[-30:] == sorted(everything)[-30:]
    rest = sorted(found)[: -MAX_POINTS // 2]
    assert abs(np.median(rest) - np.median(everything)) < 0.1
    order = [everything.index(value) for value in found]
    assert order == sorted(order)


def test_a_value_that_is_not_a_number_is_worse_than_any(joint):
    history = observed(joint, 15, lambda one: 0.0)
    params = stratified(joint, seed=0, number=15)
    history.append(Observation(params, {3: {MIOU: math.nan, MACC: -math.inf}}))
    assert model_points(joint, history)[-1].values == [WORST] * 2


def test_points_outside_of_a_narrowed_space_are_skipped(joint):
    history = observed(joint, 60, lambda one: one["optimizer/lr_scale"] / 4)
    data = {**joint.data, "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 1.0}}}}
    narrow = load_space(data)
    points = model_points(narrow, history)
    inside = [one for one in history if one.params["optimizer/lr_scale"] <= 1.0]
    assert 16 <= len(points) == len(inside) < 60
    assert propose(narrow, history, seed=0, number=3).params["optimizer/lr_scale"] <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 40], ids=["random", "model"])
def test_no_proposal_is_plain_cross_entropy_where_the_space_holds_more(joint, count):
    history = observed(joint, count, lambda one: float(one["loss/jaccard"] == "off"))
    drawn = [stratified(joint, seed=0, number=number) for number in range(100)]
    assert any(is_neutral(joint, params) for params in drawn)
    for number in range(100):
        assert not is_neutral(joint, propose(joint, history, seed=0, number=number).params)


def test_a_space_of_cross_entropy_alone_is_searched_all_the_same(joint):
    only = joint.reference
    assert is_neutral(only, propose(only, [], seed=0, number=0).params)


@pytest.mark.slow
def test_a_third_of_the_proposals_stays_random(joint):
    history = observed(joint, 30, lambda one: one["optimizer/lr_scale"] / 4)
    same = sum(
        propose(joint, history, seed=0, number=n).params == stratified(joint, seed=0, number=n)
        for n in range(90)
    )
    assert 20 <= same <= 40


def test_the_random_sampler_ignores_the_history(joint):
    history = observed(joint, 30, lambda one: one["optimizer/lr_scale"] / 4)
    for number in range(10):
        proposal = propose(joint, history, seed=0, number=number, sampler="random")
        assert proposal == propose(joint, [], seed=0, number=number, sampler="random")
        plain = stratified(joint, seed=0, number=number)
        assert proposal.params == plain or is_neutral(joint, plain)


def test_a_grid_takes_each_point_once_and_has_an_end():
    space = load_space("baselines")
    points = [propose(space, [], seed=0, number=n, sampler="grid").params for n in range(30)]
    assert points == space.grid
    assert len({tuple(sorted(point.items())) for point in points}) == 30
    with pytest.raises(ValueError, match="30 points"):
        propose(space, [], seed=0, number=30, sampler="grid")


def test_the_plan_can_say_when_the_model_takes_over(joint):
    history = observed(joint, 5 + model_takes_over_at(5) - 1, lambda one: 0.5)
    assert History(joint, history).model_points() is not None
    assert History(joint, history[:-1]).model_points() is None
    assert model_takes_over_at(0) == 17
    assert model_takes_over_at(5, slots=3) == 14
    assert model_takes_over_at(40) == 1
