"""From a ledger file to MLflow: what of its lines is there, and what has still to be written."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from study.core.errors import InputError
from study.core.names import CONFIRM
from study.ledger.journal import LEDGER, UNREADABLE
from study.ledger.records import (
    EndRecord,
    FinishRecord,
    Record,
    ReportRecord,
    SelectRecord,
    SessionRecord,
    StudyRecord,
    TrialRecord,
    decode,
)
from study.ledger.state import State, fold
from study.tracking.store import Store, is_refusal

PUSH_SECONDS = 5.0


class Tail:
    """The whole lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.num_lines = 0

    def read(self) -> Iterator[tuple[int, Record]]:
        """What came since the last call, each with its place. A line without its newline waits for
        the next one."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                place = self._offset
                try:
                    record = decode(line.decode())
                except UNREADABLE as error:
                    number = self.num_lines + 1
                    message = f"invalid ledger line: {error!r}"
                    raise InputError(message, file=self._path, line=number) from error
                self._offset += len(line)
                self.num_lines += 1
                yield place, record

    def at(self, places: Iterable[int]) -> Iterator[Record]:
        """The records at these places."""
        with open(self._path, "rb") as file:
            for place in places:
                file.seek(place)
                yield decode(file.readline().decode())


class Projection:
    """The ledger is the spool: of each trial the places of its lines are kept, 8 bytes a line, and
    how many of them MLflow has. Whatever fails is read and written again.

    Args:
        folder: the study's.
        tracking_uri: of MLflow.
        thorough: write what seems to be there, too.
        on_success: called after each request, or few, that went well.
    """

    def __init__(
        self,
        folder: Path,
        tracking_uri: str,
        *,
        thorough: bool = False,
        on_success: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._uri = tracking_uri
        self._thorough = thorough
        self._on_success = on_success
        self._tail = Tail(folder / LEDGER)
        self._study = State()  # of the lines that belong to no trial
        self._study_lines = self._study_written = 0
        self._lines: dict[str, array[int]] = {}
        self._written: dict[str, int] = {}
        self._waiting: dict[str, None] = {}  # trials, the one that has waited longest first
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
        """Lines of the ledger that have been read."""
        return self._tail.num_lines

    @property
    def num_trials(self) -> int:
        """Trials in them."""
        return len(self._lines)

    @property
    def num_unsent(self) -> int:
        """Lines that have been read and are not in MLflow."""
        unsent = self._study_lines - self._study_written
        for trial in {**self._waiting, **self.refused}:
            unsent += len(self._lines[trial]) - self._written.get(trial, 0)
        return unsent

    def read(self) -> None:
        """Take what the ledger holds by now. InputError where a line is none of a ledger."""
        for place, record in self._tail.read():
            if isinstance(record, StudyRecord | SessionRecord | SelectRecord | FinishRecord):
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
        """Write what waits, for PUSH_SECONDS or little more; whether nothing waits any more. The
        first error is raised, at the end.

        A trial that fails does not hold up the others; two in a row are taken for a lost server.
        """
        study = self._study.study
        if study is None:
            return True
        if self._store is None:
            self._store = Store(self._uri, study, self._folder, thorough=self._thorough)
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
                if is_refusal(error):
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
            if is_refusal(error) and store.is_lost():
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
        """Somebody has deleted the run, or the store has begun anew: then all is written again. If
        neither, this trial is left out until it has something new to say."""
        if store.is_lost():
            self._begin_anew()
        elif trial in self._doubted:
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
        """Write what waits and what the driver's end changes, statuses and files; whether all is
        written. To be called until it is."""
        self.read()
        if not self._is_last:
            self._is_last = True
            self._study_written = min(self._study_written, self._study_lines - 1)
            self._waiting |= dict.fromkeys(self._lines.keys() - self._ended)
        if not self.push(live=False) or self._store is None:
            return self._study.study is None
        self._store.tidy()
        self._store.write_files(self._confirmed, self._succeeded)
        return True
