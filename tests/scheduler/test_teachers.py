"""The stage of the teachers, driven without Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from simulated_driver import Driver, Timed, lines_without_times
from study_in_memory import Study, plan

from study.config.task import TaskConfig, load_task
from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH, TEACHER
from study.ledger.plan import Plan
from study.ledger.records import TrialRecord
from study.reporting.live import Progress
from study.scheduler.budget import Budget
from study.scheduler.stages import Resume, RunBaseline, RunTeacher, Stop, Wait, left_out
from study.scheduler.teachers import Teachers
from study.search.memory import Memory, params_in
from study.space.search_space import load_space
from study.storage.studies import load

HASH = "ab" * 32
SPACE: dict[str, Any] = {
    "loss": {"distillation": {"mix": {"float": {"low": 0.2, "high": 0.8}}}},
    "study": {
        "teacher": {"task": "large"},
        "num_trials": 4,
        "reference_trials": 1,
        "sampler": "random",
        "rungs": {"first": 0.5},
        "baselines": ["ce", "kd"],
        "confirm": {"top": 1, "num_seeds": 2},
    },
}


def large(epochs: int = 5) -> TaskConfig:
    tree = load_task("synthetic").config.model_dump()
    tree["data"] |= {"size": (96, 128), "seed": 7}
    return TaskConfig.model_validate({**tree, "budget": {"epochs": epochs}})


def teachers(folder: str = "/study", **more: Any) -> Teachers:
    from study.losses.config import TaskTeacher

    return Teachers(
        TaskTeacher(task="large"),
        {"large": large()},
        stored=lambda trial: (f"{folder}/weights/{trial}.safetensors", HASH),
        **more,
    )


def driver(folder: Path, given: Teachers | None = None, kind: type[Driver] = Driver, **more: Any):
    return kind(folder, space=SPACE, teachers=given or teachers(), **more)


def teacher_of(trial: Any) -> Any:
    distillation = trial.config["loss"]["distillation"]
    return distillation and distillation["teacher"]


def test_the_teacher_is_trained_once_and_first_and_named_by_its_weights(tmp_path: Path) -> None:
    driver(tmp_path, slots=3).run()
    state = load(tmp_path)
    assert state.finished
    (teacher,) = state.of_stage(TEACHER)
    assert teacher.id == "t0000"
    assert teacher.config["task"] == json.loads(large().model_dump_json())
    assert teacher.epochs == 5
    assert not teacher.rungs
    distilled = [trial for trial in state.trials.values() if trial.family == "distillation"]
    assert {trial.stage for trial in distilled} == {BASELINE, SEARCH, CONFIRM}
    for trial in distilled:
        assert teacher_of(trial) == {
            "weights": "/study/weights/t0000.safetensors",
            "sha256": HASH,
            "model": json.loads(large().model.model_dump_json()),
        }
    others = [trial for trial in state.trials.values() if trial.family == "ce"]
    assert all(teacher_of(trial) is None for trial in others)
    assert all(trial.started >= teacher.report_times[5] for trial in distilled)
    after = [trial for trial in state.trials.values() if trial.started >= teacher.report_times[5]]
    beside = [trial for trial in state.trials.values() if trial not in after]
    assert [(trial.stage, trial.label) for trial in beside] == [
        (TEACHER, "large"),
        (BASELINE, "ce"),
    ]


def test_baselines_that_need_no_teacher_run_beside_it() -> None:
    study = Study(plan(baselines=("ce", "kd", "jml"), taught=("kd",), teachers=("large",),
                       teacher_epochs=(5,)))  # fmt: skip
    assert study.next() == RunTeacher("large")
    teacher = study.add(TEACHER, "large")
    for name in ("ce", "jml"):
        assert study.next() == RunBaseline(name)
        study.add(BASELINE, name)
    assert study.next() == Wait(), "the other one waits, and the search does"
    study.finish(teacher)
    assert study.next() == RunBaseline("kd")


def test_all_baselines_wait_in_a_plan_that_does_not_say_which_are_taught() -> None:
    values = plan(baselines=("ce", "kd"), teachers=("large",), teacher_epochs=(5,)).as_dict()
    assert "taught" in values
    del values["taught"]
    assert Plan.from_dict(values).taught == ("ce", "kd")


def test_the_search_does_not_learn_from_a_teacher(tmp_path: Path) -> None:
    """It is cross entropy, too, but on another task."""
    found = driver(tmp_path)
    found.run()
    state = load(tmp_path)
    space = load_space("joint")  # which holds cross entropy
    memory = Memory(found.plan, space, state)
    memory.update()
    (teacher,) = state.of_stage(TEACHER)
    assert params_in(space, teacher) is not None
    seen = [params_in(space, t) for t in state.of_stage(BASELINE, REFERENCE, SEARCH)]
    assert 0 < len(memory.history) == sum(params is not None for params in seen)


@pytest.mark.parametrize("reports", range(1, 7))
def test_a_study_killed_in_the_teachers_stage_goes_on_to_the_same_ledger(
    tmp_path: Path, reports: int
) -> None:
    """Line by line, but for the second attempt at what was under way."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    driver(whole).run()
    driver(parts).run(kill_after=reports)
    again = driver(parts)
    first = again.scheduler.suggest()
    assert isinstance(first, TrialRecord)
    assert (first.stage == TEACHER) == (reports < 5)
    assert first.attempt == (reports != 5)
    again.scheduler.release(first.trial)
    again.run()
    expected, found = load(whole), load(parts)
    assert found.finished
    assert [t.config for t in found.trials.values()] == [t.config for t in expected.trials.values()]
    assert [dict(t.reports) for t in found.trials.values()] == [
        dict(t.reports) for t in expected.trials.values()
    ]


