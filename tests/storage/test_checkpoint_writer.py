"""Checkpoints that are written behind the training, and what a training is trained again for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from study.storage.checkpoints import (
    CheckpointWaits,
    CheckpointWriter,
    FolderCheckpointStore,
    checkpoint_key,
)

Save = Callable[[Path], None]
QUICK = CheckpointWaits(flush=30.0, close=0.2)


def of(epoch: int) -> Save:
    def save(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"after {epoch}")

    return save


def busy_writer(folder: Path) -> tuple[CheckpointWriter, threading.Event]:
    """A writer that is writing the first checkpoint until the event is set."""
    writer = CheckpointWriter(FolderCheckpointStore(folder, "t0000"), waits=QUICK)
    begun, may_end = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        begun.set()
        assert may_end.wait(30)
        of(1)(path)

    writer.keep(1, slow)
    assert begun.wait(30)
    return writer, may_end


def test_a_slow_disk_holds_up_no_training_and_gets_the_latest(tmp_path: Path) -> None:
    writer, may_end = busy_writer(tmp_path)
    for epoch in (2, 3, 4):
        writer.keep(epoch, of(epoch))  # returns, though the first is still being written
    may_end.set()
    writer.flush()
    assert [path.read_text() for path in writer.found()] == ["after 4", "after 1"]
    writer.close()


def test_what_waits_at_the_end_of_a_trial_is_not_written(tmp_path: Path) -> None:
    writer, may_end = busy_writer(tmp_path)
    writer.keep(2, of(2))
    writer.close()
    may_end.set()
    writer.flush()
    assert not (tmp_path / checkpoint_key("t0000", 2)).exists()


def test_a_full_disk_is_a_trouble_and_a_missing_folder_an_error(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    writer = CheckpointWriter(FolderCheckpointStore(tmp_path, "t0000"), waits=QUICK)
    writer.keep(1, full)
    writer.flush()
    assert writer.trouble.startswith("No space left on device: ")
    gone = CheckpointWriter(FolderCheckpointStore(tmp_path / "none", "t0000"), waits=QUICK)
    gone.keep(1, of(1))
    gone.flush()
    with pytest.raises(FileNotFoundError, match="cannot see the study's folder"):
        gone.keep(2, of(2))


def test_what_cannot_be_saved_fails_the_trial_and_holds_up_nothing(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("cannot pickle this")

    waits = CheckpointWaits(flush=3600.0, close=0.2)
    writer = CheckpointWriter(FolderCheckpointStore(tmp_path, "t0000"), waits=waits)
    writer.keep(1, broken)
    writer.flush()
    with pytest.raises(RuntimeError, match="cannot pickle this"):
        writer.keep(2, of(2))
