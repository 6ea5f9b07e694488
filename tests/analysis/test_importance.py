from __future__ import annotations

import random
from typing import Any

import pytest

from study.analysis.importance import importances
from study.ledger.records import ReportRecord, RungRecord, StudyRecord, TrialRecord
from study.ledger.state import State


def state_of(num_trials: int, *, at_rung: bool = True) -> State:
    """The value rises with `loss/mix` where the choice is `on`; `optimizer/lr_scale` is noise."""
    rng = random.Random(0)
    state = State()
    plan = {"rungs": [3] if at_rung else []}
    state.apply(StudyRecord("s", 0, "t", {}, "x", {}, plan, {}, {}))
    for number in range(num_trials):
        choice, mix = rng.choice(["on", "off"]), rng.random()
        params = {"loss": choice, "optimizer/lr_scale": rng.random()}
        params |= {"loss/mix": mix} if choice == "on" else {}
        result = 0.5 + 0.3 * mix if choice == "on" else 0.5
        trial = f"t{number}"
        state.apply(TrialRecord(trial, number, "search", "", "", params, {}, 0))
        state.apply(ReportRecord(trial, 0, 3, {"val/miou": result if not at_rung else 0.0}))
        if at_rung:
            state.apply(RungRecord(trial, 3, "main", {"val/miou": result}, True, ""))
    return state


def with_trials(trials: list[tuple[dict[str, Any], float]]) -> State:
    state = State()
    state.apply(StudyRecord("s", 0, "t", {}, "x", {}, {"rungs": [3]}, {}, {}))
    for number, (params, value) in enumerate(trials):
        state.apply(TrialRecord(f"t{number}", number, "search", "", "", params, {}, 0))
        state.apply(RungRecord(f"t{number}", 3, "main", {"val/miou": value}, True, ""))
    return state


def noise(num_trials: int, seed: int) -> State:
    rng = random.Random(seed)
    params = [{f"p{index}": rng.random() for index in range(7)} for _ in range(num_trials)]
    return with_trials([(one, rng.gauss(0, 1)) for one in params])


@pytest.mark.slow
def test_what_moves_the_value_comes_before_what_does_not() -> None:
    for at_rung in (True, False):
        found = importances(state_of(40, at_rung=at_rung), "val/miou")
        assert found is not None and found.num_trials == 40
        assert 0.5 < found.r2 < 1
        means = {item.path: item.mean for item in found.items}
        assert found.items[0].path == "loss/mix"
        assert means["optimizer/lr_scale"] < 0.1 * means["loss/mix"]


@pytest.mark.slow
@pytest.mark.parametrize("num_trials", [16, 60])
def test_noise_has_no_importance(num_trials: int) -> None:
    """On the trials that it was grown on, a forest finds a bar of 0.2 to 0.9 in noise."""
    silent = 0
    for seed in range(6):
        found = importances(noise(num_trials, seed), "val/miou")
        assert found is not None
        silent += not found.items
    assert silent >= 5


@pytest.mark.slow
def test_what_is_lost_without_all_parameters_is_what_is_explained() -> None:
    """With one parameter, to shuffle it leaves predictions that know nothing: R2 of about -R2."""
    rng = random.Random(1)
    xs = [rng.random() for _ in range(200)]
    state = with_trials([({"loss/mix": x}, x) for x in xs])
    found = importances(state, "val/miou")
    assert found is not None
    (item,) = found.items
    assert found.r2 == pytest.approx(1, abs=0.01)
    assert item.mean == pytest.approx(2, abs=0.15)


def test_a_handful_of_trials_says_nothing() -> None:
    assert importances(state_of(9), "val/miou") is None
    assert importances(state_of(40), "val/unknown") is None
    assert importances(State(), "val/miou") is None
