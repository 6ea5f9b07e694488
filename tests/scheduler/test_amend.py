"""A study that is continued with more trials, or with another search space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulated_driver import Continued, Driver, judged
from study_in_memory import plan

from study.config.task import load_task
from study.core.errors import InputError
from study.core.names import CONFIRM, REFERENCE, SEARCH
from study.ledger.journal import LEDGER, Ledger, read, replay
from study.ledger.plan import Plan
from study.ledger.records import (
    AmendRecord,
    FinishRecord,
    SearchEndRecord,
    SelectRecord,
    StudyRecord,
)
from study.ledger.state import State
from study.reporting.plan_text import amended_lines
from study.scheduler.planning import amended, make_plan, with_comparisons
from study.search.memory import params_in
from study.space.search_space import load_space

LR = "optimizer/lr_scale"
TASK = load_task("synthetic").config


def narrowed(high: float, **study: Any) -> dict[str, Any]:
    data = dict(load_space("joint").data)
    data["optimizer"] = {"lr_scale": {"float": {"low": 0.25, "high": high, "log": True}}}
    return {**data, "study": {**data["study"], **study}}


@pytest.mark.slow
def test_added_trials_are_searched_and_the_selection_is_made_anew(tmp_path: Path) -> None:
    Driver(tmp_path, judged, slots=2).run()
    before = replay(tmp_path / LEDGER)
    assert before.finished and before.count(SEARCH, REFERENCE) == 16
    session = Continued(tmp_path, 8, slots=2)
    assert not session.ledger.state.finished
    session.run()
    state = replay(tmp_path / LEDGER)
    assert state.finished and state.count(SEARCH, REFERENCE) == 24
    assert state.count(REFERENCE) >= 6
    assert state.study is not None and state.begun is not None
    assert (state.study.plan["num_trials"], state.begun.plan["num_trials"]) == (24, 16)
    kinds = [type(record) for record in read(tmp_path / LEDGER)]
    assert kinds.count(FinishRecord) == kinds.count(SelectRecord) == 2
    for name, trial in before.trials.items():
        assert (state.trials[name].params, state.trials[name].reports) == (
            trial.params,
            trial.reports,
        )
    numbers = [trial.params for trial in state.of_stage(SEARCH)]
    assert len({str(params) for params in numbers}) == len(numbers), "no proposal comes twice"


@pytest.mark.slow
def test_a_killed_session_goes_on_under_the_amended_plan(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        Driver(tmp_path / name, judged).run()
    Continued(tmp_path / "whole", 4).run()
    Continued(tmp_path / "killed", 4).run(kill_after=9)
    ledger = Ledger(tmp_path / "killed")
    assert ledger.state.study is not None
    assert Plan.from_dict(ledger.state.study.plan).num_trials == 20
    ledger.close()
    Resumed(tmp_path / "killed").run()
    found = [replay(tmp_path / name / LEDGER) for name in ("whole", "killed")]
    params = [[(t.stage, t.params) for t in state.trials.values()] for state in found]
    assert params[0] == params[1]


class Resumed(Driver):
    """A later session, as `--resume` without changes: plan and space are the ledger's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, judged)
        known = self.ledger.state.study
        assert known is not None
        self.plan = Plan.from_dict(known.plan)
        self.scheduler = type(self.scheduler)(self.ledger, self.plan, self.space, self.task)


@pytest.mark.slow
def test_a_changed_space_keeps_the_trials_that_lie_in_it(tmp_path: Path) -> None:
    Driver(tmp_path, judged).run()
    before = replay(tmp_path / LEDGER)
    session = Continued(tmp_path, 6, narrowed(1.0))
    record = session.record
    assert 0 < record.kept < record.searched == 22
    assert f"{record.kept} of the 22 earlier trials" in amended_lines(session.before, record)[0]
    inside = [t for t in before.trials.values() if t.stage != "confirm"]
    assert record.kept == sum(params_in(session.space, trial) is not None for trial in inside)
    session.run()
    state = replay(tmp_path / LEDGER)
    later = [t for t in state.of_stage(SEARCH) if t.id not in before.trials]
    assert later and all(trial.params is not None for trial in later)
    assert max(trial.params[LR] for trial in later if trial.params) <= 1.0
    assert state.study is not None
    assert state.study.space["optimizer"] == narrowed(1.0)["optimizer"]


