from __future__ import annotations

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from ledgers import make_study

from study.analysis.pareto import front, pareto_trials
from study.analysis.selection import value
from study.core.names import COMPLETED, CONFIRM
from study.storage.studies import load


def test_only_points_that_none_beats_are_on_the_front() -> None:
    points = {"a": (3, 1), "b": (2, 2), "c": (1, 3), "d": (2, 1), "e": (1, 1), "f": (2, 2)}
    assert front(points) == ["a", "b", "f", "c"]


def test_points_with_nan_take_no_part() -> None:
    assert front({"a": (math.nan, 9.0), "b": (1.0, 1.0)}) == ["b"]
    assert front({}) == []


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_every_point_is_on_the_front_or_beaten_by_one_that_is(rows: list[tuple[int, int]]) -> None:
    points = {str(index): row for index, row in enumerate(rows)}
    kept = front(points)
    for name, point in points.items():
        beaten = any(
            points[k] != point and points[k][0] >= point[0] and points[k][1] >= point[1]
            for k in kept
        )
        assert beaten != (name in kept)


def test_the_front_of_a_study_is_of_full_budget_trials_of_one_seed(tmp_path: Path) -> None:
    state = load(make_study(tmp_path / "demo"))
    kept = pareto_trials(state, ("val/miou", "val/macc"))
    assert kept
    assert all(trial.status == COMPLETED and trial.stage != CONFIRM for trial in kept)
    best = max(value(t, "val/macc") for t in state.completed("baseline", "reference", "search"))
    assert best in [value(trial, "val/macc") for trial in kept]
