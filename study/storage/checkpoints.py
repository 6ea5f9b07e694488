"""Stores the checkpoints of trials, and removes those that are no longer needed.

A running trial has its two latest checkpoints, an ended one none (or its last, on request). They
are ``checkpoints/<trial>/<epoch>.pt`` below a study's folder or, with storage in a bucket, below
its prefix. A trial's result is that of its last epoch, so no best epoch's checkpoint is kept. The
second latest serves if the latest is damaged. After the loss of a machine both may be newer than
the trial's last ledger line: a checkpoint remembers reports.

In a folder a checkpoint is complete before its epoch is reported. To a bucket it is sent during the
next epoch; if the bucket is slow, only the latest is sent: no trial waits. A stopped study may
leave a third one in the bucket, since its trial ended between an upload and a removal; --resume
removes it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from study.core.names import CHECKPOINTS
from study.storage.s3.bucket import S3Prefix, StorageUnavailable
from study.training.checkpoint import CHECKPOINT

KEPT = 2
T = TypeVar("T")
Save = Callable[[Path], None]


@dataclass(frozen=True)
class CheckpointWaits:
    """Seconds that checkpoints wait for.

    again: between two tries at a bucket that does not answer. restore: at most, for a bucket to
    answer a trial that starts. flush: at most, for the latest checkpoint to arrive. close: the
    same, at a trial's end; Tune gives up on a stopped trial's process after 2. sweep: between two
    looks of the cleaner at a bucket. pause: after a trial's end, before the cleaner looks.
    """

    again: float = 5.0
    restore: float = 60.0
    flush: float = 60.0
    close: float = 1.5
    sweep: float = 30.0
    pause: float = 0.5


WAITS = CheckpointWaits()


def checkpoint_key(trial: str, epoch: int) -> str:
    """The key of the checkpoint after an epoch, below a study's folder or prefix."""
    return f"{CHECKPOINTS}/{trial}/{epoch:06d}.pt"


def _epoch(name: str) -> int:
    stem = name.rpartition("/")[2].removesuffix(".pt")
    return int(stem) if stem.isdigit() else 0


