"""Which checkpoints of a trial are kept: the two latest while it lives, none once it has ended
(where they are asked for, its last).

``checkpoints/<trial>/<epoch>.pt`` below a study's folder or, with storage in a bucket, below its
place there. A trial's result is its last epoch's, so there is no best epoch whose checkpoint
anybody would read. The one before is for where the latest is damaged. Both may be newer than the
ledger's last line of the trial, where a machine was lost: a checkpoint remembers reports.

In a folder a checkpoint is there when its epoch is reported. In a bucket it follows behind the
next epoch's training, and where the bucket is slow, the latest alone is sent: no trial waits.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from study.core.names import CHECKPOINTS
from study.storage.s3.bucket import S3Prefix, StorageUnavailable
from study.training.checkpoint import CHECKPOINT

KEPT = 2
CLOSE_SECONDS = 1.5  # Tune gives up on a stopped trial's process after 2
AGAIN_SECONDS, RESTORE_SECONDS, FLUSH_SECONDS = 5.0, 60.0, 60.0
SWEEP_SECONDS, PAUSE_SECONDS = 30.0, 0.5
Save = Callable[[Path], None]


def checkpoint_key(trial: str, epoch: int) -> str:
    """Where the checkpoint after an epoch lies, below a study's folder or prefix."""
    return f"{CHECKPOINTS}/{trial}/{epoch:06d}.pt"


def _epoch(name: str) -> int:
    stem = name.rpartition("/")[2].removesuffix(".pt")
    return int(stem) if stem.isdigit() else 0


class FolderCheckpointStore:
    """The checkpoints of a trial in a folder that every node sees."""

    def __init__(self, folder: Path, trial: str) -> None:
        self._folder = folder
        self._trial = trial
        self._safe: str | None = None
        self.trouble = ""

    def keep(self, epoch: int, save: Save) -> str | None:
        """Write a checkpoint, and remove all but the latest; the key of the latest that is safe.

        Where it cannot be written `trouble` says why, and those before are still there: a disk that
        is full is no reason to lose a trial. A folder that is not there raises OSError.
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
            self._safe, self.trouble = key, ""
        return self._safe

    def found(self) -> Iterator[Path]:
        """The checkpoints that are there, latest first."""
        for name in sorted(self._files(), key=_epoch, reverse=True):
            if _epoch(name):
                yield self._folder / CHECKPOINTS / self._trial / name

    def flush(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing is under way."""

    def _files(self) -> list[str]:
        try:
            return [path.name for path in (self._folder / CHECKPOINTS / self._trial).iterdir()]
        except FileNotFoundError:
            return []


class BucketCheckpointStore:
    """The checkpoints of a trial in a bucket, sent by a thread of the trial's process.

    What waits to be sent is a file without a name: it is gone with the process, however that ends.
    """

    def __init__(self, prefix: S3Prefix, trial: str) -> None:
        self._prefix = prefix
        self._trial = trial
        self._changed = threading.Condition()
        self._waiting: tuple[int, BinaryIO] | None = None
        self._safe: str | None = None
        self.trouble = ""  # in words, why the latest has not arrived
        self._closed = False
        self._busy = False
        self._taken_up: tempfile.TemporaryDirectory[str] | None = None
        self._thread: threading.Thread | None = None

    def keep(self, epoch: int, save: Save) -> str | None:
        """Take a checkpoint to be sent, in the place of one that still waits; the key of the latest
        that has arrived. Where this node has no room for it, `trouble` says so."""
        self._forget()
        try:
            file = _unnamed_copy(save)
        except OSError as error:
            self.trouble = f"{error.strerror}: {error.filename}"
            return self._safe
        with self._changed:
            if self._waiting is not None:
                self._waiting[1].close()
            self._waiting = (epoch, file)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, daemon=True, name="checkpoints")
                self._thread.start()
            return self._safe

    def found(self) -> Iterator[Path]:
        """The checkpoints that are there, latest first; each file lives until the next, or until
        `keep`. None where the bucket does not answer within a minute."""
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
                if time.monotonic() - start < RESTORE_SECONDS:
                    time.sleep(AGAIN_SECONDS)
                    continue
            return

    def flush(self) -> None:
        """Wait until the latest has arrived, at most a minute."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not self._busy, FLUSH_SECONDS)

    def close(self) -> None:
        """What is on its way has a moment, unless the bucket is away; the thread ends with it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._forget()
        if self._thread is not None and not self.trouble:
            self._thread.join(CLOSE_SECONDS)

    def _forget(self) -> None:
        if self._taken_up is not None:
            self._taken_up.cleanup()
            self._taken_up = None

    def _keys(self) -> list[str]:
        return [item.key for item in self._prefix.items(f"{CHECKPOINTS}/{self._trial}/")]

    def _send(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._waiting is None:
                    return
                (epoch, file), self._waiting = self._waiting, None
                self._busy = True
            key = checkpoint_key(self._trial, epoch)
            with file:
                while not self._sent(key, file):
                    with self._changed:
                        self._changed.wait(AGAIN_SECONDS)
                        if self._waiting is not None or self._closed:
                            break

    def _sent(self, key: str, file: BinaryIO) -> bool:
        try:
            file.seek(0)
            self._prefix.put(key, file)
            self._safe = key
            self._prefix.delete(sorted(self._keys(), key=_epoch)[:-KEPT])
        except StorageUnavailable as error:
            self.trouble = str(error)
            return self._safe == key
        self.trouble = ""
        return True


def _unnamed_copy(save: Save) -> BinaryIO:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CHECKPOINT
        save(path)
        return open(path, "rb")


CheckpointStore = FolderCheckpointStore | BucketCheckpointStore


def open_checkpoint_store(folder: Path, prefix: str | None, trial: str) -> CheckpointStore:
    """The store of a trial's checkpoints: in the bucket at the address `prefix`, else in the
    study's folder."""
    if prefix is None:
        return FolderCheckpointStore(folder, trial)
    return BucketCheckpointStore(S3Prefix.parse(prefix), trial)


class CheckpointCleaner:
    """Removes checkpoints that nobody needs any more, off the driver's path.

    needed: how many of a trial's checkpoints, by its id, are to stay; None for a trial that lives.
    In a folder those are left to the trial. In a bucket its process may end between sending one and
    removing another, or be sending while its trial ends: this is found by looking again.
    """

    def __init__(
        self, folder: Path, prefix: str | None, needed: Callable[[str], int | None]
    ) -> None:
        self._folder = folder / CHECKPOINTS
        self._prefix = S3Prefix.parse(prefix) if prefix is not None else None
        self._needed = needed
        self._notified = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="checkpoint-cleaner")
        self._notified.set()  # what an earlier session left
        self._thread.start()

    def notify(self) -> None:
        """A trial has ended."""
        self._notified.set()

    def close(self, timeout: float = 10.0) -> None:
        """Look once more, for at most `timeout` seconds."""
        self._closing.set()
        self._notified.set()
        self._thread.join(timeout)

    def _loop(self) -> None:
        closing = False
        while not closing:
            self._notified.wait(None if self._prefix is None else SWEEP_SECONDS)
            self._closing.wait(PAUSE_SECONDS)
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
