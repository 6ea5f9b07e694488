"""A study that searches a small proxy and confirms on its target, driven without Ray."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulated_driver import Driver, Timed, judged, lines_without_times
from study_in_memory import Study, plan

from study.analysis.answer import answer
from study.analysis.selection import value
from study.config.task import TaskConfig, load_task
from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH
from study.ledger.records import ReportRecord, TrialRecord
from study.reporting.exports import export, export_text
from study.reporting.live import Progress
from study.reporting.plan_text import epochs_text
from study.reporting.study_status import lines, status
from study.scheduler.budget import Budget
from study.scheduler.stages import RunConfirm
from study.scheduler.watchdog import median_epoch
from study.storage.studies import load
from study.tracking.content import final_points, trial_params, trial_tags

OWN_EPOCHS, TARGET_EPOCHS = 8, 3
SPACE: dict[str, Any] = {
    "loss": {"focal_gamma": {"float": {"low": 0.5, "high": 4.0}}},
    "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 4.0, "log": True}}},
    "study": {
        "num_trials": 6,
        "reference_trials": 2,
        "sampler": "random",
        "rungs": {"first": 0.5},
        "baselines": ["ce"],
        "confirm": {"top": 2, "num_seeds": 2, "budgets": [1, 2], "ablate": True},
    },
}


def target() -> TaskConfig:
    """The synthetic task, larger and shorter."""
    tree = load_task("synthetic").config.model_dump()
    tree["data"] |= {"size": (96, 128), "seed": 7}
    return TaskConfig.model_validate({**tree, "batch_size": 2, "budget": {"epochs": TARGET_EPOCHS}})


def slower(record: TrialRecord, epoch: int) -> dict[str, float]:
    """The curve; an epoch of the target takes ten times as long, and its values are others."""
    found = judged(record, epoch)
    if not record.on_target:
        return found
    shift = {key: item + 0.6 for key, item in found.items() if not key.startswith("time")}
    return {**shift, "time/epoch_s": 20.0}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    Driver(folder, metrics=slower, space=SPACE, slots=3, target=target()).run()
    return folder


def test_the_search_trains_the_proxy_and_every_confirmation_the_target(simulated: Path) -> None:
    state = load(simulated)
    assert state.finished
    own, other = load_task("synthetic").config, target()
    for trial in state.of_stage(BASELINE, REFERENCE, SEARCH):
        assert not trial.on_target
        assert trial.config["task"] == json.loads(own.model_dump_json())
        assert trial.epochs <= OWN_EPOCHS
    confirmed = state.completed(CONFIRM)
    assert {trial.budget for trial in confirmed} == {1, 2}
    assert {trial.ablated for trial in confirmed} == {"", "focal", "lr_scale"}
    for trial in confirmed:
        assert trial.on_target
        assert trial.config["task"] == json.loads(other.stretched(trial.budget).model_dump_json())
        assert trial.epochs == TARGET_EPOCHS * trial.budget
        source = state.trials[str(trial.source)]
        if not trial.ablated:
            assert trial.config["loss"] == source.config["loss"]
            assert trial.config["optimizer"] == source.config["optimizer"]


def test_the_plan_counts_epochs_of_both_tasks_apart() -> None:
    found = plan(confirm_epochs=10, confirm_budgets=(1, 4), confirm_ablations=2)
    assert found.worst_case_epochs == (2 + 16) * 4
    ordinary, longer, ablated = (2 + 2 + 1) * 3, 2 * 3 * 4, 2 * 3
    assert found.worst_case_target_epochs == (ordinary + longer + ablated) * 10
    assert epochs_text(found, 72, 450) == "72 epochs of the proxy, 450 of the target"
    alone = replace(found, confirm_epochs=0)
    assert alone.worst_case_epochs == (2 + 16 + ordinary + longer + ablated) * 4
    assert alone.worst_case_target_epochs == 0
    assert epochs_text(alone, 252, 0) == "252 epochs"


@pytest.mark.parametrize("kill_after", [30, 64, 76])
def test_a_study_that_is_killed_goes_on_with_each_trial_on_its_own_task(
    simulated: Path, tmp_path: Path, kill_after: int
) -> None:
    given: dict[str, Any] = {"metrics": slower, "space": SPACE, "target": target()}
    Driver(tmp_path / "whole", **given).run()
    Driver(tmp_path / "killed", **given).run(kill_after=kill_after)
    Driver(tmp_path / "killed", **given).run()

    def told(name: str) -> list[dict[str, Any]]:
        return [
            {key: item for key, item in line.items() if key != "attempt"}
            for line in lines_without_times(tmp_path / name)
            if not (line["kind"] == "trial" and line["attempt"] > 0)
        ]

    assert told("killed") == told("whole")
    again = [
        line
        for line in lines_without_times(tmp_path / "killed")
        if line["kind"] == "trial" and line["attempt"] > 0
    ]
    assert len(again) == 1
    (line,) = again
    task = target() if line["stage"] == CONFIRM else load_task("synthetic").trained_here
    assert line["on_target"] is (line["stage"] == CONFIRM)
    assert line["config"]["task"]["data"] == json.loads(task.data.model_dump_json())


def paced(**changes: object) -> Study:
    """A study on GPUs with a finished baseline of four epochs of 1 s."""
    study = Study(plan(confirm_epochs=10, baselines=("ce",), **changes))
    ce = study.add(BASELINE, "ce")
    study.state.trials[ce].gpus = 1.0
    for epoch in range(1, 4):
        study.state.apply(ReportRecord(ce, 0, epoch, {"time/epoch_s": 1.0}))
    study.finish(ce)
    return study


def confirming(study: Study, *seconds: float) -> str:
    """A confirmation that runs, with epochs of so many seconds."""
    name = f"t{len(study.state.trials):04d}"
    record = TrialRecord(
        name, 0, CONFIRM, "ce", "ce", None, {}, 1, source="t0000", gpus=1.0, on_target=True
    )
    study.state.apply(record)
    study.live.add(name)
    for epoch, epoch_s in enumerate(seconds, 1):
        study.state.apply(ReportRecord(name, 0, epoch, {"time/epoch_s": epoch_s}))
    return name


def test_a_budget_takes_each_task_at_its_own_pace() -> None:
    study = paced(confirm_seeds=2, confirm_top=1, reference_trials=1)
    live = {confirming(study, 20.0)}
    spent = 3 * 1.0 + 20.0
    to_go = 9 * 20.0

    def admits(stage: str, epochs: int, seconds: float) -> bool:
        budget = Budget(study.plan, study.state, slots=2, gpu_hours=seconds / 3600, gpus=1.0)
        return budget.admits(stage, epochs, live)

    confirmation = spent + to_go + 10 * 20.0
    assert admits(CONFIRM, 10, confirmation + 0.5)
    assert not admits(CONFIRM, 10, confirmation - 0.5)
    # one more searched trial of 4 s, and what two sources may need: 2 x 2 x 10 epochs of 20 s
    search = spent + to_go + 4 * 1.0 + 4 * 10 * 20.0
    assert admits(SEARCH, 4, search + 0.5)
    assert not admits(SEARCH, 4, search - 0.5)


def test_the_next_epoch_of_a_proxy_counts_the_target_that_runs_beside_it() -> None:
    study = paced()
    own = study.add(SEARCH)
    study.state.trials[own].gpus = 1.0
    study.state.apply(ReportRecord(own, 0, 1, {"time/epoch_s": 1.0}))
    live = {own, confirming(study, 20.0)}
    spent = 4 * 1.0 + 20.0
    for seconds, goes_on in ((spent + 21.5, True), (spent + 20.5, False)):
        budget = Budget(study.plan, study.state, slots=2, gpu_hours=seconds / 3600, gpus=1.0)
        assert budget.admits_next_epoch(study.state.trials[own], live) is goes_on


def test_half_of_a_budget_is_kept_while_no_epoch_of_the_target_is_timed() -> None:
    study = paced()
    for seconds, admitted in ((2 * 7.5, True), (2 * 6.5, False)):  # 3 s are spent, 4 s to go
        budget = Budget(study.plan, study.state, slots=1, gpu_hours=seconds / 3600, gpus=1.0)
        assert budget.times_target
        assert budget.admits(SEARCH, 4, ()) is admitted
    confirming(study, 20.0)
    assert not Budget(study.plan, study.state, slots=1, gpu_hours=1.0, gpus=1.0).times_target
    assert not Budget(study.plan, study.state, slots=1).times_target, "nothing is limited"


def test_a_budget_has_the_target_timed_before_the_search_goes_on() -> None:
    study = paced()
    assert study.next() != RunConfirm("t0000", 1)
    assert study.next(times_target=True) == RunConfirm("t0000", 1)
    confirming(study)
    action = study.next(times_target=True)
    assert not isinstance(action, RunConfirm), "once is enough"


def slow_target(record: TrialRecord, epoch: int, now: float) -> float:
    return 40.0 if record.on_target else 2.0


@pytest.mark.parametrize(("slots", "seconds"), [(1, 2000.0), (3, 800.0)])
def test_a_session_ends_its_search_in_time_to_confirm_on_a_slow_target(
    tmp_path: Path, slots: int, seconds: float
) -> None:
    space = {**SPACE, "study": {**SPACE["study"], "num_trials": 60}}
    space["study"]["confirm"] = {"top": 2, "num_seeds": 2}
    driver = Timed(
        tmp_path, slow_target, space=space, slots=slots, target=target(), time_budget=seconds
    )
    assert driver.run_session() <= seconds - 30
    state = load(tmp_path)
    assert 0 < len(state.of_stage(SEARCH, REFERENCE)) < 60
    assert state.finished, "every seed is confirmed"


def test_a_hanging_trial_is_judged_by_epochs_of_its_own_task() -> None:
    study = paced()
    confirming(study, 20.0, 22.0, 24.0)
    assert median_epoch(study.state, on_gpu=True) == 1.0
    assert median_epoch(study.state, on_gpu=True, pace=True) == 22.0
    assert math.isnan(median_epoch(study.state, on_gpu=False, pace=True))


def test_what_is_left_counts_epochs_of_both_tasks_apart_and_times_both() -> None:
    now = 100.0
    study = Study(plan(confirm_epochs=10, baselines=("ce",)))
    progress = Progress(study.plan, study.state, clock=lambda: now)
    confirmations = (2 + 2 + 1) * 3 * 10
    assert progress.left == ((1 + 16) * 4, confirmations)
    ce = study.add(BASELINE, "ce")
    for epoch in (1, 2, 3, 4):
        study.state.apply(ReportRecord(ce, 0, epoch, {"time/epoch_s": 2.0}))
        assert progress.seconds_left is None, "no epoch of the target is timed"
        now += 1.0
    study.finish(ce)
    confirming(study, 10.0)
    assert progress.done == (4, 1)
    assert progress.left == (16 * 4, confirmations - 1)
    assert progress.text == "4 epochs of the proxy, 1 of the target done, at most 64 and 149 left"
    # since the first look 4 s for three epochs of the proxy and one that is worth five of them
    assert progress.seconds_left == pytest.approx(4.0 / (3 + 5) * (64 + 5 * 149))


def test_the_status_names_the_target_and_times_its_epochs(simulated: Path) -> None:
    state = load(simulated)
    found = status(state, driven=False, now=2e9)
    own = sum(trial.epochs for trial in state.of_stage(BASELINE, REFERENCE, SEARCH))
    there = sum(trial.epochs for trial in state.of_stage(CONFIRM))
    assert found["epochs"] == {"done": own, "at_most_left": 0}
    assert found["target"]["task"] == "big"
    assert found["target"]["epochs"] == {"done": there, "at_most_left": 0}
    text = "\n".join(lines(found))
    assert "joint on synthetic, confirmed on big, finished" in text
    assert f"{own} epochs of the proxy done; {there} of the target done" in text
    json.dumps(found, allow_nan=False)


def test_a_status_without_a_timed_epoch_of_the_target_gives_no_time_left(tmp_path: Path) -> None:
    driver = Driver(tmp_path, metrics=slower, space=SPACE, target=target())
    driver.run(kill_after=10)
    state = load(tmp_path)
    assert not state.of_stage(CONFIRM)
    found = status(state, driven=True, now=2e9)
    assert found["seconds_left"] is None
    assert found["device_hours"]["at_most_left"] is None
    json.dumps(found, allow_nan=False)
    assert "epochs of the proxy done" in "\n".join(lines(found))


def test_the_answer_has_figures_of_the_target_alone(simulated: Path) -> None:
    state = load(simulated)
    found = answer(state, simulated)
    assert (found.task, found.proxy, found.epochs) == ("big", "synthetic", TARGET_EPOCHS)
    assert found.missing == ()
    for config in found.configs:
        assert all(state.trials[trial].on_target for trial in config.trials)
        assert min(config.metrics["val/tuned/miou"]) > max(
            value(trial, "val/tuned/miou") for trial in state.completed(SEARCH)
        ), "values of the target are 0.6 above those of the proxy"
    on_target = {config.source for config in found.configs}
    assert found.pareto and set(found.pareto) <= on_target
    assert found.best_miou in found.pareto
    assert found.foretold is not None
    assert found.foretold.configs == len(found.configs)


def test_an_export_of_a_confirmed_config_is_of_the_target_and_names_both(simulated: Path) -> None:
    state = load(simulated)
    found = answer(state, simulated)
    assert found.best_miou is not None
    tree = export(state, found, found.best_miou)
    assert TaskConfig.model_validate(tree["task"]) == target()
    origin = tree["provenance"]
    assert (origin["task"], origin["searched_on"]) == ("big", "synthetic")
    assert origin["epochs"] == TARGET_EPOCHS
    head = export_text("Best", tree).partition("\n")[0]
    assert head.endswith("from study s on task big, searched on its proxy synthetic.")


def test_mlflow_tells_trials_of_the_target_from_those_of_the_proxy(simulated: Path) -> None:
    state = load(simulated)
    assert state.study is not None
    trial, source = state.completed(CONFIRM)[0], state.completed(BASELINE)[0]
    assert trial_params(trial)["task/data/size"] == "[96, 128]"
    assert trial_params(trial)["task/budget/epochs"] == str(TARGET_EPOCHS)
    assert trial_params(source)["task/budget/epochs"] == str(OWN_EPOCHS)
    assert trial_tags(state.study, trial)["target"] == "big"
    assert "target" not in trial_tags(state.study, source)
    assert {key.partition("/")[0] for key, *_ in final_points(trial)} == {"final_target"}
    assert {key.partition("/")[0] for key, *_ in final_points(source)} == {"final"}


def test_a_study_without_a_target_says_nothing_of_one(tmp_path: Path) -> None:
    Driver(tmp_path, metrics=judged, space=SPACE, slots=3).run()
    state = load(tmp_path)
    assert not any(trial.on_target for trial in state.trials.values())
    found = answer(state, tmp_path)
    assert (found.task, found.proxy, found.foretold) == ("synthetic", "", None)
    assert status(state, driven=False, now=2e9)["target"] is None
    assert found.best_miou is not None
    assert "searched_on" not in export(state, found, found.best_miou)["provenance"]
