"""A study is prepared, left and taken up again: by other paths, other folders, other data."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_data import write_folder
from ledgers import make_study
from torch import nn

from study.core.errors import InputError
from study.ledger.journal import LEDGER, Ledger
from study.ledger.records import TrialRecord
from study.scheduler.study_scheduler import StudyScheduler
from study.session.prepare import Options, Prepared, prepare, reopen
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
    scheduler.report(first.trial, 1, {"val/miou": 0.5, "val/macc": 0.5})
    scheduler.suggest()
    ledger.close()
    return prepared


def test_a_resumed_study_trains_on_the_data_where_they_lie_by_now(
    begun: Prepared, tmp_path: Path
) -> None:
    moved = (tmp_path / "town").rename(tmp_path / "city")
    again = reopen("s", Options(storage=tmp_path / "studies", data_root=moved))
    ledger = Ledger(again.folder)
    scheduler = StudyScheduler(ledger, again.plan, again.space, again.task.config)
    roots = []
    while isinstance(step := scheduler.suggest(), TrialRecord):
        roots.append((step.stage, step.config["task"]["data"]["root"]))
        scheduler.report(step.trial, 1, {"val/miou": 0.4, "val/macc": 0.4})
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
        reopen("s", Options(storage=storage))
    other = write_folder(tmp_path / "other", train=4)
    with pytest.raises(InputError, match=r"--data-root: .* not those of the study"):
        reopen("s", Options(storage=storage, data_root=other))
    assert (begun.folder / LEDGER).read_bytes() == before


def test_a_study_needs_none_of_the_files_beside_its_ledger(begun: Prepared, tmp_path: Path) -> None:
    assert not (begun.folder / "space.yaml").exists()
    again = reopen(str(begun.folder), Options(storage=tmp_path / "elsewhere"))
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


def test_options_of_a_notebook_may_be_text_and_are_checked() -> None:
    assert Options(storage="here").studies.folder == Path("here")
    for wrong in ({"num_trials": 0}, {"max_concurrent": 0}, {"seed": -1}):
        with pytest.raises(InputError, match="must be >= "):
            Options(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("num_trials", 1.5),
        ("num_trials", True),
        ("max_concurrent", 1.5),
        ("seed", 1.5),
        ("seed", 2**70),
        ("seed", None),
        ("time_budget", float("nan")),
        ("time_budget", -1),
        ("time_budget", "30m"),
        ("max_gpu_hours", None),
        ("cpus_per_trial", -1),
        ("cpus_per_trial", float("nan")),
        ("gpus_per_trial", "0.5"),
        ("name", Path("a")),
        ("name", ""),
        ("storage", None),
        ("storage", ""),
        ("tracking_uri", Path("a")),
        ("tracking_uri", ""),
        ("address", 6379),
        ("space", 5),
        ("task", None),
    ],
)
def test_an_option_that_cannot_be_used_is_named_before_a_study_starts(
    key: str, wrong: object
) -> None:
    with pytest.raises(InputError, match=f"^--{key.replace('_', '-')}: .*, got "):
        Options(**{key: wrong})  # type: ignore[arg-type]


def test_numbers_of_numpy_are_options_too() -> None:
    options = Options(num_trials=np.int64(4), time_budget=np.float32(60))  # type: ignore[arg-type]
    assert (type(options.num_trials), type(options.time_budget)) == (int, float)


def test_a_storage_that_is_a_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path}/runs.db"
    with pytest.raises(InputError, match="--storage: not a folder"):
        prepare(Options(task="tiny", storage=tmp_path / "file" / "below", tracking_uri=uri))


def test_what_no_ledger_can_hold_is_refused_before_anything_is_written(
    tmp_path: Path, task: dict[str, Any]
) -> None:
    root = write_folder(tmp_path / "town")
    task["model"] = {
        "factory": "tests.session.test_prepare:dated",
        "kwargs": {"since": date(2020, 1, 1)},
    }
    with pytest.raises(InputError, match="consist of numbers, text, lists and mappings"):
        prepare(Options(space=FLAT, task=task, data_root=root, storage=tmp_path / "studies"))
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
    assert reopen("s", Options(storage=storage, tracking_uri=away)).tracking_uri == away
    with pytest.raises(InputError, match=r"--tracking-uri: .* must start with http"):
        reopen("s", Options(storage=storage, tracking_uri="mlruns"))
