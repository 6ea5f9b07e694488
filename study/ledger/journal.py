"""The ledger of a study: an append-only file of JSON lines.

Every decision, report and trial end is one line, written by one ``write`` before anything acts on
it. A killed process loses no line that it wrote. If a machine dies in the middle of a line, the
next open drops that line. Checksums chain the lines, so a damaged ledger is noticed and refused.
The state of a study is a pure fold over the lines, during a session and on resume alike, so no
second code path restores it.
"""

from __future__ import annotations

import errno
import os
import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from study.core.errors import InputError
from study.core.files import make_folder
from study.ledger.chain import Chain, is_torn
from study.ledger.records import (
    AmendRecord,
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
SYNC_SECONDS = 1.0


def read(path: Path) -> Iterator[Record]:
    """All whole lines of a ledger; the beginning of a last line is skipped.

    Raises:
        InputError: with the first line that cannot be read or does not continue the chain.
    """
    yield from (record for record, _ in _lines(path, Chain()))


def _lines(path: Path, chain: Chain) -> Iterator[tuple[Record, bytes]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") and is_torn(line):
                return
            try:
                yield decode(chain.verified(line)), line
            except ValueError as error:
                raise unreadable(path, number, error) from error


def replay(path: Path) -> State:
    """The state after all whole lines of a ledger.

    Raises:
        InputError: with the first line that is no record, does not continue the chain, or cannot
            follow the lines before it.
    """
    content = Content()
    content.read(path)
    return content.state


@dataclass
class Content:
    """The good lines of a ledger, from the first: state, chain, number and bytes of them.

    `is_ended`: whether the last one has its newline.
    """

    state: State = field(default_factory=State)
    chain: Chain = field(default_factory=Chain)
    num_lines: int = 0
    size: int = 0
    is_ended: bool = True

    def read(self, path: Path) -> None:
        """Read a file; raises as `replay`, and then holds the lines before the damage."""
        for record, line in _lines(path, self.chain):
            try:
                _check_order(self.state, record)
            except ValueError as error:
                raise unreadable(path, self.num_lines + 1, error) from error
            self.state.apply(record)
            self.num_lines += 1
            self.size += len(line)
            self.is_ended = line.endswith(b"\n")


def _check_order(state: State, record: Record) -> None:
    if isinstance(record, StudyRecord) and state.study is not None:
        raise ValueError("a second first line")
    if isinstance(record, AmendRecord) and state.study is None:
        raise ValueError("no line before it begins the study that it amends")
    named = [getattr(record, "trial", None)] if not isinstance(record, TrialRecord) else []
    if isinstance(record, SelectRecord):
        named = [*record.sources]
    unknown = [trial for trial in named if trial is not None and trial not in state.trials]
    if unknown:
        raise ValueError(f"no line before it begins a trial {unknown[0]!r}")


def unreadable(path: Path, number: int, error: Exception) -> InputError:
    """What to raise for a line that cannot be read."""
    command = f"python -m study.status {shlex.quote(str(path.parent))} --repair"
    return InputError(
        f"unreadable ledger line: {error}",
        hint=f"{command} keeps the lines before it" if number > 1 else "",
        file=path,
        line=number,
    )


def _is_half(record: Record) -> bool:
    """Whether the end of a trial follows this verdict: one sync serves both lines."""
    return isinstance(record, RungRecord) and not record.keep


class Ledger:
    """Appends lines to the ledger of a study; the process that opens it holds the study's lock.

    Each line is written by one ``write``. Decisions are synced to the disk at once, reports within
    a second. After the first error of the disk nothing more is written: `failure` holds the error,
    and every later `append` raises it again. The lines before it stay intact.
    """

    def __init__(self, folder: Path, *, sync_seconds: float = SYNC_SECONDS) -> None:
        make_folder(folder)
        self.path = folder / LEDGER
        content = Content()
        if self.path.exists():
            content.read(self.path)
            os.truncate(self.path, content.size)
        self.state = content.state
        self._chain = content.chain
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if not content.is_ended:
            os.write(self._file, b"\n")
        self._opened = os.fstat(self._file)
        self.failure: OSError | None = None
        self._dirty = False
        self._sync_seconds = sync_seconds
        self._closing = threading.Event()
        self._syncer = threading.Thread(target=self._sync_loop, daemon=True, name="ledger-sync")
        self._syncer.start()

    def _sync_loop(self) -> None:
        while not self._closing.wait(self._sync_seconds):
            if self._dirty:
                self._dirty = False
                try:
                    os.fsync(self._file)
                except OSError as error:
                    self.failure = self._failed(error)
                    return

    def _check_file(self) -> None:
        """Raise unless the path still leads to the open file, which may have been moved."""
        if not os.path.samestat(os.stat(self.path), self._opened):
            raise FileNotFoundError(errno.ENOENT, "another file is in its place")

    def _failed(self, error: OSError) -> OSError:
        text = f"{error.strerror}: the study ends here; with room again, --resume goes on with it"
        if error.errno == errno.ENOENT:
            text = "the file is gone, and with it the study: it ends here"
            return OSError(errno.ESTALE, text, str(self.path))
        return OSError(error.errno, text, str(self.path))

    def append(self, record: Record) -> Record:
        """Write the record, stamped with the time, and apply it to the state; return what is read
        back from its line, which is what a resume will see.

        Raises:
            ValueError: a field of the record is invalid; nothing is written.
            OSError: the line cannot be written.
        """
        text = encode(replace(record, time=round(time.time(), 3)))
        record = decode(text)
        if self.failure is not None:
            raise self.failure
        line = f"{self._chain.sealed(text)}\n".encode()
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
        self.state.apply(record)
        return record

    def close(self) -> None:
        """Sync and close the file."""
        self._closing.set()
        self._syncer.join()
        try:
            if self.failure is None:
                os.fsync(self._file)
        finally:
            os.close(self._file)
