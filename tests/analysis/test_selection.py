from __future__ import annotations

from pathlib import Path

import pytest
from ledgers import make_study

from study.analysis.selection import default_ce_trial, keeps_miou, reference_trial, select
from study.core.names import BASELINE, COMPLETED, REFERENCE, SEARCH, STOPPED_EARLY
from study.ledger.records import EndRecord, ReportRecord, StudyRecord, TrialRecord
from study.ledger.state import State
from study.storage.studies import load


def state_of(
    *rows: tuple[str, str, str, float, float], objectives: list[str] | None = None
) -> State:
    """Rows are (id, stage, family, val mIoU, val mean accuracy); ids x.1 and x.2 share a config."""
    state = State()
    plan = {"objectives": objectives or ["val/miou", "val/macc"]}
    state.apply(StudyRecord("s", 0, "t", {}, "x", {}, plan, {}, {}))
    for number, (trial, stage, family, miou, macc) in enumerate(rows):
        config = {"loss": trial.split(".")[0], "seed": number}
        state.apply(TrialRecord(trial, number, stage, family, family, None, config, number))
        state.apply(ReportRecord(trial, 0, 1, {"val/miou": 0.99, "val/macc": 0.99}))
        state.apply(ReportRecord(trial, 0, 2, {"val/miou": miou, "val/macc": macc}))
        state.apply(EndRecord(trial, COMPLETED, "full budget", 2))
    return state


CE = ("ce", BASELINE, "ce", 0.50, 0.60)
TUNED_CE = ("tuned", REFERENCE, "ce", 0.52, 0.61)


def test_the_objectives_take_turns() -> None:
    state = state_of(
        CE, TUNED_CE,
        ("a", SEARCH, "recall", 0.60, 0.65),
        ("b", SEARCH, "recall", 0.58, 0.70),
        ("c", BASELINE, "jaccard", 0.59, 0.60),
        ("d", SEARCH, "recall", 0.53, 0.90),
    )  # fmt: skip
    assert select(state, top=4).confirmed == ["a", "d", "c", "b"]


def test_both_cross_entropies_are_named_and_never_among_the_chosen() -> None:
    record = select(state_of(CE, TUNED_CE, ("a", SEARCH, "recall", 0.4, 0.5)), top=3)
    assert (record.reference, record.default_ce, record.confirmed) == ("tuned", "ce", ["a"])


def test_the_two_best_cross_entropies_of_different_settings_are_confirmed() -> None:
    state = state_of(
        CE,
        ("low.1", REFERENCE, "ce", 0.53, 0.6),
        ("low.2", REFERENCE, "ce", 0.53, 0.6),
        ("high", SEARCH, "ce", 0.51, 0.6),
    )
    record = select(state, top=1)
    assert (record.reference, record.runner_up, record.default_ce) == ("low.1", "high", "ce")
    assert record.sources == ["low.1", "high", "ce"]
    assert select(state_of(CE), top=1).runner_up is None


@pytest.mark.parametrize(("key", "expected"), [("val/tuned/miou", "b"), ("val/other", "a")])
def test_cross_entropies_are_ranked_at_the_tuned_rule_where_all_report_it(
    key: str, expected: str
) -> None:
    state = state_of(("a", BASELINE, "ce", 0.5, 0.6), ("b", REFERENCE, "ce", 0.4, 0.6))
    for trial, tuned in (("a", 0.6), ("b", 0.7)):
        values = {"val/miou": state.trials[trial].last["val/miou"], key: tuned}
        state.apply(ReportRecord(trial, 0, 3, values))
    assert select(state, top=1).reference == expected


def test_the_default_cross_entropy_is_the_reference_when_tuning_did_not_help() -> None:
    record = select(state_of(CE, ("tuned", REFERENCE, "ce", 0.49, 0.6)), top=1)
    assert (record.reference, record.default_ce) == ("ce", "ce")


def test_a_mean_accuracy_bought_with_miou_is_not_chosen() -> None:
    state = state_of(
        TUNED_CE,
        ("a", SEARCH, "recall", 0.60, 0.65),
        ("bought", SEARCH, "recall", 0.514, 0.95),
        ("kept", SEARCH, "recall", 0.516, 0.90),
    )
    assert select(state, top=2).confirmed == ["a", "kept"]


