"""Writes a ledger file to MLflow, and tracks which of its lines are still unsent."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from study.core.names import CONFIRM
from study.ledger.chain import Chain, is_torn
from study.ledger.journal import LEDGER, unreadable
from study.ledger.records import (
    AmendRecord,
    EndRecord,
    FinishRecord,
    NodesRecord,
    Record,
    ReportRecord,
    SearchEndRecord,
    SeedsRecord,
    SelectRecord,
    SessionRecord,
    StudyRecord,
    TrialRecord,
    decode,
)
from study.ledger.state import State, fold
from study.tracking.database import Replaced
from study.tracking.store import Store, is_refusal

PUSH_SECONDS = 5.0
OF_THE_STUDY = (
    StudyRecord
    | SessionRecord
    | AmendRecord
    | NodesRecord
    | SearchEndRecord
    | SelectRecord
    | SeedsRecord
    | FinishRecord
)


def in_a_line(error: Exception) -> str:
    """Format an error in one line: its kind, and the first line of its text."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


class Tail:
    """The whole lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._chain = Chain()
        self._is_ended = True
        self.num_lines = 0

    def read(self) -> Iterator[tuple[int, Record]]:
        """Yield the records since the last call, each with its byte offset.

        The beginning of a last line waits for the next call.
        """
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            if not self._is_ended:
                newline = file.readline()  # what the last line lacked
                self._offset += len(newline)
                self._is_ended = bool(newline)
            for line in file:
                if not line.endswith(b"\n") and is_torn(line):
                    return
                offset = self._offset
                try:
                    record = decode(self._chain.verified(line))
                except ValueError as error:
                    raise unreadable(self._path, self.num_lines + 1, error) from error
                self._offset += len(line)
                self._is_ended = line.endswith(b"\n")
                self.num_lines += 1
                yield offset, record

    def at(self, offsets: Iterable[int]) -> Iterator[Record]:
        """Yield the records at these byte offsets."""
        with open(self._path, "rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield decode(file.readline().decode())


class Projection:
    """Writes a study's ledger to MLflow; the ledger itself is the queue.

    It keeps the offsets of each trial's lines, 8 bytes a line, and how many of them MLflow has.
    Whatever fails is read and written again.

    Args:
        folder: the study's folder.
        tracking_uri: MLflow's address.
        thorough: also write what seems to be in MLflow already.
        on_success: called after every one or few successful requests.
        on_replaced: called if a new database had to take the place of an unusable one.
        say: shows a line to the user.
        open_store: makes the writer; takes the arguments of Store.
    """

    def __init__(
        self,
        folder: Path,
        tracking_uri: str,
        *,
        thorough: bool = False,
        on_success: Callable[[], None] = lambda: None,
        on_replaced: Callable[[Replaced], None] = lambda replaced: None,
        say: Callable[[str], None] = lambda line: None,
        open_store: Callable[..., Store] = Store,
    ) -> None:
        self._folder = folder
        self._uri = tracking_uri
        self._thorough = thorough
        self._on_success = on_success
        self._on_replaced = on_replaced
        self._say = say
        self._open_store = open_store
        self._tail = Tail(folder / LEDGER)
        self._study = State()  # state of the lines that belong to no trial
        self._study_lines = self._study_written = 0
        self._lines: dict[str, array[int]] = {}
        self._written: dict[str, int] = {}
        self._waiting: dict[str, None] = {}  # trials, longest wait first
        self._ended: set[str] = set()
        self._confirmed: dict[str, None] = {}
        self._doubted: set[str] = set()
        self.refused: dict[str, Exception] = {}
        self._store: Store | None = None
        self._is_last = False
        self._finished_at = 0.0
        self.last_success = time.monotonic()

    @property
    def num_lines(self) -> int:
        """The number of ledger lines read."""
        return self._tail.num_lines

    @property
    def tracking_uri(self) -> str | None:
        """Where the last session was tracked; None if there was none yet."""
        sessions = self._study.sessions
        return sessions[-1].tracking_uri if sessions else None

    @property
    def num_trials(self) -> int:
        """The number of trials in them."""
        return len(self._lines)

    @property
    def num_unsent(self) -> int:
        """The number of lines read that are not in MLflow."""
        unsent = self._study_lines - self._study_written
        for trial in {**self._waiting, **self.refused}:
            unsent += len(self._lines[trial]) - self._written.get(trial, 0)
        return unsent

    def read(self) -> None:
        """Read the new ledger lines. Raises InputError if a line is not a ledger line."""
        for place, record in self._tail.read():
            if isinstance(record, OF_THE_STUDY):
                self._study.apply(record)
                self._study_lines += 1
                self._finished_at = record.time
            else:
                self._lines.setdefault(record.trial, array("q")).append(place)
                self._waiting[record.trial] = None
                if isinstance(record, EndRecord):
                    self._ended.add(record.trial)
                elif isinstance(record, TrialRecord) and record.stage == CONFIRM:
                    self._confirmed[record.trial] = None

    def push(self, *, live: bool) -> bool:
        """Write what waits, for about PUSH_SECONDS; return whether nothing waits any more.

        Raises the first error at the end. A trial that fails does not block the others; two
        failures in a row count as a lost server.
        """
        study = self._study.study
        if study is None:
            return True
        if self._store is None:
            self._store = self._open_store(self._uri, study, self._folder, thorough=self._thorough)
            if self._store.replaced is not None:
                self._on_replaced(self._store.replaced)
            self._succeeded()
        self._write_study(self._store, live=live)
        errors: list[Exception] = []
        in_a_row = 0
        until = time.monotonic() + PUSH_SECONDS
        for trial in list(self._waiting):
            try:
                self._write_trial(self._store, trial, live=live)
            except Exception as error:
                errors.append(error)
                if self._store.is_lost(error):
                    self._begin_anew()
                elif is_refusal(error):
                    self._take_refusal(self._store, trial, error)
                else:
                    in_a_row += 1
                if self._store is None or in_a_row == 2:
                    break
                if trial in self._waiting:
                    self._waiting[trial] = self._waiting.pop(trial)
            else:
                in_a_row = 0
                self._succeeded()
            if time.monotonic() > until:
                break
        if errors:
            raise errors[0]
        return not self._waiting

    def _succeeded(self) -> None:
        self.last_success = time.monotonic()
        self._on_success()

    def _write_study(self, store: Store, *, live: bool) -> None:
        lines = self._study_lines
        if self._study_written == lines:
            return
        try:
            store.write_study(self._study, self._finished_at, live=live)
        except Exception as error:
            if store.is_lost(error):
                self._begin_anew()
            raise
        self._study_written = lines
        self._succeeded()

    def _write_trial(self, store: Store, trial: str, *, live: bool) -> None:
        lines = self._lines[trial]
        records = list(self._tail.at(lines))
        new = records[self._written.get(trial, 0) :]
        epochs = sorted({record.epoch for record in new if isinstance(record, ReportRecord)})
        store.write_trial(fold(records).trials[trial], epochs, live=live)
        self._written[trial] = len(records)
        del self._waiting[trial]
        self._doubted.discard(trial)
        self.refused.pop(trial, None)

    def _take_refusal(self, store: Store, trial: str, error: Exception) -> None:
        """Write a refused trial again, all of it; if it is refused again, skip it until it has new
        lines."""
        if trial in self._doubted:
            self.refused[trial] = error
            del self._waiting[trial]
        else:
            self._doubted.add(trial)
            store.doubt(trial)
            self._written.pop(trial, None)

    def _begin_anew(self) -> None:
        self._store = None
        self._written.clear()
        self._study_written = 0
        self._waiting = dict.fromkeys(self._lines)

    def finish(self) -> bool:
        """Write what waits, and the statuses and files that the driver's end changes; return
        whether all is written. Call it until it is."""
        self.read()
        if not self._is_last:
            self._is_last = True
            self._study_written = min(self._study_written, self._study_lines - 1)
            self._waiting |= dict.fromkeys(self._lines.keys() - self._ended)
        if not self.push(live=False) or self._store is None:
            return self._study.study is None
        self._store.tidy()
        self._store.write_answer(self._finished_at)
        self._store.write_files(self._confirmed, self._succeeded)
        try:
            self._store.models.write(self._succeeded)
        except Exception as error:
            self._say(f"the exported networks are not in MLflow: {in_a_line(error)}")
        return True

    def register(self, name: str) -> str:
        """Register the best network under a name, once all is written; returns a line about it.

        Raises:
            InputError: if there is none.
        """
        assert self._store is not None
        return self._store.models.register(name)
