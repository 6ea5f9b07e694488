"""A search that ends before its number of trials, because it promises no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulated_driver import Continued, Driver, judged
from study_in_memory import Study, plan

from study.analysis.answer import answer, ended_line
from study.core.errors import InputError
from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH
from study.ledger.journal import LEDGER, read, replay
from study.ledger.plan import Plan
from study.ledger.records import AmendRecord, SearchEndRecord, SelectRecord, decode, encode
from study.reporting.live import Progress
from study.scheduler.stages import RunReference, RunSearch, Select, left_out
from study.space.search_space import load_space

MIOU, MACC = "val/tuned/miou", "val/tuned_macc/macc"


def space(gain_below: float | None, **study: Any) -> dict[str, Any]:
    data = dict(load_space("joint").data)
    stop = None if gain_below is None else {"gain_below": gain_below}
    return {**data, "study": {**data["study"], "num_trials": 24, "stop_when": stop, **study}}


@pytest.mark.slow
def test_the_search_ends_where_no_gain_is_expected_and_the_study_goes_on(tmp_path: Path) -> None:
    Driver(tmp_path, judged, slots=2, space=space(100)).run()
    state = replay(tmp_path / LEDGER)
    assert state.finished and state.search_end is not None and state.study is not None
    of_all = state.study.plan["reference_trials"]
    assert state.count(REFERENCE) == of_all == 6, "cross entropy is tuned as ever"
    assert state.search_end.searched < 20, "12 judged trials are enough"
    proposed = [one.number for one in state.of_stage(SEARCH)]
    begun = [one.number for one in state.of_stage(BASELINE, REFERENCE, SEARCH)]
    assert max(proposed) < sorted(begun)[len(state.of_stage(BASELINE)) + state.search_end.searched]
    assert state.count(CONFIRM) > 0
    kinds = [record.kind for record in read(tmp_path / LEDGER)]
    assert kinds.count("search_end") == 1 and kinds.count("select") == 1
    assert left_out(Plan.from_dict(state.study.plan), state) == []


@pytest.mark.slow
def test_a_search_that_promises_more_is_the_one_without_the_setting(tmp_path: Path) -> None:
    Driver(tmp_path / "a", judged, slots=2, space=space(1e-6)).run()
    Driver(tmp_path / "b", judged, slots=2, space=space(None)).run()
    with_it, without = (replay(tmp_path / name / LEDGER) for name in "ab")
    assert with_it.search_end is None and with_it.count(SEARCH, REFERENCE) == 24
    assert [t.params for t in with_it.trials.values()] == [
        t.params for t in without.trials.values()
    ]


@pytest.mark.slow
def test_a_driver_that_is_killed_at_any_time_comes_to_the_same(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    Driver(whole, judged, space=space(100)).run()
    expected = replay(whole / LEDGER)
    for reports in (60, 95):
        folder = tmp_path / str(reports)
        Driver(folder, judged, space=space(100)).run(kill_after=reports)
        Driver(folder, judged, space=space(100)).run()
        state = replay(folder / LEDGER)
        assert state.finished and len(state.trials) == len(expected.trials)
        assert {(t.stage, str(t.params)) for t in state.trials.values()} == {
            (t.stage, str(t.params)) for t in expected.trials.values()
        }


@pytest.mark.slow
def test_more_trials_are_searched_after_an_end_as_many_as_were_asked_for(tmp_path: Path) -> None:
    Driver(tmp_path, judged, slots=2, space=space(100)).run()
    before = replay(tmp_path / LEDGER)
    session = Continued(tmp_path, 8, slots=2, space=space(100))
    assert session.ledger.state.search_end is None, "the space may now promise more"
    session.run()
    state = replay(tmp_path / LEDGER)
    assert state.finished
    added = state.count(SEARCH, REFERENCE) - before.count(SEARCH, REFERENCE)
    assert 0 <= added <= 8
    kinds = [type(record) for record in read(tmp_path / LEDGER)]
    assert kinds.count(AmendRecord) == 1 and kinds.count(SelectRecord) == 2
    assert kinds.count(SearchEndRecord) == 2, "and ends again as it promises no more"


def test_the_trials_of_cross_entropy_that_are_left_come_in_their_order() -> None:
    the_plan = plan(num_trials=16, reference_trials=4, baselines=())
    places = [index for index in range(16) if the_plan.is_reference(index)]
    study = Study(the_plan)
    for index in range(6):
        stage = REFERENCE if the_plan.is_reference(index) else SEARCH
        study.finish(study.add(stage, str(index)))
    assert isinstance(study.next(), RunSearch)
    study.state.apply(SearchEndRecord(6, {MIOU: 0.1}, {MIOU: 0.3}))
    left = [place for place in places if place >= 6]
    assert the_plan.search_size(6) == 6 + len(left)
    assert left_out(the_plan, study.state)[0] == f"{len(left)} of {6 + len(left)} searched"
    progress = Progress(the_plan, study.state)
    assert progress.left[0] == len(left) * 4 + the_plan.confirm_trials * 4
    for place in left:
        action = study.next()
        assert action == RunReference(place)
        study.finish(study.add(REFERENCE, str(place)))
    assert study.next() == Select()


def test_it_says_why_it_ended_and_what_it_may_have_missed(tmp_path: Path) -> None:
    record = SearchEndRecord(14, {MIOU: 0.42, MACC: 0.1}, {MIOU: 1.31, MACC: 0.2})
    the_plan = replace(plan(num_trials=24, reference_trials=0), stop_gain=0.5)
    said = ended_line(the_plan, record)
    assert "after 14 of 24 trials" in said and "less than the 0.5" in said
    assert f"0.4 points of {MIOU} (with a chance of 5 %, over 1.3)" in said
    assert decode(encode(record)) == record
    Driver(tmp_path, judged, slots=4, space=space(100, confirm={"top": 1, "num_seeds": 1})).run()
    state = replay(tmp_path / LEDGER)
    found = answer(state, tmp_path)
    assert any(note.startswith("the search ended after") for note in found.notes)
    assert not any("searched trials were left out" in line for line in found.missing)


def test_too_few_trials_for_it_are_refused() -> None:
    with pytest.raises(InputError, match="stop_when looks at 12 trials at least") as caught:
        load_space(space(1.0, num_trials=6, reference_trials=2, baselines=["ce"]))
    assert "there are 7" in str(caught.value)


@pytest.mark.parametrize("wrong", [0, -1, 101, "much"])
def test_a_gain_is_a_number_of_points(wrong: Any) -> None:
    with pytest.raises(InputError, match="gain_below"):
        load_space(space(wrong))
