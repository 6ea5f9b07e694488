"""What a search could still find, where it is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from study.search.gain import expected_gain, expected_gains
from study.search.history import History, Observation
from study.search.sampler import stratified
from study.space.search_space import SearchSpace
from study.space.tree_space import load_any

RANGE = {"float": {"low": 0.0, "high": 1.0}}
EPOCHS = 9
Worth = Callable[[float, float], float]


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return load_any({"x": RANGE, "y": RANGE, "study": {"objectives": ["objective"]}})


def trials(space: SearchSpace, worth: Worth, count: int, noise: float = 0.0) -> History:
    rng = np.random.default_rng(1)
    points = [stratified(space, seed=4, number=number) for number in range(count)]
    values = [worth(one["x"], one["y"]) + noise * rng.normal() for one in points]
    ends = [{EPOCHS: {"objective": value}} for value in values]
    return History(space, [Observation(p, end) for p, end in zip(points, ends, strict=True)])


def hill(x: float, y: float) -> float:
    return float(np.exp(-8 * ((x - 0.7) ** 2 + (y - 0.4) ** 2)))


def gain(history: History, top: int = 1) -> float:
    (found,) = expected_gains(history, epochs=EPOCHS, top=top, salt=(0, len(history)))
    assert 0 <= found.expected <= found.likely
    return found.expected


def test_it_falls_as_the_hill_is_known(space: SearchSpace) -> None:
    few, many = trials(space, hill, 12), trials(space, hill, 100)
    _, ends = many.ends(EPOCHS)
    assert gain(few) > 2 * gain(many) > 0
    assert 0.5 * (1 - ends.max()) < gain(many) < 0.1


def test_it_is_in_the_unit_of_the_objective_and_the_same_each_time(space: SearchSpace) -> None:
    once = trials(space, hill, 20)
    tenth = trials(space, lambda x, y: 5 + hill(x, y) / 10, 20)
    assert gain(once) == gain(once)
    assert gain(tenth) == pytest.approx(gain(once) / 10, rel=1e-6)


def test_trials_that_do_not_differ_say_nothing(space: SearchSpace) -> None:
    """As the IoU of a class that none has found yet: that is no reason to stop looking."""
    flat = trials(space, lambda x, y: 0.0, 20)
    assert expected_gains(flat, epochs=EPOCHS, top=1, salt=(0,)) == []


def test_trials_that_failed_are_none_of_those_that_it_waits_for(space: SearchSpace) -> None:
    """Where most diverge, the few that did not look equal, and equally good."""
    points = [stratified(space, seed=4, number=number) for number in range(20)]

    def history(finished: int) -> History:
        ended = [
            Observation(one, {EPOCHS: {"objective": hill(one["x"], one["y"])}})
            for one in points[:finished]
        ]
        diverged = [
            Observation(one, {3: {"objective": float("nan")}}, failed=number % 2 > 0)
            for number, one in enumerate(points[finished:])
        ]
        return History(space, [*ended, *diverged])

    for finished in (1, 11):
        assert expected_gains(history(finished), epochs=EPOCHS, top=1, salt=(0,)) == []
    assert gain(history(12)) > 0


def test_what_the_confirmation_would_find_among_the_trials_is_no_gain(space: SearchSpace) -> None:
    noisy = trials(space, hill, 40, noise=0.3)
    assert gain(noisy, top=10) < gain(noisy, top=3) < gain(noisy, top=1)


def test_nothing_is_said_of_few_trials_or_before_one_has_come_to_its_end(
    space: SearchSpace,
) -> None:
    assert expected_gains(trials(space, hill, 11), epochs=EPOCHS, top=1, salt=(0,)) == []
    points = [stratified(space, seed=4, number=number) for number in range(20)]
    on_a_rung = [Observation(one, {3: {"objective": 0.1}}) for one in points]
    assert expected_gains(History(space, on_a_rung), epochs=EPOCHS, top=1, salt=(0,)) == []


def test_a_stopped_trial_ends_where_those_that_went_on_would_have_put_it(
    space: SearchSpace,
) -> None:
    points = [stratified(space, seed=4, number=number) for number in range(8)]
    went_on = [
        Observation(one, {3: {"objective": 0.1 * k}, EPOCHS: {"objective": 0.1 * k + 0.2}})
        for k, one in enumerate(points[:5])
    ]
    stopped = Observation(points[5], {3: {"objective": 0.35}})
    failed = Observation(points[6], {3: {"objective": 0.9}}, failed=True)
    running = Observation(points[7], running=True)
    rows, ends = History(space, [*went_on, stopped, failed, running]).ends(EPOCHS)
    assert len(rows) == len(ends) == 7, "a trial that was never judged has no end"
    assert ends[5, 0] == pytest.approx(0.55)
    floor = np.quantile([0.2, 0.3, 0.4, 0.5, 0.6, 0.55], 0.25)
    assert ends[6, 0] == pytest.approx(floor), "a failed trial is no better than a bad one"
    assert ends[:, 0].min() == pytest.approx(floor)


def test_a_draw_never_loses_to_what_is_there(space: SearchSpace) -> None:
    history = trials(space, hill, 15)
    rows, ends = history.ends(EPOCHS)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found = expected_gain(rows, ends[:, 0], history.encoder, rng, top=15)
        assert found.expected >= 0
