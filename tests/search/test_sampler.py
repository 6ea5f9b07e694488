from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from study.losses import family
from study.search import sampler
from study.search.history import History, Observation
from study.search.model import candidates
from study.search.sampler import MIN_JUDGED, MODEL, model_takes_over_at, propose, stratified
from study.space.search_space import load_space
from study.space.tree_space import load_any

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
LR = "optimizer/lr_scale"


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


def by_model(space, history, count, seed=0):
    """The first proposals that the model makes of this history."""
    found = []
    for number in range(10 * count):
        proposal = propose(space, history, seed=seed, number=number)
        if proposal.by == MODEL:
            found.append(proposal.params)
        if len(found) == count:
            break
    return found


def on_the_diagonal(params):
    return 0.2 if params[OPTION] == "off" else 1 - abs(params[ALPHA] - params[MIX])


def distance(points):
    return float(np.mean([abs(p[ALPHA] - p[MIX]) for p in points if p[OPTION] == "on"]))


def test_the_model_uses_leaves_that_depend_on_each_other(conditional):
    history = observed(conditional, 40, on_the_diagonal)
    proposals = by_model(conditional, history, 20)
    assert distance(proposals) < 0.5 * distance([one.params for one in history])
    assert sum(one[OPTION] == "on" for one in proposals) >= 18


def test_the_learning_rate_is_modelled_together_with_the_options():
    """Half of the options is best at a low learning rate, the other at a high one; over both the
    learning rate does not matter."""
    space = load_any(
        {
            "lr": {"float": {"low": 0.0, "high": 1.0}},
            "way": {"choice": {"a": {"x": {"float": {"low": 0.0, "high": 1.0}}}, "b": {}}},
        }
    )
    history = observed(space, 40, lambda p: -abs(p["lr"] - (0.1 if p["way"] == "a" else 0.9)))
    encoder = History(space).encoder
    rows = np.array([encoder.row(one.params) for one in history])
    values = np.array([one.rungs[3]["objective"] for one in history])
    none = np.empty((0, rows.shape[1]))
    drawn = candidates(encoder, rows, values, none, np.random.default_rng(0))
    best: dict[str, list[float]] = {"a": [], "b": []}
    for row in drawn[:60]:
        params = encoder.params(row)
        best[params["way"]].append(params["lr"])
    assert np.mean(best["a"]) < 0.3 and np.mean(best["b"]) > 0.7


def test_what_runs_keeps_others_away(conditional):
    history = observed(conditional, 30, on_the_diagonal)
    first = by_model(conditional, history, 1)[0]
    again = [*history, Observation(first, running=True, proposed=False)]
    number = next(
        n for n in range(20) if propose(conditional, history, seed=0, number=n).by == MODEL
    )
    second = propose(conditional, again, seed=0, number=number).params
    assert second != first
    assert abs(second.get(MIX, 9) - first[MIX]) + abs(second.get(ALPHA, 9) - first[ALPHA]) > 0.01


def test_no_config_is_proposed_twice_where_all_can_be_listed():
    space = load_any({"a": {"choice": ["x", "y", "z"]}, "b": {"int": {"low": 1, "high": 4}}})
    history: list[Observation] = []
    for number in range(12):
        params = propose(space, history, seed=0, number=number).params
        history.append(Observation(params, {3: {"objective": float(params["b"])}}))
    modelled = [tuple(one.params.values()) for one in history[MIN_JUDGED:]]
    assert len(set(modelled)) >= len(modelled) - 1  # the random part may repeat one


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


def test_the_random_part_takes_what_the_fewest_trials_had(joint):
    one_sided = [
        replace(one, params={**one.params, "loss/pooling": "mean"})
        for one in observed(joint, 30, lambda one: one[LR])
        if one.params["loss/pooling"] == "mean"
    ]
    found = [propose(joint, one_sided, seed=0, number=number) for number in range(60)]
    drawn = [one for one in found if one.by == "random"]
    assert 3 <= len(drawn) <= 20
    assert all(one.params["loss/pooling"] == "max" for one in drawn)


