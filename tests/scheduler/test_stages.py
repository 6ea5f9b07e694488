"""The protocol's order, driven without Ray: what is handed out, when, and what waits."""

from __future__ import annotations

import pytest
from study_in_memory import Study, plan

from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH
from study.ledger.plan import Plan
from study.ledger.records import SelectRecord
from study.scheduler.stages import (
    Done,
    Resume,
    RunBaseline,
    RunConfirm,
    RunReference,
    RunSearch,
    Select,
    Stop,
    Wait,
    left_out,
)


def only_confirmations(stage: str, epochs: int) -> bool:
    """A budget that the search has spent."""
    return stage == CONFIRM


def nothing(stage: str, epochs: int) -> bool:
    """A budget that is spent."""
    return False


def searched(study: Study) -> None:
    for name in study.plan.baselines:
        study.finish(study.add(BASELINE, name))
    for index in range(study.plan.num_trials):
        stage = REFERENCE if study.plan.is_reference(index) else SEARCH
        study.finish(study.add(stage))


def test_baselines_come_first_then_references_are_spread_among_the_search() -> None:
    study = Study(plan())
    order = []
    for _ in range(18):
        action = study.next()
        order.append(action)
        match action:
            case RunBaseline(name=name):
                study.add(BASELINE, name)
            case RunReference():
                study.add(REFERENCE)
            case RunSearch():
                study.add(SEARCH)
    assert order[:2] == [RunBaseline("ce"), RunBaseline("recall")]
    kinds = [type(action) for action in order[2:]]
    assert kinds.count(RunReference) == 3
    assert [i for i, kind in enumerate(kinds) if kind is RunReference] == [0, 6, 11]
    numbers = [action.number for action in order if isinstance(action, RunSearch)]
    assert numbers == list(range(13))


@pytest.mark.parametrize(("trials", "references"), [(1, 1), (5, 5), (24, 3), (100, 12), (7, 0)])
def test_exactly_the_planned_number_of_references_is_spread(trials: int, references: int) -> None:
    the_plan = plan(num_trials=trials, reference_trials=references)
    assert sum(the_plan.is_reference(i) for i in range(trials)) == references


def test_an_unfinished_trial_of_an_earlier_session_comes_before_all_else() -> None:
    study = Study(plan())
    name = study.add(BASELINE, "ce")
    study.live.clear()
    assert study.next() == Resume(name)


def test_nothing_is_selected_while_the_search_is_live_but_default_seeds_run() -> None:
    study = Study(plan(num_trials=1, reference_trials=1, baselines=("ce",)))
    ce = study.add(BASELINE, "ce")
    last = study.add(REFERENCE)
    assert study.next() == Wait()
    study.finish(ce)
    for seed in (1, 2, 3):
        assert study.next() == RunConfirm(ce, seed)
        study.finish(study.add(CONFIRM, "ce", source=ce, seed=seed))
    assert study.next() == Wait()
    study.finish(last)
    assert study.next() == Select()


def test_confirmation_goes_seed_by_seed_and_ends() -> None:
    study = Study(plan())
    searched(study)
    assert study.next() == Select()
    study.state.apply(SelectRecord(["t0003", "t0004"], "t0002", "t0000"))
    steps = []
    while not isinstance(action := study.next(), (Wait, Done)):
        assert isinstance(action, RunConfirm)
        steps.append((action.source, action.seed))
        study.add(CONFIRM, source=action.source, seed=action.seed)
    sources = ["t0002", "t0000", "t0003", "t0004"]
    assert steps == [(source, seed) for seed in (1, 2, 3) for source in sources]
    assert action == Wait()
    for name in list(study.live):
        study.finish(name)
    assert study.next() == Done()


def test_the_runner_up_is_confirmed_too_and_counted_among_what_is_left() -> None:
    study = Study(plan(confirm_seeds=1))
    searched(study)
    study.state.apply(SelectRecord(["t0003"], "t0002", "t0000", runner_up="t0005"))
    assert left_out(study.plan, study.state) == ["4 of 4 confirmations"]
    steps = []
    while isinstance(action := study.next(), RunConfirm):
        steps.append(action.source)
        study.finish(study.add(CONFIRM, source=action.source, seed=action.seed))
    assert steps == ["t0002", "t0005", "t0000", "t0003"]
    assert action == Done()


def test_a_search_that_a_budget_ended_goes_on_and_is_selected_from_anew() -> None:
    study = Study(plan(baselines=()))
    for _ in range(10):
        study.finish(study.add(SEARCH))
    assert study.next(admits=only_confirmations) == Select()
    study.state.apply(SelectRecord(["t0003"], "t0000", None, searched=10))
    assert isinstance(study.next(admits=only_confirmations), RunConfirm)
    for _ in range(6):
        assert isinstance(study.next(), (RunReference, RunSearch))
        study.finish(study.add(SEARCH))
    assert study.next() == Select()
    study.state.apply(SelectRecord(["t0012"], "t0000", None, searched=16))
    assert study.next() == RunConfirm("t0000", 1)