class _Latest(Generic[T]):
    """Hands items to `handle` in a thread of its own. One that still waits is replaced by the next
    and goes to `drop`. What waits when it is closed is still handled.
    """

    def __init__(
        self, handle: Callable[[T], None], drop: Callable[[T], None] | None = None, *, thread: str
    ) -> None:
        self._handle = handle
        self._drop = drop
        self._thread = thread
        self._changed = threading.Condition()
        self._waiting: T | None = None
        self._is_busy = self._is_closed = self._has_begun = False

    def put(self, item: T) -> None:
        with self._changed:
            self.clear()
            self._waiting = item
            self._changed.notify_all()
            if not self._has_begun:
                self._has_begun = True
                threading.Thread(target=self._loop, daemon=True, name=self._thread).start()

    def clear(self) -> None:
        """Drop the item that waits."""
        with self._changed:
            if self._waiting is not None and self._drop is not None:
                self._drop(self._waiting)
            self._waiting = None

    def wait(self, seconds: float) -> None:
        """Wait until every item is handled, for at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not self._is_busy, seconds)

    def is_superseded(self, seconds: float) -> bool:
        """Wait for at most `seconds`; return whether another item waits, or none will come."""
        with self._changed:
            self._changed.wait(seconds)
            return self._waiting is not None or self._is_closed

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting is not None or self._is_closed)
                if self._waiting is None:
                    return
                item, self._waiting = self._waiting, None
                self._is_busy = True
            self._handle(item)


class FolderCheckpointStore:
    """The checkpoints of a trial in a folder that every node sees."""

    def __init__(self, folder: Path, trial: str) -> None:
        self._folder = folder
        self._trial = trial
        self.trouble = ""

    def keep(self, epoch: int, save: Save) -> None:
        """Write a checkpoint, and remove all but the two latest.

        If it cannot be written, `trouble` tells why and the earlier ones remain: a full disk must
        not cost a trial. A missing folder raises OSError.
        """
        if not self._folder.is_dir():
            raise FileNotFoundError(2, "this node cannot see the study's folder", str(self._folder))
        key = checkpoint_key(self._trial, epoch)
        try:
            save(self._folder / key)
            for name in sorted(self._files(), key=_epoch)[:-KEPT]:
                (self._folder / CHECKPOINTS / self._trial / name).unlink(missing_ok=True)
        except OSError as error:
            self.trouble = f"{error.strerror}: {error.filename}"
        else:
            self.trouble = ""

    def found(self) -> Iterator[Path]:
        """Yield the existing checkpoints, latest first."""
        for name in sorted(self._files(), key=_epoch, reverse=True):
            if _epoch(name):
                yield self._folder / CHECKPOINTS / self._trial / name

    def flush(self) -> None:
        """Do nothing: every write is complete."""

    def close(self) -> None:
        """Do nothing: every write is complete."""

    def _files(self) -> list[str]:
        try:
            return [path.name for path in (self._folder / CHECKPOINTS / self._trial).iterdir()]
        except FileNotFoundError:
            return []


class BucketCheckpointStore:
    """The checkpoints of a trial in a bucket, sent by a thread of the trial's process.

    A checkpoint that waits is an unnamed file, which vanishes with the process, however it ends.
    """

    def __init__(self, prefix: S3Prefix, trial: str, *, waits: CheckpointWaits = WAITS) -> None:
        self._prefix = prefix
        self._trial = trial
        self._waits = waits
        self._uploads: _Latest[tuple[int, BinaryIO]] = _Latest(
            self._send, drop=lambda one: one[1].close(), thread="checkpoints"
        )
        self.trouble = ""  # why the latest has not arrived, in words
        self._taken_up: tempfile.TemporaryDirectory[str] | None = None

    def keep(self, epoch: int, save: Save) -> None:
        """Queue a checkpoint in place of one that still waits.

        If this node has no room for it, `trouble` tells so.
        """
        self._forget()
        try:
            file = _unnamed_copy(save)
        except OSError as error:
            self.trouble = f"{error.strerror}: {error.filename}"
            return
        self._uploads.put((epoch, file))

    def found(self) -> Iterator[Path]:
        """Yield the existing checkpoints, latest first; yield none if the bucket does not answer
        for a minute.

        Each file exists until the next one, or until `keep`.
        """
        start = time.monotonic()
        while True:
            try:
                for key in sorted(self._keys(), key=_epoch, reverse=True):
                    if _epoch(key):
                        self._forget()
                        self._taken_up = tempfile.TemporaryDirectory()
                        path = Path(self._taken_up.name) / CHECKPOINT
                        if self._prefix.download(key, path):
                            yield path
            except StorageUnavailable:
                if time.monotonic() - start < self._waits.restore:
                    time.sleep(self._waits.again)
                    continue
            return

    def flush(self) -> None:
        """Wait until the latest has arrived, at most a minute."""
        self._uploads.wait(self._waits.flush)

    def close(self) -> None:
        """Wait a moment for the upload, unless the bucket is away; the thread ends with it."""
        self._uploads.close()
        self._forget()
        if not self.trouble:
            self._uploads.wait(self._waits.close)

    def _forget(self) -> None:
        if self._taken_up is not None:
            self._taken_up.cleanup()
            self._taken_up = None

    def _keys(self) -> list[str]:
        return [item.key for item in self._prefix.items(f"{CHECKPOINTS}/{self._trial}/")]

    def _send(self, one: tuple[int, BinaryIO]) -> None:
        epoch, file = one
        with file:
            while not self._sent(checkpoint_key(self._trial, epoch), file):
                if self._uploads.is_superseded(self._waits.again):
                    return

    def _sent(self, key: str, file: BinaryIO) -> bool:
        arrived = False
        try:
            file.seek(0)
            self._prefix.put(key, file)
            arrived = True
            self._prefix.delete(sorted(self._keys(), key=_epoch)[:-KEPT])
        except StorageUnavailable as error:
            self.trouble = str(error)
            return arrived
        self.trouble = ""
        return True


class CheckpointWriter:
    """Writes the checkpoints of a trial behind its training, in a thread of its process: `save`
    must be good from any thread. One that still waits is replaced by the next.

    A study whose driver or node dies may so lack the latest.
    """

    def __init__(self, store: CheckpointStore, *, waits: CheckpointWaits = WAITS) -> None:
        self._store = store
        self._waits = waits
        self._writes: _Latest[tuple[int, Save]] = _Latest(self._write, thread="writer")
        self.trouble = ""  # why the latest is not kept, in words
        self._error: Exception | None = None

    def keep(self, epoch: int, save: Save) -> None:
        """Queue a checkpoint. Raises what an earlier one has failed with, such as the OSError of a
        missing folder."""
        if self._error is not None:
            raise self._error
        self._writes.put((epoch, save))

    def found(self) -> Iterator[Path]:
        """Yield the existing checkpoints, latest first."""
        return self._store.found()

    def flush(self) -> None:
        """Wait until the latest is written, at most a minute, and has arrived."""
        self._writes.wait(self._waits.flush)
        self._store.flush()

    def close(self) -> None:
        """Wait a moment for the one that is being written; the thread ends with it."""
        self._writes.clear()
        self._writes.close()
        self._writes.wait(self._waits.close)
        self._store.close()

    def _write(self, one: tuple[int, Save]) -> None:
        try:
            self._store.keep(*one)
        except Exception as error:  # the trial's own, as if it had saved by itself
            self._error = error
        self.trouble = self._store.trouble


CheckpointStore = FolderCheckpointStore | BucketCheckpointStore | CheckpointWriter


def _unnamed_copy(save: Save) -> BinaryIO:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CHECKPOINT
        save(path)
        return open(path, "rb")


def open_checkpoint_store(folder: Path, prefix: str | None, trial: str) -> CheckpointStore:
    """The checkpoint store of a trial: in the bucket at the address `prefix`, else in the
    study's folder."""
    if prefix is None:
        return FolderCheckpointStore(folder, trial)
    return BucketCheckpointStore(S3Prefix.parse(prefix), trial)


