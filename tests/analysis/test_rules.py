from __future__ import annotations

from pathlib import Path

from ledgers import make_study

from study.analysis.rules import ARGMAX, TUNED, rules_of
from study.ledger.records import ReportRecord
from study.ledger.state import State
from study.storage.studies import load


def test_a_study_whose_trials_measured_the_tuned_rules_has_two_columns(tmp_path: Path) -> None:
    assert rules_of(load(make_study(tmp_path / "new", until="baselines", rules=True))) == (
        TUNED,
        ARGMAX,
    )
    assert rules_of(load(make_study(tmp_path / "old", until="baselines"))) == (ARGMAX,)
    assert rules_of(State()) == (ARGMAX,)


def test_one_trial_without_the_tuned_rules_leaves_the_argmax(tmp_path: Path) -> None:
    state = load(make_study(tmp_path / "new", until="baselines", rules=True))
    state.apply(ReportRecord("t0002", 0, 9, {"val/miou": 0.5, "val/macc": 0.6}))
    assert rules_of(state) == (ARGMAX,)
