"""What was tried to tune cross entropy, and the line that says it."""

from __future__ import annotations

import math

import pytest

from study.analysis.tuning import INSIDE, RANGE_EDGE, TRIED_EDGE, tried, tuning
from study.core.names import BASELINE, COMPLETED, FAILED, REFERENCE, SEARCH
from study.ledger.records import EndRecord, ReportRecord, StudyRecord, TrialRecord
from study.ledger.state import State
from study.reporting.tables import tuning_line

SPACE = {"optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 4.0, "log": True}}}}


def study_of(*rows: tuple[float, float | None], references: int = 4) -> State:
    """Cross entropies by lr_scale and val mIoU: None is unfinished, NaN has failed."""
    state = State()
    plan = {"reference_trials": references, "baselines": ["ce"]}
    state.apply(StudyRecord("s", 0, "t", {}, "x", SPACE, plan, {}, {}))
    for number, (scale, miou) in enumerate(rows):
        name, stage = f"t{number:04d}", REFERENCE if number else BASELINE
        config = {"optimizer": {"lr_scale": scale}}
        state.apply(TrialRecord(name, number, stage, "ce", "ce", None, config, 0))
        if miou is not None:
            state.apply(ReportRecord(name, 0, 1, {"val/miou": miou}))
            status = FAILED if math.isnan(miou) else COMPLETED
            state.apply(EndRecord(name, status, "", 1))
    return state


@pytest.mark.parametrize(
    ("rows", "best", "line"),
    [
        (
            ((1.0, 0.4), (2.0, 0.42), (4.0, 0.41), (2.82843, 0.43), (0.5, 0.3)),
            INSIDE,
            "5 learning rates: x0.5 30.0, x1 40.0, x2 42.0, x2.83 43.0, x4 41.0",
        ),
        (
            ((1.0, 0.4), (2.0, 0.42), (4.0, 0.43), (2.8, 0.42), (3.4, math.nan)),
            RANGE_EDGE,
            "4 of 5 learning rates: x1 40.0, x2 42.0, x2.8 42.0, x3.4 failed or stopped, x4 43.0; "
            "best at the edge of the range: a wider one may make it better, and every gain smaller",
        ),
        (
            ((1.0, 0.4), (2.0, 0.42), (0.5, None)),
            TRIED_EDGE,
            "2 of 5 learning rates: x0.5 unfinished, x1 40.0, x2 42.0; "
            "best at the edge of what was tried: one beyond may make it better, and every gain "
            "smaller",
        ),
        (((1.0, None),), None, "0 of 5 learning rates: x1 unfinished"),
    ],
)
def test_what_was_tried_is_told_in_one_line(
    rows: tuple[tuple[float, float | None], ...], best: str | None, line: str
) -> None:
    found = tuning(study_of(*rows))
    assert found is not None
    assert found.best == best
    assert tuning_line(found) == f"cross entropy tuned over {line}"


def test_cross_entropies_of_every_stage_count_but_other_losses_do_not() -> None:
    state = study_of((1.0, 0.4))
    for name, family in (("a", "ce"), ("b", "recall")):
        config = {"optimizer": {"lr_scale": 2.0}}
        state.apply(TrialRecord(name, 1, SEARCH, name, family, None, config, 0))
    assert [one.value for one in tried(state)] == [0.4, None]


def test_nothing_is_told_where_no_plan_asks_for_it() -> None:
    assert tuning(State()) is None
    assert tuning(study_of((1.0, 0.4), references=0)) is None


def test_without_a_value_nothing_is_best() -> None:
    found = tuning(study_of((1.0, math.nan), (2.0, None)))
    assert found is not None
    assert (found.best, found.completed, found.planned) == (None, 0, 5)
