"""The study's memory: an append-only file of JSON lines.

Every decision, report and trial end is one line, written with one ``write`` before anything acts
on it. A killed process loses nothing it wrote; a line cut in the middle by a lost machine is
dropped on the next open. The state of a study is a pure fold over the lines, live and on resume
alike, so there is no second code path that restores.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from study.core.errors import InputError, Unwritable
from study.core.files import expanded
from study.ledger.records import (
    FORMAT,
    Record,
    ReportRecord,
    RungRecord,
    SelectRecord,
    StudyRecord,
    TrialRecord,
    decode,
    encode,
)
from study.ledger.state import State, Trial, fold

__all__ = [
    "Ledger",
    "State",
    "Trial",
    "find",
    "fold",
    "is_driven",
    "load",
    "new_folder",
    "read",
    "replay",
]
LEDGER, LOCK = "ledger.jsonl", "lock"
LOOKS = 5  # at a lock that `is_driven` may hold for a moment
FSYNC_SECONDS = 1.0
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TAKEN = ("mlflow.db", "mlartifacts")  # what lies beside the studies in their storage


def read(path: Path) -> Iterator[Record]:
    """All whole lines of a ledger; a last line without its newline is left out."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                yield decode(line)
            except UNREADABLE as error:
                raise _damaged(path, number, error) from error


def replay(path: Path) -> State:
    """The state after all whole lines of a ledger. Raises InputError with the line that is none, or
    that cannot follow those before it."""
    state = State()
    for number, record in enumerate(read(path), 1):
        try:
            _check_order(state, record)
            state.apply(record)
        except UNREADABLE as error:
            raise _damaged(path, number, error) from error
    return state


def _check_order(state: State, record: Record) -> None:
    if isinstance(record, StudyRecord) and state.study is not None:
        raise ValueError("a second line that says what is studied")
    named = [getattr(record, "trial", None)] if not isinstance(record, TrialRecord) else []
    if isinstance(record, SelectRecord):
        named = [*record.confirmed, record.reference, record.stated]
    unknown = [trial for trial in named if trial is not None and trial not in state.trials]
    if unknown:
        raise ValueError(f"a trial that was never handed out, {unknown[0]!r}")


def _damaged(path: Path, number: int, error: Exception) -> InputError:
    what = str(error) if isinstance(error, ValueError) else repr(error)
    message = f"a ledger line of format {FORMAT} must stand here, but got {what}"
    return InputError(message, file=path, line=number)


