"""What a trial's process reports, in this process: no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from full_disk import full_at
from tiny_task import tiny

from study.config.task import TrialConfig
from study.data import open_data
from study.engine import worker
from study.engine.tune_adapter import CHECKPOINT_KEY, FAILED_KEY, REPORT_KEY
from study.storage.checkpoints import checkpoint_key
from study.training.trainer import train

WIDTH = 1


def edited(num_classes: int) -> Any:
    """A model whose code changes: `WIDTH` is not part of its config."""
    from torch import nn

    return nn.Conv2d(3, num_classes, WIDTH, padding=WIDTH // 2)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the worker tells Tune."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(worker.tune, "report", lambda result, **_: told.append(result))
    return told


@pytest.fixture
def config() -> TrialConfig:
    return tiny(model={"factory": f"{__name__}:edited"})


def run(config: TrialConfig, folder: Path, reported: int = 0, attempt: int = 0) -> None:
    settings = {
        "folder": str(folder),
        "num_threads": 1,
        "gpus": 0,
        "rungs": [],
        "keep_last": False,
        "attempt": attempt,
        "stage": "search",
        "id": "t0000",
        "prefix": None,
        "reported": reported,
    }
    worker.run({"run": settings, "trial": config.model_dump()})


def first_checkpoint(config: TrialConfig, folder: Path) -> Path:
    path = folder / checkpoint_key("t0000", 1)
    next(iter(train(config, data=open_data(config.task.data), device="cpu"))).save(path)
    return path


def test_a_damaged_checkpoint_is_no_reason_to_fail(
    tmp_path: Path, config: TrialConfig, reported: list[dict[str, Any]]
) -> None:
    path = first_checkpoint(config, tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    run(config, tmp_path, reported=1)
    assert [result[REPORT_KEY][0] for result in reported] == [1, 2]


def test_what_a_lost_driver_had_not_heard_of_is_reported_from_the_checkpoint(
    tmp_path: Path, config: TrialConfig, reported: list[dict[str, Any]]
) -> None:
    before = first_checkpoint(config, tmp_path).stat().st_mtime_ns
    run(config, tmp_path, reported=0, attempt=1)
    assert [result[REPORT_KEY][0] for result in reported] == [1, 2]
    assert (tmp_path / checkpoint_key("t0000", 1)).stat().st_mtime_ns == before, "not trained again"
    reported.clear()
    run(config, tmp_path, reported=0, attempt=0)
    assert (tmp_path / checkpoint_key("t0000", 1)).stat().st_mtime_ns > before, (
        "a trial that is new"
    )


def test_a_model_that_has_changed_under_its_checkpoint_fails_the_trial_with_one_line(
    tmp_path: Path,
    config: TrialConfig,
    reported: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = first_checkpoint(config, tmp_path)
    monkeypatch.setitem(globals(), "WIDTH", 3)
    run(config, tmp_path, reported=1)
    (only,) = reported
    reason, by_machine = only[FAILED_KEY]
    assert reason.startswith(
        f"IncompatibleCheckpoint: {path}: the checkpoint does not fit the model's"
    )
    assert "\n" not in reason
    assert not by_machine


def test_a_checkpoint_that_finds_no_room_is_no_reason_to_fail(
    tmp_path: Path, config: TrialConfig, reported: list[dict[str, Any]]
) -> None:
    open_data(config.task.data)
    with full_at(500):
        run(config, tmp_path)
    assert [result[REPORT_KEY][0] for result in reported] == [1, 2]
    kept, trouble = reported[0][CHECKPOINT_KEY]
    assert kept is None
    assert trouble == f"File too large: {tmp_path / checkpoint_key('t0000', 1)}"