@pytest.mark.slow
def test_longer_trainings_and_an_ablation_are_added_to_a_finished_study(tmp_path: Path) -> None:
    Driver(tmp_path, judged, slots=2).run()
    before = replay(tmp_path / LEDGER)
    selection = before.selection
    assert before.finished and selection is not None
    session = Continued(tmp_path, longer=4, ablate=True, slots=2)
    told = amended_lines(session.before, session.record)
    assert [line.split(" for ")[0].split(" with ")[0] for line in told] == [
        "added: the reference and the best other loss",
        "added: the best other loss",
    ]
    assert session.ledger.state.selection_holds and not session.ledger.state.finished
    session.run()
    state = replay(tmp_path / LEDGER)
    assert state.finished and state.selection == selection
    assert state.count(SEARCH, REFERENCE) == before.count(SEARCH, REFERENCE)
    added = [t for t in state.of_stage(CONFIRM) if t.id not in before.trials]
    assert len([t for t in added if t.budget == 4]) == 2 * session.plan.confirm_seeds
    assert all(t.epochs == 32 for t in added if t.budget == 4)
    assert {t.seed for t in added} == {t.seed for t in before.of_stage(CONFIRM)}
    ablated = [t for t in added if t.ablated]
    assert ablated and all(t.budget == 1 for t in ablated) and len(ablated) + 6 == len(added)


def test_added_trainings_leave_an_ended_search_ended(tmp_path: Path) -> None:
    begun = StudyRecord("s", 0, "synthetic", {}, "joint", {}, plan(num_trials=16).as_dict(), {}, {})
    state = State()
    end = SearchEndRecord(12, {"val/miou": 0.4}, {"val/miou": 0.9})
    for record in (begun, end, AmendRecord(plan(num_trials=16, confirm_budgets=(1, 4)).as_dict())):
        state.apply(record)
    assert state.search_end == end
    state.apply(AmendRecord(plan(num_trials=20).as_dict()))
    assert state.search_end is None


def test_what_a_plan_has_is_not_added_again() -> None:
    space = load_space("joint")
    the_plan = make_plan(space, TASK, num_trials=None, seed=0, longer=4, ablate=True)
    assert the_plan.confirm_budgets == (1, 4) and the_plan.confirm_ablations
    assert with_comparisons(the_plan, space, 4, ablate=True) == the_plan
    assert with_comparisons(the_plan, space, 2, ablate=False).confirm_budgets == (1, 2, 4)


def test_trials_count_by_their_config_where_a_wider_space_has_other_leaves() -> None:
    wide = load_space(
        {"loss": {"focal_gamma": {"float": {"low": 0.0, "high": 2.0}},
                  "jaccard": {"mix": {"float": {"low": 0.0, "high": 0.9}}}}}
    )  # fmt: skip
    old = load_space({"loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}}})
    config = old.resolve({"loss/jaccard/mix": 0.4})
    found = wide.params_of(config.loss, config.optimizer)
    assert found == {"loss/focal_gamma": 0.0, "loss/jaccard/mix": 0.4}


def test_settings_stay() -> None:
    space = load_space("joint")
    the_plan = make_plan(space, TASK, num_trials=None, seed=0)
    with pytest.raises(InputError, match="study/num_trials: a study keeps its num_trials"):
        amended(the_plan, space, State(), 0, narrowed(1.0, num_trials=20))
    with pytest.raises(InputError, match=r"a study keeps its confirm; .*; --longer N and --ablate"):
        amended(the_plan, space, State(), 0, narrowed(1.0, confirm={"top": 3}))


def test_a_grid_has_an_end() -> None:
    space = load_space("baselines")
    the_plan = make_plan(space, TASK, num_trials=None, seed=0)
    with pytest.raises(InputError, match=r"--more-trials: the grid has \d+ points left, for \d+"):
        amended(the_plan, space, State(), 40)


@pytest.mark.parametrize("extended", [(), ((16, 4),), ((16, 4), (20, 5))])
def test_references_are_spread_in_each_part(extended: tuple[tuple[int, int], ...]) -> None:
    whole = plan(num_trials=31, reference_trials=8, extended=extended)
    flags = [whole.is_reference(index) for index in range(31)]
    assert sum(flags) == 8
    for trials, references in extended:
        assert sum(flags[:trials]) == references
    for index in range(31):
        assert whole.references_before(index) == sum(flags[:index])
    assert Plan.from_dict(whole.as_dict()) == whole


def test_what_was_planned_before_stays_as_it_was() -> None:
    first = plan(num_trials=16, reference_trials=4)
    more = replace(first, num_trials=26, reference_trials=7, extended=((16, 4),))
    for index in range(16):
        assert first.is_reference(index) == more.is_reference(index)
        assert first.sampled_before(index) == more.sampled_before(index)


def test_an_amendment_needs_a_study(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(AssertionError):
        ledger.append(AmendRecord({}, None))
    ledger.close()
    with pytest.raises(InputError, match="no line before it begins the study that it amends"):
        replay(tmp_path / LEDGER)
