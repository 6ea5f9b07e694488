"""Trainings with a longer budget, driven without Ray: when they begin, and how long they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from simulated_driver import Driver, judged, lines_without_times
from study_in_memory import Study, plan

from study.analysis.answer import answer
from study.config.task import TaskConfig, TrialConfig, load_task
from study.core.names import BASELINE, COMPLETED, CONFIRM, REFERENCE, SEARCH
from study.ledger.records import ReportRecord, SelectRecord
from study.ledger.state import State
from study.reporting.html import results_csv
from study.reporting.live import Progress
from study.reporting.study_status import status
from study.scheduler.budget import Budget
from study.scheduler.stages import Done, Resume, RunConfirm, Stop, Wait, left_out
from study.storage.studies import load
from study.tracking.content import final_points

LONGER = {"confirm_budgets": (1, 2, 4), "confirm_seeds": 2, "baselines": ("ce",)}
SPACE: dict[str, Any] = {
    "loss": {"focal_gamma": {"float": {"low": 0.5, "high": 4.0}}},
    "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 4.0, "log": True}}},
    "study": {
        "num_trials": 4,
        "reference_trials": 1,
        "sampler": "random",
        "rungs": {"first": 0.5},
        "baselines": ["ce"],
        "confirm": {"top": 2, "num_seeds": 2, "budgets": [1, 2]},
    },
}


def selected() -> Study:
    """A study whose selection is made: t0001 is the reference, t0002 and t0003 are losses."""
    study = Study(plan(num_trials=3, reference_trials=1, **LONGER))
    study.finish(study.add(BASELINE, "ce"))
    study.finish(study.add(REFERENCE))
    for _ in range(2):
        study.finish(study.add(SEARCH))
    study.state.apply(SelectRecord(["t0002", "t0003"], "t0001", "t0000"))
    return study


def confirmed() -> Study:
    """Every ordinary confirmation is over; t0003 is the best loss."""
    study = selected()
    while isinstance(action := study.next(), RunConfirm) and action.budget == 1:
        name = study.add(CONFIRM, source=action.source, seed=action.seed)
        study.finish(name, miou={"t0001": 0.4, "t0002": 0.5, "t0003": 0.6}.get(action.source, 0.3))
    return study


def begin(study: Study, action: RunConfirm) -> str:
    return study.add(CONFIRM, source=action.source, seed=action.seed, budget=action.budget)


def test_reference_and_best_loss_are_trained_longer_on_the_same_seeds_shorter_first() -> None:
    study = confirmed()
    steps = []
    while isinstance(action := study.next(), RunConfirm):
        steps.append(action)
        study.finish(begin(study, action), miou=0.9)
    pairs = [(source, seed) for seed in (1, 2) for source in ("t0001", "t0003")]
    assert steps == [RunConfirm(*pair, budget) for budget in (2, 4) for pair in pairs]
    assert action == Done()


def test_they_wait_for_the_last_ordinary_confirmation() -> None:
    study = selected()
    while isinstance(action := study.next(), RunConfirm):
        assert action.budget == 1
        begin(study, action)
    assert action == Wait()
    for name in sorted(study.live)[1:]:
        study.finish(name)
    assert study.next() == Wait()
    last = next(iter(study.live))
    study.live.clear()
    assert study.next() == Resume(last)
    study.finish(last)
    action = study.next()
    assert isinstance(action, RunConfirm)
    assert action.budget == 2


def test_a_budget_that_holds_the_confirmations_alone_leaves_them_out() -> None:
    study = confirmed()
    assert left_out(study.plan, study.state) == ["8 of 8 longer trainings"]

    def whole(stage: str, epochs: int) -> bool:
        return epochs <= 2 * study.plan.epochs

    for _ in range(4):
        action = study.next(admits=whole)
        assert isinstance(action, RunConfirm)
        study.finish(begin(study, action))
    assert study.next(admits=whole) == Stop()
    assert left_out(study.plan, study.state) == ["4 of 8 longer trainings"]
    action = study.next()
    assert isinstance(action, RunConfirm)
    unfinished = begin(study, action)
    study.state.apply(ReportRecord(unfinished, 0, 7, {}))
    study.live.clear()

    def nine(stage: str, epochs: int) -> bool:
        return epochs <= 9

    assert study.next(admits=nine) == Resume(unfinished), "9 of its 16 epochs are left"
    assert study.next(admits=lambda stage, epochs: epochs <= 8) == Stop()


def test_a_longer_training_that_the_machine_lost_is_tried_again() -> None:
    study = confirmed()
    first = study.next()
    assert isinstance(first, RunConfirm)
    study.fail(begin(study, first), by_machine=True)
    later = []
    while isinstance(action := study.next(), RunConfirm):
        later.append(action)
        study.finish(begin(study, action))
    assert later[-1] == first
    assert len(later) == 8


def test_without_longer_budgets_nothing_follows_the_confirmation() -> None:
    study = confirmed()
    study.plan = plan(num_trials=3, reference_trials=1, **{**LONGER, "confirm_budgets": (1,)})
    assert study.next() == Done()
    assert left_out(study.plan, study.state) == []


def test_what_is_left_counts_epochs_of_longer_trainings() -> None:
    study = selected()
    progress = Progress(study.plan, study.state)
    ordinary, longer = 4 * 2 * 4, 2 * 2 * (2 + 4) * 4
    assert progress.left[0] == ordinary + longer
    assert study.plan.worst_case_epochs == (1 + 3 + 4 * 2) * 4 + longer
    study = confirmed()
    progress = Progress(study.plan, study.state)
    assert progress.left[0] == longer
    action = study.next()
    assert isinstance(action, RunConfirm)
    name = begin(study, action)
    study.state.apply(ReportRecord(name, 0, 3, {}))
    assert progress.left[0] == longer - 3


def test_a_budget_counts_the_epochs_that_a_longer_training_has_to_go() -> None:
    study = confirmed()
    action = RunConfirm("t0001", 1, 4)
    name = begin(study, action)
    epoch = {"time/epoch_s": 1.0}
    study.state.apply(ReportRecord(name, 0, 1, epoch))
    study.state.trials[name].gpus = 1.0
    hours = (15 + 4) / 3600  # it has 15 epochs to go
    for spare, admitted in ((0.5, True), (-0.5, False)):
        budget = Budget(study.plan, study.state, slots=2, gpu_hours=hours + spare / 3600, gpus=1.0)
        assert budget.admits(CONFIRM, 4, {name}) is admitted


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("longer")
    Driver(folder, metrics=judged, space=SPACE, slots=3).run()
    return folder


def by_budget(state: State, budget: int) -> list[Any]:
    return [trial for trial in state.of_stage(CONFIRM) if trial.budget == budget]


def test_a_longer_trial_has_the_whole_schedule_of_its_source_stretched(simulated: Path) -> None:
    state = load(simulated)
    assert state.finished
    longer = by_budget(state, 2)
    assert len(longer) == 4
    for trial in longer:
        source = state.trials[str(trial.source)]
        task = source.config["task"]
        stretched = {**task, "budget": {"epochs": 2 * task["budget"]["epochs"]}}
        assert trial.config == {**source.config, "task": stretched, "seed": trial.seed}
        assert TrialConfig.model_validate(trial.config).task.num_epochs == 16
        assert (trial.status, trial.epochs, trial.seed) == (COMPLETED, 16, trial.seed)
        assert trial.rungs == {}
    assert {trial.seed for trial in longer} == {trial.seed for trial in by_budget(state, 1)}
    assert {trial.epochs for trial in by_budget(state, 1)} == {8}
    last = max(trial.number for trial in by_budget(state, 1))
    assert all(trial.number > last for trial in longer)


def test_the_answer_does_not_mix_budgets(simulated: Path) -> None:
    state = load(simulated)
    found = answer(state, simulated)
    ordinary = {trial.id for trial in by_budget(state, 1)}
    for config in found.configs:
        assert len(config.trials) == 2
        assert set(config.trials) <= ordinary
    assert found.missing == ()


def test_what_is_shown_of_a_longer_trial_says_so(simulated: Path) -> None:
    state = load(simulated)
    rows = results_csv(state).splitlines()
    place = rows[0].split(",").index("budget")
    trial = by_budget(state, 2)[0]
    assert trial.label.endswith(", 2x budget")
    (row,) = [row for row in rows if row.startswith(f"{trial.id},")]
    assert '"' in row and json.loads(row.replace('"', "").split(",")[place + 1]) == 2
    assert final_points(trial) == []
    assert final_points(by_budget(state, 1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [80, 110, 125])
def test_a_study_that_is_killed_among_longer_trials_ends_alike(
    tmp_path: Path, kill_after: int
) -> None:
    Driver(tmp_path / "whole", metrics=judged, space=SPACE).run()
    killed = tmp_path / "killed"
    Driver(killed, metrics=judged, space=SPACE).run(kill_after=kill_after)
    (running,) = status(load(killed), driven=False, now=0.0)["running"] or [None]
    if kill_after == 125:
        assert running["of"] == 16
    Driver(killed, metrics=judged, space=SPACE).run()
    again = [
        {key: item for key, item in line.items() if key != "attempt"}
        for line in lines_without_times(killed)
        if not (line["kind"] == "trial" and line["attempt"] > 0)
    ]
    whole = lines_without_times(tmp_path / "whole")
    assert again == [{k: item for k, item in line.items() if k != "attempt"} for line in whole]


def test_a_budget_in_steps_is_stretched_with_its_reports() -> None:
    task = load_task("synthetic").config
    steps = {**task.model_dump(), "budget": {"steps": 100, "reports": 5}}
    stretched = TaskConfig.model_validate(steps).stretched(3)
    assert stretched.budget.model_dump() == {"steps": 300, "reports": 15}
    assert stretched.num_epochs == 15
