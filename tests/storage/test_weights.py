"""The weights of confirmed trainings, in a folder and in a bucket: whole, or not there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import s3
from tiny_task import TINY

from study.config.task import TrialConfig
from study.core.files import write_text
from study.storage.s3.bucket import S3Prefix, StorageUnavailable
from study.storage.s3.mirror import fetch_files
from study.storage.s3.shipper import FileShipper
from study.storage.weights import WeightsStore


def saves(text: str) -> Callable[[Path], None]:
    return lambda path: write_text(path, text)


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WeightsStore:
    (tmp_path / "study").mkdir()
    prefix = request.getfixturevalue("prefix") if request.param == "bucket" else None
    return WeightsStore(tmp_path / "study", prefix)


def stored(store: WeightsStore) -> list[str]:
    if store.prefix is not None:
        return [item.key for item in store.prefix.items()]
    return sorted(f"weights/{path.name}" for path in store.folder.glob("weights/*"))


def test_weights_are_kept_copied_and_removed(store: WeightsStore, tmp_path: Path) -> None:
    for trial in ("t0007", "t0008", "t0009"):
        assert store.keep(trial, saves(f"of {trial}")) == ""
    target = tmp_path / "exports" / "best_miou.safetensors"
    for trial in ("t0007", "t0008"):
        assert store.copy(trial, target)
        assert target.read_text() == f"of {trial}"
    assert not store.copy("t0001", target)
    assert target.read_text() == "of t0008"
    store.keep_only({"t0008", "t0001"})
    assert stored(store) == ["weights/t0008.safetensors"]
    assert store.copy("t0008", target)


def test_a_trial_that_is_trained_again_replaces_its_weights(
    store: WeightsStore, tmp_path: Path
) -> None:
    store.keep("t0007", saves("first"))
    store.keep("t0007", saves("second"))
    assert stored(store) == ["weights/t0007.safetensors"]
    assert store.copy("t0007", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "second"


def test_weights_that_cannot_be_saved_are_told_of_and_leave_nothing(store: WeightsStore) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    def odd(path: Path) -> None:
        raise ValueError("safetensors hold tensors alone")

    assert store.keep("t0007", full).startswith("No space left on device: ")
    assert store.keep("t0007", odd) == "safetensors hold tensors alone"
    assert stored(store) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path)
    store.keep("t0007", saves("whole"))
    (tmp_path / "weights" / ".t0008.safetensors.77.partial").write_text("half")
    store.keep_only(["t0007"])
    assert stored(store) == ["weights/t0007.safetensors"]


def test_a_node_that_does_not_see_the_folder_makes_none(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path / "elsewhere")
    reason = f"this node cannot see the study's folder: {tmp_path / 'elsewhere'}"
    assert store.keep("t0007", saves("")) == reason
    assert not (tmp_path / "elsewhere").exists()


def test_a_bucket_that_refuses_is_tried_again_for_a_while(prefix: S3Prefix, tmp_path: Path) -> None:
    calls: list[str] = []

    def refuse(*_: object) -> None:
        calls.append("")
        if len(calls) < 3:
            raise StorageUnavailable(prefix.where, "access is denied")

    refusing = s3.Watched.of(prefix, before=refuse)
    assert WeightsStore(tmp_path, refusing, again=0.0).keep("t0007", saves("late")) == ""
    assert [item.key for item in prefix.items()] == ["weights/t0007.safetensors"]
    calls.clear()
    reason = WeightsStore(tmp_path, refusing, patience=0.0).keep("t0008", saves(""))
    assert reason == f"{prefix.where}: access is denied"


def test_exports_go_without_weights_where_the_bucket_is_away(
    prefix: S3Prefix, s3_server: s3.Server, tmp_path: Path
) -> None:
    store = WeightsStore(tmp_path, replace(prefix, read_seconds=0.3))
    store.keep("t0007", saves("whole"))
    with s3_server.silent():
        assert not store.copy("t0007", tmp_path / "copy")
        store.keep_only([])
    assert store.copy("t0007", tmp_path / "copy")


def test_the_driver_leaves_weights_in_the_bucket_to_the_trials(
    prefix: S3Prefix, tmp_path: Path
) -> None:
    WeightsStore(tmp_path, prefix).keep("t0007", saves("whole"))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "t0001.safetensors").write_text("of this machine")
    FileShipper(tmp_path, prefix).ship()
    assert [item.key for item in prefix.items()] == ["weights/t0007.safetensors"]
    fetch_files(prefix, tmp_path)
    assert not (tmp_path / "weights" / "t0007.safetensors").exists()


def test_a_teachers_weights_have_a_place_and_a_hash_on_each_machine(
    store: WeightsStore, tmp_path: Path
) -> None:
    """The driver, or a node that does not see its folder, fetches them from the bucket."""
    assert store.stored("t0000") is None
    store.keep("t0000", saves("of the teacher"))
    found = store.stored("t0000")
    file = tmp_path / "study" / "weights" / "t0000.safetensors"
    assert found == (str(file), hashlib.sha256(b"of the teacher").hexdigest())
    assert file.read_text() == "of the teacher"
    if store.prefix is None:
        return
    teacher = {"weights": str(file), "sha256": found[1], "model": {}}
    loss = {"distillation": {"teacher": teacher}}
    config = TrialConfig.model_validate({"task": TINY, "loss": loss})
    file.unlink()
    store.fetch_teacher(config)
    assert file.read_text() == "of the teacher"
    elsewhere = tmp_path / "t0000.safetensors"
    loss["distillation"]["teacher"] = {**teacher, "weights": str(elsewhere)}
    store.fetch_teacher(TrialConfig.model_validate({"task": TINY, "loss": loss}))
    assert not elsewhere.exists()