def test_a_proposal_is_a_function_of_seed_number_and_history(joint):
    history = observed(joint, 20, lambda one: one[LR] / 4)
    for number in (0, 1, 2, 20):
        first = propose(joint, history, seed=1, number=number)
        assert first == propose(joint, history, seed=1, number=number)
        assert first != propose(joint, history, seed=2, number=number)
        assert first != propose(joint, history, seed=1, number=number + 1)


def test_the_model_begins_at_six_judged_trials(joint):
    history = observed(joint, 5, lambda one: one[LR] / 4)
    history.append(Observation(stratified(joint, seed=0, number=9), running=True))
    for number in range(10):
        assert propose(joint, history, seed=0, number=number).by == "random"
    history.append(Observation(stratified(joint, seed=0, number=10), failed=True))
    made = [propose(joint, history, seed=0, number=number).by for number in range(40)]
    assert 26 <= made.count(MODEL) <= 39


def test_the_model_leaves_the_other_cores_to_the_trials(joint, monkeypatch):
    threads = []

    def watched(*given, **more):
        blas = [one for one in threadpool_info() if one["user_api"] == "blas"]
        threads.extend(one["num_threads"] for one in blas)
        return candidates(*given, **more)

    monkeypatch.setattr(sampler, "candidates", watched)
    history = observed(joint, 8, lambda one: one[LR] / 4)
    with threadpool_limits(2):
        by_model(joint, history, 3)
    assert threads and set(threads) == {1}


def test_a_failed_trial_drives_the_model_away(conditional):
    """High mixes fail after a first rung with good values."""
    history = [
        replace(one, failed=one.params.get(MIX, 0) > 0.5)
        for one in observed(conditional, 40, lambda one: one.get(MIX, 0.0))
    ]
    proposals = by_model(conditional, history, 15)
    assert np.mean([one.get(MIX, 0.0) > 0.55 for one in proposals]) < 0.2


def test_a_narrowed_space_is_kept_to(joint):
    history = observed(joint, 40, lambda one: one[LR] / 4)
    data = {**joint.data, "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 1.0}}}}
    for number in range(5):
        assert propose(load_space(data), history, seed=0, number=number).params[LR] <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 40], ids=["random", "model"])
def test_no_proposal_is_plain_cross_entropy_where_the_space_holds_more(joint, count):
    history = observed(joint, count, lambda one: float(one["loss/jaccard"] == "off"))
    drawn = [stratified(joint, seed=0, number=number) for number in range(50)]
    assert any(is_neutral(joint, params) for params in drawn)
    for number in range(50):
        assert not is_neutral(joint, propose(joint, history, seed=0, number=number).params)


def test_a_space_of_cross_entropy_alone_is_searched_all_the_same(joint):
    only = joint.reference
    assert is_neutral(only, propose(only, [], seed=0, number=0).params)


def test_the_random_sampler_ignores_the_history(joint):
    history = observed(joint, 30, lambda one: one[LR] / 4)
    for number in range(10):
        proposal = propose(joint, history, seed=0, number=number, sampler="random")
        assert proposal == propose(joint, [], seed=0, number=number, sampler="random")
        plain = stratified(joint, seed=0, number=number)
        assert proposal.params == plain or is_neutral(joint, plain)


def test_a_grid_takes_each_point_once_and_has_an_end():
    space = load_space("baselines")
    history: list[Observation] = []
    points = len(space.grid)
    for number in range(points):
        proposal = propose(space, history, seed=0, number=number, sampler="grid")
        history.append(Observation(proposal.params, running=True))
    assert [one.params for one in history] == space.grid
    with pytest.raises(ValueError, match=f"{points} points"):
        propose(space, history, seed=0, number=points, sampler="grid")


def test_the_plan_can_say_when_the_model_takes_over():
    assert model_takes_over_at(0) == 7
    assert model_takes_over_at(5, slots=3) == 4
    assert model_takes_over_at(40) == 1
