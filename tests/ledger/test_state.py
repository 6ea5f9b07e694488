"""What the state counts as lines come is what a walk over its trials gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledgers import make_study

from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH
from study.ledger.journal import LEDGER, read
from study.ledger.state import State

STAGES = (BASELINE, REFERENCE, SEARCH, CONFIRM)


def test_counts_and_lists_are_those_of_a_walk(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "one")
    state = State()
    for record in read(folder / LEDGER):
        state.apply(record)
        trials = list(state.trials.values())
        assert state.unfinished() == [trial for trial in trials if trial.end is None]
        assert state.num_epochs == sum(len(trial.reports) for trial in trials)
        for stages in ((SEARCH,), (SEARCH, REFERENCE), (CONFIRM, BASELINE), STAGES, ()):
            of_stage = [trial for trial in trials if trial.stage in stages]
            assert state.of_stage(*stages) == of_stage
            assert state.count(*stages) == len(of_stage)
    assert len(trials) > 30


def test_gpu_seconds_are_those_of_all_trials(tmp_path: Path) -> None:
    from study.ledger.records import ReportRecord, TrialRecord

    state = State()
    for number, gpus in enumerate((0.5, 1.0, 0.0)):
        trial = f"t{number}"
        state.apply(TrialRecord(trial, number, SEARCH, "", "recall", None, {}, 0, gpus=gpus))
        for epoch in (1, 2, 2):
            state.apply(ReportRecord(trial, 0, epoch, {"time/epoch_s": 3.0}))
    assert state.gpu_s == sum(trial.gpu_s for trial in state.trials.values())
    assert state.gpu_s == pytest.approx(3 * 3.0 * 1.5)


def test_epochs_that_were_trained_again_cost_gpu_seconds_too() -> None:
    from study.ledger.records import ReportRecord, TrialRecord

    state = State()
    state.apply(TrialRecord("t0", 0, SEARCH, "", "recall", None, {}, 0, gpus=0.5))
    state.apply(ReportRecord("t0", 0, 1, {"time/epoch_s": 3.0, "time/again_s": 8.0}))
    assert state.gpu_s == state.trials["t0"].gpu_s == 5.5


def test_the_most_slots_are_those_of_any_session_or_change_of_the_cluster() -> None:
    from study.ledger.records import NodesRecord, SessionRecord, decode, encode

    state = State()
    assert state.most_slots == 0
    state.apply(SessionRecord(0, "there", 2, 1.0, 0.0, ""))
    for slots in (5, 0, 3):
        change = NodesRecord(slots, slots, "node a has joined")
        assert decode(encode(change)) == change
        state.apply(change)
    assert state.most_slots == 5
    assert [change.slots for change in state.nodes] == [5, 0, 3]
