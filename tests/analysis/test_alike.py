"""Trainings of the user's own: equal numbers of unequal settings, and what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from own_trainings import task

from study.analysis.alike import MOST, alike
from study.analysis.answer import answer
from study.analysis.rules import rules_of
from study.config.task import load_task
from study.core.names import BASELINE, CE, CONFIRM, SEARCH
from study.ledger.records import EndRecord, ReportRecord, SelectRecord, StudyRecord, TrialRecord
from study.ledger.state import State

FOCAL: dict[str, Any] = {"focal_gamma": 2.0}
PLAN: dict[str, Any] = {"epochs": 2, "objectives": ["val/miou"], "confirm_seeds": 3}


def studied(own: bool = True) -> State:
    state = State()
    config = load_task(task() if own else "tiny").config
    tree = config.model_dump(mode="json")
    state.apply(StudyRecord("s", 0, "task", tree, "space", {}, PLAN, {"fingerprint": "x"}, {}))
    return state


def add(
    state: State,
    loss: dict[str, Any],
    values: list[float],
    *,
    lr_scale: float = 1.0,
    seed: int = 0,
    stage: str = SEARCH,
    source: str | None = None,
    more: dict[str, float] | None = None,
) -> str:
    name = f"t{len(state.trials):04d}"
    config = {"loss": loss, "optimizer": {"lr_scale": lr_scale}}
    family = CE if not loss else "focal"
    state.apply(TrialRecord(name, 0, stage, name, family, None, config, seed, source=source))
    for epoch, value in enumerate(values, 1):
        metrics = {"val/miou": value, "time/epoch_s": 1.0 + len(state.trials), **(more or {})}
        if stage == CONFIRM and epoch == len(values):
            metrics["test/miou"] = value
        state.apply(ReportRecord(name, 0, epoch, metrics))
    state.apply(EndRecord(name, "completed", "", len(values)))
    return name


def test_a_loss_that_is_only_measured_hides_nothing() -> None:
    state = studied()
    for loss, value in (({}, 0.7), (FOCAL, 0.3)):  # of the trial's loss, which trains nothing
        add(state, loss, [0.25, 0.5], more={"val/loss": value})
    assert len(alike(state)) == 1


def test_equal_classes_with_other_probabilities_are_not_alike() -> None:
    state = studied()
    for loss, value in (({}, 0.7), (FOCAL, 0.3)):
        add(state, loss, [0.25, 0.5], more={"val/nll": value})
    assert alike(state) == []


@pytest.mark.parametrize(
    ("second", "is_told"),
    [
        ({"loss": FOCAL}, True),
        ({"loss": {}, "lr_scale": 2.0}, True),
        ({"loss": {}}, False),
        ({"loss": {"focal_gamma": 0.0}}, False),
        ({"loss": FOCAL, "seed": 1}, False),
        ({"loss": FOCAL, "values": [0.1, 0.3]}, False),
        ({"loss": FOCAL, "values": [0.1]}, True),
    ],
)
def test_equal_curves_of_unequal_settings_are_told_of(
    second: dict[str, Any], is_told: bool
) -> None:
    state = studied()
    add(state, {}, [0.1, 0.2])
    add(state, **{"values": [0.1, 0.2], **second})
    assert bool(alike(state)) is is_told


def test_equal_curves_of_unequal_seeds_are_told_of() -> None:
    state = studied()
    for seed, value in ((0, 0.2), (1, 0.2), (2, 0.3)):
        add(state, FOCAL, [0.1, value], seed=seed, stage=CONFIRM)
    (line,) = alike(state)
    assert line.startswith("t0000 (t0000) and t0001 (t0001) report the same numbers")
    assert line.endswith("If not, the intervals over seeds say nothing")


def test_it_is_said_of_trainings_of_the_users_own_alone() -> None:
    state = studied(own=False)
    add(state, {}, [0.1])
    add(state, FOCAL, [0.1])
    assert alike(state) == []


def test_a_few_pairs_are_named_and_the_others_counted() -> None:
    state = studied()
    for gamma in range(5):
        add(state, {"focal_gamma": float(gamma)}, [0.1])
    lines = alike(state)
    assert len(lines) == MOST + 1
    assert lines[0].startswith("t0000 (t0000) and t0001 (t0001) report the same numbers")
    assert lines[-1] == "5 more pairs of trials are equal like these"


def confirmed(macc: bool) -> State:
    state = studied()
    first, second = add(state, {}, [0.1, 0.2], stage=BASELINE), add(state, FOCAL, [0.1, 0.4])
    state.apply(SelectRecord([second], first, first))
    for seed in (1, 2, 3):
        for source, value in ((first, 0.2), (second, 0.4)):
            loss = {} if source == first else FOCAL
            add(state, loss, [0.1, value + seed / 100], seed=seed, stage=CONFIRM, source=source)
    if macc:
        state.apply(TrialRecord("t0099", 9, SEARCH, "x", CE, None, {}, 0))
        state.apply(ReportRecord("t0099", 0, 1, {"val/macc": 0.5}))
    return state


def test_without_mean_accuracy_the_answer_is_by_miou_alone(tmp_path: Path) -> None:
    state = confirmed(macc=False)
    (rule,) = rules_of(state)
    assert rule.judged == ("test/miou",)
    found = answer(state, tmp_path)
    assert found.confirmed and (found.best_miou, found.best_macc) == ("t0001", None)
    assert "nothing is best by mean accuracy: the training does not report it" in found.notes
    assert "nothing is said of what decision rules do: the training does not report it" in (
        found.notes
    )


def test_with_mean_accuracy_anywhere_it_is_asked_of_all(tmp_path: Path) -> None:
    state = confirmed(macc=True)
    (rule,) = rules_of(state)
    assert rule.judged == ("test/miou", "test/macc")
    assert not any("mean accuracy" in note for note in answer(state, tmp_path).notes)
