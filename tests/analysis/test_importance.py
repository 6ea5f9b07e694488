from __future__ import annotations

import random

from study.analysis.importance import importances
from study.ledger import State
from study.records import ReportRecord, RungRecord, StudyRecord, TrialRecord


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


def test_what_moves_the_value_comes_before_what_does_not() -> None:
    for at_rung in (True, False):
        found = importances(state_of(40, at_rung=at_rung), "val/miou")
        means = {item.path: item.mean for item in found}
        assert found[0].path == "loss/mix"
        assert means["optimizer/lr_scale"] < 0.1 * means["loss/mix"]


def test_a_handful_of_trials_says_nothing() -> None:
    assert importances(state_of(9), "val/miou") == []
    assert importances(state_of(40), "val/unknown") == []
    assert importances(State(), "val/miou") == []