def find(name: str, storage: Path) -> Path:
    """The folder of a study: a name below `storage`, else a path."""
    storage = expanded(storage, "--storage")
    for folder in (storage / name, expanded(name, "NAME")):
        if _is_file(folder / LEDGER):
            return folder.resolve()
    known = sorted(path.parent.name for path in storage.glob(f"*/{LEDGER}"))
    listed = ", ".join(known) if known else "none"
    raise InputError(f"a study of the name must be in {storage} ({listed}), but got {name!r}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, for instance
        return False


def as_name(stem: str) -> str:
    """A study's name from that of a file, which may hold anything."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).lstrip("._-")[:80] or "study"
    return f"{name}_" if name in TAKEN else name


def new_folder(storage: Path, name: str | None, stem: str) -> Path:
    """The folder of a study to come, which is not made yet: below `storage`, of this name, else of
    the stem and the first number that is free."""
    try:
        storage = expanded(storage, "--storage").resolve()
        place = next(path for path in (storage, *storage.parents) if path.exists())
    except OSError as error:
        message = f"it must be a folder, but {error.strerror} ({len(str(storage))} characters)"
        raise InputError(message, key="--storage") from error
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise InputError("it must be a folder that can be written", file=place, key="--storage")
    if name is None:
        stem = as_name(stem)
        count = 1
        while (storage / (stem if count == 1 else f"{stem}-{count}")).exists():
            count += 1
        return storage / (stem if count == 1 else f"{stem}-{count}")
    if not NAME.fullmatch(name):
        raise InputError(
            "a name must be letters, digits, '.', '_' and '-', at most 100 and a letter or a digit "
            f"first, but got {name!r}",
            key="--name",
        )
    folder = storage / name
    if folder.exists() or name in TAKEN:
        goes_on = f"--resume {name} goes on with it, " if _is_file(folder / LEDGER) else ""
        there = f"{folder} is there" if folder.exists() else "MLflow's data have it"
        raise InputError(
            f"the name must be free, but {there}: {goes_on}another --name begins anew",
            key="--name",
        )
    return folder


def load(folder: Path) -> State:
    """The state of the study in this folder."""
    path = folder / LEDGER
    if not path.is_file():
        raise InputError(f"a study's {LEDGER} must be there, but there is none", file=folder)
    state = replay(path)
    if state.study is None:
        message = "a ledger's first line must say what is studied, but there is none"
        if is_driven(folder):
            message = f"{message} yet: its driver is about to begin"
        elif not (state.trials or state.sessions):
            message = f"{message}: remove the folder and begin anew"
        raise InputError(message, file=path)
    return state


def is_driven(folder: Path) -> bool:
    """Whether a driver works on the study now."""
    try:
        with open(folder / LOCK, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(path: Path) -> TextIO | None:
    """The file, locked; None where another process holds it for longer than a look takes."""
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.1)
        else:
            return file
    file.close()
    return None


def _is_half(record: Record) -> bool:
    """A verdict that ends its trial: the end's line follows, and both are synced at once."""
    return isinstance(record, RungRecord) and not record.keep


class Ledger:
    """The writing end. One process at a time: the folder's lock is held until close.

    Lines reach the file with one ``write`` each; decisions are synced to the disk at once, reports
    within a second. The first line that the disk does not take is the end: `failure` says why, and
    every later `append` raises it again. What was written before stays whole.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unwritable(error.errno, error.strerror, str(folder)) from error
        lock_file = _lock(folder / LOCK)
        if lock_file is None:
            raise InputError(
                "one driver at a time may work on a study, but another one holds its lock",
                file=folder,
            )
        self._lock_file = lock_file
        self.path = folder / LEDGER
        self.state = State()
        try:
            self._cut_torn_line()
            if self.path.exists():
                self.state = replay(self.path)
        except BaseException:
            lock_file.close()
            raise
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._opened = os.fstat(self._file)
        self.failure: OSError | None = None
        self._dirty = False
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_loop, daemon=True, name="ledger-sync")
        self._syncer.start()

    def _cut_torn_line(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)

    def _sync_loop(self) -> None:
        while not self._closing.wait(FSYNC_SECONDS):
            if self._dirty:
                self._dirty = False
                try:
                    os.fsync(self._file)
                except OSError as error:
                    self.failure = self._failed(error)
                    return

    def _check_place(self) -> None:
        """A file that was removed, or moved with its folder, takes lines that nobody will read."""
        if not os.path.samestat(os.stat(self.path), self._opened):
            raise FileNotFoundError(errno.ENOENT, "another file is in its place")

    def _failed(self, error: OSError) -> OSError:
        text = f"{error.strerror}: the study ends here; with room again, --resume goes on with it"
        if error.errno == errno.ENOENT:
            text = "the file is gone, and with it the study: it ends here"
            return OSError(errno.ESTALE, text, str(self.path))
        return OSError(error.errno, text, str(self.path))

    def append(self, record: Record) -> Record:
        """Write the record, stamped with the time, then take the line into the state.

        The state is that of the line read back, so it is what a resume will see. Raises OSError
        where the line cannot be written.
        """
        record = type(record)(**{**vars(record), "time": round(time.time(), 3)})
        text = encode(record)
        line = f"{text}\n".encode()
        if self.failure is not None:
            raise self.failure
        try:
            self._check_place()
            while line:
                line = line[os.write(self._file, line) :]
            if isinstance(record, ReportRecord) or _is_half(record):
                self._dirty = True
            else:
                os.fsync(self._file)
                self._dirty = False
        except OSError as error:
            self.failure = self._failed(error)
            raise self.failure from error
        self.state.apply(decode(text))
        return record

    def close(self) -> None:
        """Sync, and give the lock back."""
        self._closing.set()
        self._syncer.join()
        try:
            if self.failure is None:
                os.fsync(self._file)
        finally:
            os.close(self._file)
            self._lock_file.close()
