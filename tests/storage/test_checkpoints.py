"""Checkpoints: two of a trial that lives, none of one that has ended, in a folder and a bucket."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import s3

from study.storage.checkpoints import (
    BucketCheckpointStore,
    CheckpointCleaner,
    CheckpointWaits,
    FolderCheckpointStore,
    checkpoint_key,
    open_checkpoint_store,
)
from study.storage.s3.bucket import READ_SECONDS, S3Prefix, StorageUnavailable


def of(epoch: int) -> Callable[[Path], None]:
    return lambda path: _write(path, epoch)


def _write(path: Path, epoch: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"after {epoch}")


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.pt"))


def keys(prefix: S3Prefix) -> list[str]:
    return [item.key for item in prefix.items("checkpoints/")]


def test_a_folder_holds_the_two_latest(tmp_path: Path) -> None:
    store = open_checkpoint_store(tmp_path, None, "t0000")
    assert isinstance(store, FolderCheckpointStore)
    assert list(store.found()) == []
    for epoch in range(1, 12):
        store.keep(epoch, of(epoch))
        assert len(files(tmp_path)) <= 2
    assert files(tmp_path) == ["000010.pt", "000011.pt"]
    assert [path.read_text() for path in store.found()] == ["after 11", "after 10"]


def test_what_a_killed_process_had_begun_to_write_goes_with_the_next_checkpoints(
    tmp_path: Path,
) -> None:
    store = FolderCheckpointStore(tmp_path, "t0000")
    _write(tmp_path / "checkpoints" / "t0000" / ".000001.pt.77.partial", 1)
    for epoch in (1, 2):
        store.keep(epoch, of(epoch))
    left = {path.name for path in (tmp_path / "checkpoints" / "t0000").iterdir()}
    assert left == {"000001.pt", "000002.pt"}


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    store = FolderCheckpointStore(tmp_path, "t0000")
    store.keep(1, of(1))

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    store.keep(2, full)
    assert store.trouble == f"No space left on device: {tmp_path}/checkpoints/t0000/000002.pt"
    assert [path.read_text() for path in store.found()] == ["after 1"]
    store.keep(3, of(3))
    assert store.trouble == ""
    assert [path.read_text() for path in store.found()] == ["after 3", "after 1"]


def test_a_folder_that_this_node_does_not_see_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="this node cannot see the study's folder"):
        FolderCheckpointStore(tmp_path / "elsewhere", "t0000").keep(1, of(1))


def test_a_bucket_comes_to_hold_the_two_latest_and_gives_them_back(
    prefix: S3Prefix, tmp_path: Path
) -> None:
    store = open_checkpoint_store(tmp_path, prefix.uri, "t0000")
    assert isinstance(store, BucketCheckpointStore)
    store.keep(1, of(1))
    wait_for(lambda: keys(prefix) == [checkpoint_key("t0000", 1)])
    for epoch in range(2, 6):
        store.flush()
        store.keep(epoch, of(epoch))
    store.close()
    wait_for(lambda: keys(prefix) == [checkpoint_key("t0000", epoch) for epoch in (4, 5)])
    again = BucketCheckpointStore(prefix, "t0000")
    assert [path.read_text() for path in again.found()] == ["after 5", "after 4"]
    path = next(iter(again.found()))
    again.keep(6, of(6))
    assert not path.exists(), "nothing is left beside a training that goes on"
    again.close()
    assert list(tmp_path.iterdir()) == [], "nothing is written to the study's folder here"


def test_a_silent_bucket_holds_up_no_epoch_and_gets_the_latest(
    prefix: S3Prefix, s3_server: s3.Server
) -> None:
    store = BucketCheckpointStore(prefix, "t0000")
    with s3_server.silent():
        start = time.monotonic()
        for epoch in range(1, 9):
            store.keep(epoch, of(epoch))
        assert time.monotonic() - start < READ_SECONDS, "no epoch has waited for an answer"
    wait_for(lambda: checkpoint_key("t0000", 8) in keys(prefix))
    store.close()
    assert len(keys(prefix)) <= 2


def test_a_bucket_that_refuses_is_told_of_and_tried_again(prefix: S3Prefix) -> None:
    allowed = threading.Event()

    def refuse(*_: object) -> None:
        if not allowed.is_set():
            raise StorageUnavailable(prefix.where, "access is denied")

    refusing = s3.Watched.of(prefix, before=refuse)
    store = BucketCheckpointStore(refusing, "t0000", waits=CheckpointWaits(again=0.01))
    store.keep(1, of(1))
    wait_for(lambda: bool(store.trouble))
    assert store.trouble == f"{prefix.where}: access is denied"
    allowed.set()
    store.flush()
    assert store.trouble == ""
    assert keys(prefix) == [checkpoint_key("t0000", 1)], "flush has waited until it was there"
    store.close()


def test_a_node_without_room_is_told_of_and_the_trial_goes_on(prefix: S3Prefix) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    store = BucketCheckpointStore(prefix, "t0000")
    store.keep(1, full)
    assert store.trouble.startswith("No space left on device: ")
    store.keep(2, of(2))
    store.flush()
    assert store.trouble == ""
    store.close()
    assert keys(prefix) == [checkpoint_key("t0000", 2)]


def test_a_restart_waits_for_a_bucket_that_comes_back_and_not_for_ever(prefix: S3Prefix) -> None:
    prefix.put(checkpoint_key("t0000", 1), b"after 1")
    tries: list[str] = []

    def away(below: str) -> None:
        tries.append(below)
        if len(tries) < 3:
            raise StorageUnavailable(prefix.where, "away")

    def found(waits: CheckpointWaits) -> list[str]:
        store = BucketCheckpointStore(s3.Watched.of(prefix, listing=away), "t0000", waits=waits)
        return [path.read_text() for path in store.found()]

    assert found(CheckpointWaits(again=0.01)) == ["after 1"]
    tries.clear()
    assert found(CheckpointWaits(again=0.01, restore=0.0)) == []


def test_what_a_process_had_no_time_to_remove_of_a_trial_that_lives_is_removed(
    prefix: S3Prefix, tmp_path: Path
) -> None:
    for epoch in (1, 2, 9, 10):
        prefix.put(checkpoint_key("t0000", epoch), io.BytesIO(b"x"))
    CheckpointCleaner(tmp_path, prefix.uri, lambda trial: None).close()
    assert keys(prefix) == [checkpoint_key("t0000", epoch) for epoch in (9, 10)]


def test_what_comes_while_it_looks_for_the_last_but_one_time_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "t0000"
    folder.mkdir(parents=True)
    looks: list[str] = []
    began, go_on = threading.Event(), threading.Event()

    def needed(trial: str) -> None:
        looks.append(trial)
        began.set()
        assert go_on.wait(60)

    cleaner = CheckpointCleaner(tmp_path, None, needed, waits=CheckpointWaits(pause=0.0))
    assert began.wait(60)
    cleaner.close(timeout=0.0)
    go_on.set()
    wait_for(lambda: len(looks) == 2)


def test_in_a_folder_a_trial_that_lives_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "t0000"
    folder.mkdir(parents=True)
    names = {".000004.pt.1.partial", "000001.pt", "000002.pt", "000003.pt"}
    for name in names:
        (folder / name).touch()
    CheckpointCleaner(tmp_path, None, lambda trial: None).close()
    assert {path.name for path in folder.iterdir()} == names


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_what_nobody_needs_any_more_is_removed(
    where: str, prefix: S3Prefix, tmp_path: Path
) -> None:
    waits = CheckpointWaits(pause=0.01, sweep=0.1)
    address = prefix.uri if where == "bucket" else None
    needed: dict[str, int | None] = {"t0000": None, "t0001": None}

    def there() -> dict[str, int]:
        found = keys(prefix) if address else [str(path) for path in tmp_path.rglob("*.pt")]
        return dict(Counter(key.split("/")[-2] for key in found))

    for trial in ("t0000", "t0001", "orphan"):
        store = open_checkpoint_store(tmp_path, address, trial)
        for epoch in (1, 2):
            store.keep(epoch, of(epoch))
            store.flush()
        store.close()
    assert there() == {"t0000": 2, "t0001": 2, "orphan": 2}
    cleaner = CheckpointCleaner(tmp_path, address, lambda trial: needed.get(trial, 0), waits=waits)
    wait_for(lambda: there() == {"t0000": 2, "t0001": 2})
    needed["t0001"] = 0
    cleaner.notify()
    wait_for(lambda: there() == {"t0000": 2})
    needed["t0000"] = 1
    cleaner.close()
    assert there() == {"t0000": 1}
    last = open_checkpoint_store(tmp_path, address, "t0000")
    assert [path.read_text() for path in last.found()] == ["after 2"]
    last.close()
