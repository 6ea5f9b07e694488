"""A study is prepared, left and taken up again: by other paths, other folders, other data."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_data import write_folder
from ledgers import make_study
from torch import nn

from study.config.task import TaskConfig, load_task
from study.core.errors import InputError
from study.ledger.journal import LEDGER, Ledger
from study.ledger.records import TrialRecord
from study.scheduler.study_scheduler import StudyScheduler
from study.session.options import Options
from study.session.prepare import Prepared, describe_plan, prepare, reopen
from study.storage.studies import find

FLAT: dict[str, Any] = {
    "loss": {"jaccard": {"mix": {"float": {"low": 0.1, "high": 0.9}}}},
    "study": {"num_trials": 3, "reference_trials": 1, "baselines": ["ce"], "rungs": None},
}


@pytest.fixture
def task() -> dict[str, Any]:
    return {
        "data": {"format": "folder", "size": [32, 32]},
        "model": {"factory": "engine_parts:build", "kwargs": {"log": "/dev/null"}},
        "optimizer": {"name": "adamw", "lr": 0.01},
        "batch_size": 2,
        "budget": {"epochs": 1},
    }


@pytest.fixture
def begun(tmp_path: Path, task: dict[str, Any]) -> Prepared:
    """A study on a folder of images whose first trial is finished and whose second is not."""
    root = write_folder(tmp_path / "town")
    options = Options(space=FLAT, task=task, data_root=root, storage=tmp_path / "studies", name="s")
    prepared = prepare(options)
    assert prepared.first_line is not None
    ledger = Ledger(prepared.folder)
    ledger.append(prepared.first_line)
    scheduler = StudyScheduler(ledger, prepared.plan, prepared.space, prepared.task.config)
    first = scheduler.suggest()
    assert isinstance(first, TrialRecord)
    scheduler.on_report(first.trial, 1, {"val/miou": 0.5, "val/macc": 0.5})
    scheduler.suggest()
    ledger.close()
    return prepared


def test_a_resumed_study_trains_on_the_data_where_they_lie_by_now(
    begun: Prepared, tmp_path: Path
) -> None:
    moved = (tmp_path / "town").rename(tmp_path / "city")
    again = reopen("s", Options(storage=tmp_path / "studies", data_root=moved), trust=True)
    ledger = Ledger(again.folder)
    scheduler = StudyScheduler(ledger, again.plan, again.space, again.task.config)
    roots = []
    while isinstance(step := scheduler.suggest(), TrialRecord):
        roots.append((step.stage, step.config["task"]["data"]["root"]))
        scheduler.on_report(step.trial, 1, dict.fromkeys(again.plan.objectives, 0.4))
    ledger.close()
    assert {stage for stage, _ in roots} == {"reference", "search", "confirm"}
    assert {root for _, root in roots} == {str(moved)}


def test_a_study_is_not_resumed_without_its_data_or_on_others(
    begun: Prepared, tmp_path: Path
) -> None:
    before = (begun.folder / LEDGER).read_bytes()
    (tmp_path / "town").rename(tmp_path / "city")
    storage = tmp_path / "studies"
    with pytest.raises(InputError, match="town"):
        reopen("s", Options(storage=storage), trust=True)
    other = write_folder(tmp_path / "other", train=4)
    with pytest.raises(InputError, match=r"--data-root: .* not those of the study"):
        reopen("s", Options(storage=storage, data_root=other), trust=True)
    assert (begun.folder / LEDGER).read_bytes() == before


def test_a_study_that_began_with_an_image_in_two_splits_goes_on(
    tmp_path: Path, task: dict[str, Any]
) -> None:
    """Earlier versions did not look for them; their ledgers have no key for it."""
    root = write_folder(tmp_path / "town")
    shutil.copyfile(root / "images/train/000.png", root / "images/test/000.png")
    options = Options(space=FLAT, task=task, data_root=root, storage=tmp_path / "studies", name="s")
    with pytest.raises(InputError, match="in two splits"):
        prepare(options)
    task["data"]["duplicates"] = "warn"
    line = prepare(options).first_line
    assert line is not None
    assert line.data["warnings"][-1].startswith("images in two splits: 1, as ")
    del line.task["data"]["duplicates"]
    ledger = Ledger(tmp_path / "studies" / "s")
    ledger.append(line)
    ledger.close()
    again = reopen("s", options, trust=True).state.study
    assert again is not None
    assert again.data == line.data


def test_a_study_that_began_with_a_class_never_trained_goes_on_with_a_warning(
    tmp_path: Path, task: dict[str, Any]
) -> None:
    """Earlier versions began such studies; their ledgers have no key for it."""
    root = write_folder(tmp_path / "town")
    (root / "classes.yaml").write_text("classes: [road, car, pole, kerb]\n")
    options = Options(space=FLAT, task=task, data_root=root, storage=tmp_path / "studies", name="s")
    with pytest.raises(InputError, match="no training pixel"):
        prepare(options)
    task["data"]["absent"] = ["kerb"]
    line = prepare(options).first_line
    assert line is not None
    del line.task["data"]["absent"]
    ledger = Ledger(tmp_path / "studies" / "s")
    ledger.append(line)
    ledger.close()
    again = reopen("s", options, trust=True)
    assert "warning: data: a class has no training pixel" in describe_plan(again, options)


def test_a_study_needs_none_of_the_files_beside_its_ledger(begun: Prepared, tmp_path: Path) -> None:
    assert not (begun.folder / "space.yaml").exists()
    again = reopen(str(begun.folder), Options(storage=tmp_path / "elsewhere"), trust=True)
    assert again.plan == begun.plan
    assert again.space.tree == begun.space.tree


def test_a_home_folder_is_the_same_for_the_study_and_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    prepared = prepare(Options(task="tiny", storage=Path("~/studies")))
    assert prepared.folder == tmp_path / "studies" / "joint-tiny"
    assert prepared.tracking_uri == f"sqlite:///{tmp_path}/studies/mlflow.db"
    make_study(tmp_path / "studies" / "s", until="start")
    assert find("s", Path("~/studies")) == tmp_path / "studies" / "s"


def test_a_database_is_the_same_from_every_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = Options(task="tiny", storage=tmp_path / "studies", tracking_uri="sqlite:///runs.db")
    assert prepare(options).tracking_uri == f"sqlite:///{tmp_path}/runs.db"


def test_a_storage_that_is_a_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path}/runs.db"
    with pytest.raises(InputError, match="--storage: not a folder"):
        prepare(Options(task="tiny", storage=tmp_path / "file" / "below", tracking_uri=uri))


def test_what_no_ledger_can_hold_is_refused_before_anything_is_written(
    tmp_path: Path, task: dict[str, Any]
) -> None:
    root = write_folder(tmp_path / "town")
    task["model"] = {"factory": f"{__name__}:dated", "kwargs": {"since": date(2020, 1, 1)}}
    given = {"space": FLAT, "data_root": root, "storage": tmp_path / "studies"}
    with pytest.raises(InputError, match="a date is not allowed, got '2020-01-01'"):
        prepare(Options.of({**given, "task": task}))
    custom = TaskConfig.model_validate(task)
    with pytest.raises(InputError, match="consist of numbers, text, lists and mappings"):
        prepare(Options.of({**given, "task": custom}))
    assert not (tmp_path / "studies").exists()


def dated(num_classes: int, since: date) -> nn.Module:
    """A model whose kwargs hold a date."""
    return nn.Conv2d(3, num_classes, 1)


def test_a_ledger_without_a_first_line_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / LEDGER).touch()
    with pytest.raises(InputError, match="begin anew"):
        reopen("s", Options(storage=tmp_path))


def test_on_resume_a_tracking_server_may_be_away_but_its_address_is_checked(
    begun: Prepared, tmp_path: Path
) -> None:
    storage = tmp_path / "studies"
    away = "http://127.0.0.1:1"
    given = Options(storage=storage, tracking_uri=away)
    assert reopen("s", given, trust=True).tracking_uri == away
    with pytest.raises(InputError, match=r"--tracking-uri: .* must start with http"):
        reopen("s", Options(storage=storage, tracking_uri="mlruns"), trust=True)


def test_a_task_of_a_notebook_may_be_an_object(tmp_path: Path) -> None:
    config = load_task("tiny").config
    named = prepare(Options.of({"task": load_task("tiny"), "storage": tmp_path / "studies"}))
    assert (named.name, named.task.config) == ("joint-tiny", config)
    custom = prepare(Options.of({"task": config, "storage": tmp_path / "studies"}))
    assert (custom.name, custom.task.config) == ("joint-custom", config)


def test_a_mapping_may_hold_one_part_twice(tmp_path: Path) -> None:
    part = FLAT["loss"]["jaccard"]["mix"]
    space = {**FLAT, "loss": {"jaccard": {"mix": part}, "recall": {"ema_momentum": part}}}
    prepared = prepare(Options(space=space, task="tiny", storage=tmp_path / "studies"))
    assert prepared.first_line is not None
    assert prepared.first_line.space == space


@pytest.mark.parametrize("option", ["space", "task"])
def test_a_mapping_that_yaml_cannot_hold_is_bad_input(option: str) -> None:
    given = {"space": {"loss": {"focal_gamma": np.float64(1)}}, "task": {"batch_size": np.int64(1)}}
    with pytest.raises(InputError, match=r"must be made of numbers, .* got a (float|int)64"):
        prepare(Options.of({option: given[option]}))


@pytest.mark.parametrize(
    ("in_space", "flag", "gpus", "seeds"),
    [
        (None, None, 0.0, 3),
        (None, None, 0.5, 5),
        (4, None, 1.0, 4),
        (None, 2, 1.0, 2),
        (4, 6, 0.0, 6),
    ],
)
def test_seeds_are_as_given_else_more_where_trials_get_gpus(
    tmp_path: Path, in_space: int | None, flag: int | None, gpus: float, seeds: int
) -> None:
    confirm = {"top": 1} if in_space is None else {"top": 1, "num_seeds": in_space}
    space = {**FLAT, "study": {**FLAT["study"], "confirm": confirm}}
    options = Options(space=space, task="tiny", confirm_seeds=flag, storage=tmp_path)
    prepared = prepare(options).with_gpus(gpus)
    assert prepared.plan.confirm_seeds == seeds
    assert prepared.first_line is not None
    assert prepared.first_line.plan == prepared.plan.as_dict()


def test_a_study_keeps_its_number_of_seeds(begun: Prepared, tmp_path: Path) -> None:
    storage = tmp_path / "studies"
    again = reopen("s", Options(storage=storage, confirm_seeds=3), trust=True)
    assert again.with_gpus(1.0).plan.confirm_seeds == 3
    with pytest.raises(InputError, match="confirm_seeds of this study is 3 and cannot change"):
        reopen("s", Options(storage=storage, confirm_seeds=5), trust=True)


def test_a_plan_for_a_cluster_that_is_away_names_both_numbers_of_seeds(tmp_path: Path) -> None:
    def said(**options: Any) -> str:
        asked = Options(space=FLAT, task="tiny", storage=tmp_path, address="away:1", **options)
        return describe_plan(prepare(asked), asked)

    assert "3 fresh seeds" in said() and "; 5 seeds if its nodes have GPUs" in said()
    assert "5 fresh seeds" in said(gpus_per_trial=1.0)
    assert "nodes have GPUs" not in said(gpus_per_trial=0.0) + said(confirm_seeds=3)


@pytest.mark.parametrize(("most", "seeds"), [(4, 4), (8, 5)])
def test_where_seeds_may_be_added_the_first_ones_are_no_more_than_all(
    tmp_path: Path, most: int, seeds: int
) -> None:
    confirm = {"half_width": 1.5, "max_seeds": most}
    space = {**FLAT, "study": {**FLAT["study"], "confirm": confirm}}
    prepared = prepare(Options(space=space, task="tiny", storage=tmp_path))
    assert prepared.plan.confirm_seeds == 3
    assert prepared.with_gpus(1.0).plan.confirm_seeds == seeds
    for wrong in (2, most + 1):
        with pytest.raises(InputError, match="--confirm-seeds: confirm_seeds must be from 3 to "):
            prepare(Options(space=space, task="tiny", storage=tmp_path, confirm_seeds=wrong))


def test_a_study_is_reopened_with_more_trials(begun: Prepared, tmp_path: Path) -> None:
    options = Options(storage=tmp_path / "studies")
    again = reopen("s", options, trust=True, more_trials=5)
    assert again.plan.num_trials == 8 and again.plan.extended == ((3, 1),)
    assert again.amendment is not None
    assert (again.amendment.plan["num_trials"], again.amendment.space) == (8, None)
    assert "search (8)" in describe_plan(again, options)
    assert reopen("s", options, trust=True).amendment is None
    with pytest.raises(InputError, match=r"--more-trials: a study has at most 1,000,000 searched"):
        reopen("s", options, trust=True, more_trials=10**6)
    with pytest.raises(InputError, match="cannot change, got 4; --more-trials N adds some"):
        reopen("s", Options(storage=tmp_path / "studies", num_trials=4), trust=True)


def test_a_study_is_reopened_with_longer_trainings_once(begun: Prepared, tmp_path: Path) -> None:
    options = Options(storage=tmp_path / "studies", longer=4, ablate=True)
    again = reopen("s", options, trust=True)
    assert again.amendment is not None and again.amendment.space is None
    assert again.plan == replace(
        begun.plan, confirm_budgets=(1, 4), confirm_ablations=again.plan.confirm_ablations
    )
    assert again.plan.confirm_ablations >= 1
    assert "for 4 times the epochs" in describe_plan(again, options)
    ledger = Ledger(begun.folder)
    ledger.append(again.amendment)
    ledger.close()
    once_more = reopen("s", options, trust=True)
    assert once_more.amendment is None and once_more.plan == again.plan


def test_a_finished_study_has_trials_to_run_if_it_gets_more(
    begun: Prepared, tmp_path: Path
) -> None:
    again = reopen("s", Options(storage=tmp_path / "studies"), trust=True, more_trials=5)
    assert replace(again, amendment=None).has_trials_to_run
    again.state.finished = True
    assert again.has_trials_to_run
    assert not replace(again, amendment=None).has_trials_to_run


def test_a_study_is_reopened_with_another_space(begun: Prepared, tmp_path: Path) -> None:
    options = Options(storage=tmp_path / "studies")
    changed = {**FLAT, "loss": {"jaccard": {"mix": {"float": {"low": 0.5, "high": 0.9}}}}}
    again = reopen("s", options, trust=True, changed_space=changed)
    assert again.amendment is not None and again.amendment.space is not None
    assert again.amendment.space["loss"] == changed["loss"]
    assert again.space.settings == begun.space.settings
    wrong = {**changed, "loss": {"jaccard": {"mix": {"float": {"low": 0.5, "high": 1.9}}}}}
    with pytest.raises(InputError, match="loss/jaccard/mix"):
        reopen("s", options, trust=True, changed_space=wrong)
    other = {**changed, "study": {**FLAT["study"], "sampler": "random"}}
    with pytest.raises(InputError, match="study/sampler: a study keeps its sampler"):
        reopen("s", options, trust=True, changed_space=other)


NEAR: dict[str, Any] = {
    "loss": {
        "recall": {"choice": {"off": None, "ema": {"ema_momentum": 0.9}}},
        "jaccard": {
            "choice": {"off": {"mix": 0.0}, "on": {"mix": {"float": {"low": 0.3, "high": 0.9}}}}
        },
    },
    "optimizer": {"lr_scale": {"float": {"low": 0.25, "high": 4.0, "log": True}}},
    "study": {"num_trials": 12, "reference_trials": 1, "baselines": ["ce"], "rungs": None},
}


def of_space(**settings: Any) -> dict[str, Any]:
    return {**NEAR, "study": {**NEAR["study"], **settings}}


@pytest.mark.slow
def test_a_warm_start_is_written_down_and_needs_no_other_study_on_resume(tmp_path: Path) -> None:
    storage = tmp_path / "studies"
    for seed, name in enumerate(("one", "two")):
        make_study(storage / name, seed=seed)
    given = Options(space=NEAR, task="tiny", storage=storage, name="s", warm_start=("one", "two"))
    prepared = prepare(given)
    assert prepared.first_line is not None and prepared.first_line.prior is not None
    said = describe_plan(prepared, given)
    count = len(prepared.first_line.prior["studies"][0]["points"])
    line = f"warm start from one: {count} of its 21 trials"
    assert 10 < count < 21
    assert f"{line}; left out: {21 - count} not in this space; it has no val/tuned/miou" in said
    assert "warm start from two: " in said
    of_file = of_space(warm_start=["one", str(storage / "two")])
    again = prepare(Options(space=of_file, task="tiny", storage=storage, name="t"))
    assert again.first_line is not None
    assert again.first_line.prior == prepared.first_line.prior
    alone = prepare(Options(space=of_file, task="tiny", storage=storage, warm_start=("one",)))
    assert alone.first_line is not None and alone.first_line.prior is not None
    assert alone.first_line.prior["studies"] == prepared.first_line.prior["studies"][:1]

    ledger = Ledger(prepared.folder)
    ledger.append(prepared.first_line)
    scheduler = StudyScheduler(ledger, prepared.plan, prepared.space, prepared.task.config, slots=9)
    first = [scheduler.suggest() for _ in range(9)]
    ledger.close()
    for name in ("one", "two"):
        shutil.rmtree(storage / name)
    shutil.rmtree(prepared.folder)
    ledger = Ledger(prepared.folder)
    ledger.append(prepared.first_line)
    ledger.close()
    resumed = reopen("s", Options(storage=storage), trust=True)
    assert line in describe_plan(resumed, given)
    ledger = Ledger(resumed.folder)
    scheduler = StudyScheduler(ledger, resumed.plan, resumed.space, resumed.task.config, slots=9)
    second = [scheduler.suggest() for _ in range(9)]
    ledger.close()
    found = [
        [(t.proposed_by, t.params) for t in trials if isinstance(t, TrialRecord)]
        for trials in (first, second)
    ]
    assert found[0] == found[1]
    assert "warm_start" in {by for by, _ in found[0]}


@pytest.mark.parametrize(
    ("given", "space", "line"),
    [
        ((), of_space(warm_start=["nobody"]), "study/warm_start: no study named 'nobody' in "),
        (("nobody",), NEAR, "--warm-start: no study named 'nobody' in .* did you mean 'nobody2'"),
        (("one",), of_space(sampler="random"), "--warm-start: nothing learns from earlier studies "
         "where the sampler is random; leave it out, or use sampler: model"),
        (("one", "studies/../studies/one"), NEAR, "--warm-start: the study one is named twice"),
        (("one",), {**NEAR, "loss": {**NEAR["loss"], "label_smoothing": 0.1}}, "--warm-start: of "
         r"one 0 trials can be taken over, and a warm start needs 4 \(left out: 21 not in this "),
    ],
)  # fmt: skip
def test_a_warm_start_from_what_tells_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, space: Any, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_study(Path("studies/one"))
    make_study(Path("studies/nobody2"), until="start")
    with pytest.raises(InputError, match=line):
        prepare(Options(space=space, task="tiny", warm_start=given))
    assert not Path("studies/s").exists()