def test_a_search_that_a_budget_ended_before_it_began_is_selected_from_once_it_has_gone_on() -> (
    None
):
    study = Study(plan())
    for name in study.plan.baselines:
        study.finish(study.add(BASELINE, name))
    assert study.next(admits=only_confirmations) == Select()
    study.state.apply(SelectRecord(["t0001"], "t0000", "t0000", searched=0))
    for _ in range(16):
        assert isinstance(study.next(), (RunReference, RunSearch))
        study.finish(study.add(SEARCH))
    assert study.next() == Select()


def test_what_a_budget_leaves_out_is_named_and_the_session_is_not_done() -> None:
    study = Study(plan())
    assert left_out(study.plan, study.state) == ["2 of 2 baselines", "16 of 16 searched"]
    for name in study.plan.baselines:
        study.finish(study.add(BASELINE, name))
    lost = study.add(SEARCH)
    study.live.clear()
    study.state.apply(SelectRecord(["t0001"], "t0000", "t0000", searched=1))
    study.finish(study.add(CONFIRM, source="t0000", seed=1))
    assert study.next(admits=nothing) == Stop()
    missing = ["15 of 16 searched", "5 of 6 confirmations", "1 unfinished"]
    assert left_out(study.plan, study.state) == missing
    for source, seed in (("t0000", 2), ("t0000", 3), *(("t0001", seed) for seed in (1, 2, 3))):
        study.finish(study.add(CONFIRM, source=source, seed=seed))
    assert study.next(admits=only_confirmations) == Stop(), "a trial is unfinished"
    assert study.next() == Resume(lost)
    study.finish(lost)
    assert study.next(admits=only_confirmations) == Select()


def test_equal_default_and_tuned_cross_entropy_are_confirmed_once() -> None:
    study = Study(plan())
    searched(study)
    study.state.apply(SelectRecord([], "t0000", "t0000"))
    steps = []
    while isinstance(action := study.next(), RunConfirm):
        steps.append(action.source)
        study.finish(study.add(CONFIRM, source=action.source, seed=action.seed))
    assert steps == ["t0000"] * 3


def test_a_seed_that_the_machine_lost_is_tried_again_after_the_others_three_times_in_all() -> None:
    study = Study(plan(baselines=(), confirm_seeds=2))
    searched(study)
    study.state.apply(SelectRecord(["t0003"], "t0000", None))
    assert study.next() == RunConfirm("t0000", 1)
    study.fail(study.add(CONFIRM, source="t0000", seed=1), by_machine=True)
    steps = []
    while isinstance(action := study.next(), RunConfirm):
        steps.append((action.source, action.seed))
        name = study.add(CONFIRM, source=action.source, seed=action.seed)
        if steps[-1] == ("t0000", 1):
            assert study.next() != action, "it is under way"
            study.fail(name, by_machine=True)
        else:
            study.finish(name)
    assert steps == [("t0003", 1), ("t0000", 2), ("t0003", 2), ("t0000", 1), ("t0000", 1)]
    assert action == Done()


def test_a_seed_that_failed_by_its_own_fault_is_not_tried_again() -> None:
    study = Study(plan(baselines=(), confirm_seeds=1))
    searched(study)
    study.state.apply(SelectRecord([], "t0000", None))
    study.fail(study.add(CONFIRM, source="t0000", seed=1), by_machine=False)
    assert study.next() == Done()


def test_a_spent_budget_ends_the_search_and_still_selects() -> None:
    study = Study(plan(baselines=()))
    assert isinstance(study.next(), RunReference)
    assert study.next(admits=only_confirmations) == Stop(), "there is nothing to select from"
    study.finish(study.add(REFERENCE))
    assert study.next(admits=only_confirmations) == Select()


def test_a_plan_survives_the_ledger() -> None:
    assert Plan.from_dict(plan().as_dict()) == plan()
    assert plan().worst_case_epochs == (2 + 16 + 15) * 4
    longer = plan(confirm_budgets=(1, 4))
    assert Plan.from_dict(longer.as_dict()) == longer
    older = {key: item for key, item in plan().as_dict().items() if key != "confirm_budgets"}
    assert Plan.from_dict(older) == plan()


@pytest.mark.parametrize(
    ("trials", "references"), [(16, 3), (100, 12), (5000, 625), (7, 7), (9, 0)]
)
def test_references_are_counted_as_they_come(trials: int, references: int) -> None:
    the_plan = plan(num_trials=trials, reference_trials=references)
    count = 0
    for index in range(trials + 1):
        assert the_plan.references_before(index) == count
        assert the_plan.sampled_before(index) == index - count
        count += index < trials and the_plan.is_reference(index)
    assert count == references