class CheckpointCleaner:
    """A thread of the driver that removes checkpoints which are no longer needed.

    needed: how many checkpoints of a trial, given its id, to keep; None for a running trial. In a
    folder a running trial removes its own. In a bucket its process may end between an upload and a
    removal, or still be sending when its trial ends, so the cleaner looks again.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str | None,
        needed: Callable[[str], int | None],
        *,
        waits: CheckpointWaits = WAITS,
    ) -> None:
        self._folder = folder / CHECKPOINTS
        self._prefix = S3Prefix.parse(prefix) if prefix is not None else None
        self._needed = needed
        self._waits = waits
        self._notified = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="checkpoint-cleaner")
        self._notified.set()  # remove what an earlier session left
        self._thread.start()

    def notify(self) -> None:
        """Announce that a trial has ended."""
        self._notified.set()

    def close(self, timeout: float = 10.0) -> None:
        """Clean once more, for at most `timeout` seconds."""
        self._closing.set()
        self._notified.set()
        self._thread.join(timeout)

    def _loop(self) -> None:
        closing = False
        while not closing:
            self._notified.wait(None if self._prefix is None else self._waits.sweep)
            self._closing.wait(self._waits.pause)
            self._notified.clear()
            closing = self._closing.is_set()
            with contextlib.suppress(StorageUnavailable, OSError):
                self._sweep()

    def _sweep(self) -> None:
        if self._prefix is not None:
            keys = [item.key for item in self._prefix.items(f"{CHECKPOINTS}/")]
            by_trial = itertools.groupby(keys, key=lambda key: key.split("/")[1])
            for trial, found in by_trial:
                needed = self._needed(trial)
                self._prefix.delete(_all_but(KEPT if needed is None else needed, found))
            return
        for folder in self._folder.iterdir():
            needed = self._needed(folder.name)
            if needed is None:
                continue
            for name in _all_but(needed, os.listdir(folder)):
                (folder / name).unlink(missing_ok=True)
            if needed == 0:
                folder.rmdir()


def _all_but(latest: int, names: Iterable[str]) -> list[str]:
    ranked = sorted(names, key=_epoch, reverse=True)
    return ranked[latest:]