def test_a_folder_that_has_moved_takes_the_weights_along(tmp_path: Path) -> None:
    driver(tmp_path).run(kill_after=7)
    before = load(tmp_path)
    under_way = [trial for trial in before.unfinished() if trial.family == "distillation"]
    driver(tmp_path, teachers("/moved")).run()
    records = [line for line in lines_without_times(tmp_path) if line["kind"] == "trial"]
    later = [line for line in records if line["attempt"] or line["stage"] == CONFIRM]
    found = {
        line["config"]["loss"]["distillation"]["teacher"]["weights"]
        for line in later
        if line["family"] == "distillation"
    }
    assert found == {"/moved/weights/t0000.safetensors"}
    assert len(under_way) <= 1


def test_another_teacher_is_not_put_in_place_of_a_trials_own() -> None:
    study = Study(plan(teachers=("large",), teacher_epochs=(5,)))
    study.finish(study.add(TEACHER, "large"))
    other = {"weights": "x", "sha256": "cd" * 32}
    tree: dict[str, Any] = {"distillation": {"teacher": other, "mix": 0.5}}
    assert teachers().placed(tree, study.state) == tree
    tree["distillation"]["teacher"]["sha256"] = HASH
    placed = teachers().placed(tree, study.state)["distillation"]["teacher"]
    assert placed["weights"] == "/study/weights/t0000.safetensors"


def two() -> Plan:
    return plan(teachers=("one", "two"), teacher_epochs=(3, 9), taught=("ce", "recall"))


def test_teachers_run_beside_each_other_and_what_they_teach_waits_for_them() -> None:
    study = Study(two())
    assert study.next() == RunTeacher("one")
    one = study.add(TEACHER, "one")
    assert study.next() == RunTeacher("two")
    other = study.add(TEACHER, "two")
    assert study.next() == Wait()
    study.finish(one)
    assert study.next() == Wait()
    study.live.clear()
    assert study.next() == Resume(other)
    assert study.next(admits=lambda stage, epochs: stage != TEACHER) == Stop()
    assert left_out(study.plan, study.state)[0] == "2 of 2 baselines"
    study.finish(other)
    assert study.next() == RunBaseline("ce")


def test_a_teacher_that_failed_keeps_its_students_unresolved(tmp_path: Path) -> None:
    """They fail by its name, and the others are trained."""
    study = Study(two())
    study.fail(study.add(TEACHER, "one"), by_machine=False)
    study.finish(study.add(TEACHER, "two"))
    assert study.next() == RunBaseline("ce")
    from study.losses.config import LossConfig

    loss = LossConfig.model_validate({"distillation": {"teacher": {"task": "one"}}})
    assert Teachers(tasks={"one": large()}).resolved(loss, study.state) == loss


def test_epochs_are_planned_counted_and_timed_apart(tmp_path: Path) -> None:
    the_plan = two()
    assert the_plan.epochs_of(TEACHER, label="two") == 9
    assert the_plan.worst_case_epochs == plan().worst_case_epochs
    assert Plan.from_dict(the_plan.as_dict()) == the_plan
    old = {k: v for k, v in plan().as_dict().items() if not k.startswith("teacher")}
    assert Plan.from_dict(old) == plan()
    study = Study(the_plan)
    study.add(TEACHER, "one")
    progress = Progress(the_plan, study.state)
    assert progress.left[0] == Progress(plan(), Study(plan()).state).left[0]
    assert progress.text.endswith("left, and 12 of teachers")
    budget = Budget(the_plan, study.state, slots=1, seconds=1000.0, started=0.0, clock=lambda: 0.0)
    budget.observe(100.0, pace=TEACHER)
    assert budget._paces[False].epoch_s == 0.0
    assert budget.admits(TEACHER, 9, [])


def test_a_teacher_spends_the_budget_of_its_study(tmp_path: Path) -> None:
    """An epoch of the teacher takes 50 s: with 300 s it is trained, and little else."""
    slow = driver(
        tmp_path,
        kind=Timed,
        cost=lambda record, epoch, now: 50.0 if record.stage == TEACHER else 2.0,
        time_budget=120.0,
    )
    assert slow.run_session() <= 120.0
    state = load(tmp_path)
    assert state.trials["t0000"].end is None
    assert state.num_epochs == 2
    on = driver(
        tmp_path,
        kind=Timed,
        cost=lambda record, epoch, now: 50.0 if record.stage == TEACHER else 2.0,
        time_budget=400.0,
    )
    on.run_session()
    state = load(tmp_path)
    assert state.trials["t0000"].epochs == 5
    assert state.work[TEACHER].epochs == 5
    assert state.trials["t0000"].attempt == 1
    assert state.of_stage(CONFIRM)