def test_the_turn_of_mean_accuracy_goes_to_miou_when_nothing_keeps_it() -> None:
    state = state_of(
        TUNED_CE,
        ("a", SEARCH, "recall", 0.50, 0.65),
        ("b", SEARCH, "recall", 0.40, 0.95),
        ("c", SEARCH, "recall", 0.45, 0.66),
    )
    assert select(state, top=2).confirmed == ["a", "c"]


def test_equal_configs_are_confirmed_once() -> None:
    state = state_of(
        TUNED_CE,
        ("a.1", SEARCH, "recall", 0.60, 0.65),
        ("a.2", SEARCH, "recall", 0.59, 0.64),
        ("b", SEARCH, "recall", 0.55, 0.60),
    )
    assert select(state, top=2).confirmed == ["a.1", "b"]


def test_stopped_trials_and_missing_values_are_no_candidates() -> None:
    state = state_of(
        TUNED_CE,
        ("nan", SEARCH, "recall", float("nan"), 0.9),
        ("stopped", SEARCH, "recall", 0.9, 0.9),
        ("a", SEARCH, "recall", 0.53, 0.62),
    )
    state.apply(EndRecord("stopped", STOPPED_EARLY, "below the top third", 2))
    assert select(state, top=3).confirmed == ["a"]


def test_one_objective_alone_is_walked_by_rank() -> None:
    rows = [("a", SEARCH, "recall", 0.6, 0.6), ("b", SEARCH, "recall", 0.5, 0.9)]
    state = state_of(TUNED_CE, *rows, ("c", SEARCH, "recall", 0.55, 0.1), objectives=["val/miou"])
    assert select(state, top=2).confirmed == ["a", "c"]


def test_a_study_with_measured_rules_is_selected_at_them() -> None:
    rows = [
        (CE, 0.56, 0.70),
        (TUNED_CE, 0.55, 0.72),
        (("a", SEARCH, "recall", 0.60, 0.70), 0.57, 0.73),
        (("b", SEARCH, "recall", 0.51, 0.60), 0.61, 0.71),
        (("bought", SEARCH, "recall", 0.60, 0.75), 0.554, 0.90),
        (("kept", SEARCH, "recall", 0.50, 0.60), 0.556, 0.80),
    ]
    state = state_of(
        *(row for row, *_ in rows), objectives=["val/tuned/miou", "val/tuned_macc/macc"]
    )
    for (trial, *_, miou, macc), tuned, tuned_macc in rows:
        measured = {"val/miou": miou, "val/macc": macc, "val/tuned/miou": tuned}
        measured |= {"val/tuned_macc/macc": tuned_macc}
        state.apply(ReportRecord(trial, 0, 3, measured))
    record = select(state, top=3)
    assert (record.reference, record.confirmed) == ("ce", ["b", "kept", "a"])


def test_without_any_trial_nothing_is_chosen() -> None:
    record = select(State(), top=2)
    assert (record.confirmed, record.reference, record.default_ce) == ([], None, None)


def test_without_cross_entropy_mean_accuracy_is_free() -> None:
    state = state_of(("a", SEARCH, "recall", 0.6, 0.6), ("b", SEARCH, "recall", 0.1, 0.9))
    assert select(state, top=2).confirmed == ["a", "b"]


@pytest.mark.parametrize(("miou", "kept"), [(0.515, True), (0.5149, False), (0.6, True)])
def test_half_a_point_of_miou_may_be_given_up(miou: float, kept: bool) -> None:
    assert keeps_miou(miou, 0.52) is kept


def test_a_written_study_names_its_tuned_cross_entropy(tmp_path: Path) -> None:
    state = load(make_study(tmp_path / "demo", until="search"))
    reference, stated = reference_trial(state), default_ce_trial(state)
    assert reference is not None and reference.stage == REFERENCE
    assert stated is not None and stated.stage == BASELINE
    assert reference.last["val/miou"] >= stated.last["val/miou"]
