"""The study's memory: an append-only file of JSON lines.

Every decision, report and trial end is one line, written with one ``write`` before anything acts
on it. A killed process loses nothing it wrote; a line cut in the middle by a lost machine is
dropped on the next open. The state of a study is a pure fold over the lines, live and on resume
alike, so there is no second code path that restores.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from study.core.errors import InputError
from study.core.files import make_folder
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
from study.ledger.state import State

LEDGER = "ledger.jsonl"
FSYNC_SECONDS = 1.0
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


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
        raise ValueError("a second line of kind study")
    named = [getattr(record, "trial", None)] if not isinstance(record, TrialRecord) else []
    if isinstance(record, SelectRecord):
        named = [*record.confirmed, record.reference, record.default_ce]
    unknown = [trial for trial in named if trial is not None and trial not in state.trials]
    if unknown:
        raise ValueError(f"unknown trial {unknown[0]!r}")


def _damaged(path: Path, number: int, error: Exception) -> InputError:
    what = str(error) if isinstance(error, ValueError) else repr(error)
    message = f"invalid ledger line (format {FORMAT}): {what}"
    return InputError(message, file=path, line=number)


def _is_half(record: Record) -> bool:
    """A verdict that ends its trial: the end's line follows, and both are synced at once."""
    return isinstance(record, RungRecord) and not record.keep


class Ledger:
    """The writing end, for one process at a time: whoever opens it holds the study's lock.

    Lines reach the file with one ``write`` each; decisions are synced to the disk at once, reports
    within a second. The first line that the disk does not take is the end: `failure` says why, and
    every later `append` raises it again. What was written before stays whole.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.path = folder / LEDGER
        self.state = State()
        self._cut_torn_line()
        if self.path.exists():
            self.state = replay(self.path)
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

    def _check_file(self) -> None:
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
            self._check_file()
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
        """Sync, and close the file."""
        self._closing.set()
        self._syncer.join()
        try:
            if self.failure is None:
                os.fsync(self._file)
        finally:
            os.close(self._file)
