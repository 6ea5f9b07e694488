"""Reads the reports of a command as it writes them: JSON lines or a CSV file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from study.config.own_training import CommandTrial, CsvReports, LineReports
from study.core.errors import InputError
from study.losses.digest import KEY
from study.trials.supervise import LOG

EPOCH = "epoch"
Report = tuple[int, dict[str, float]]


class Reader(Protocol):
    """Reads what is new in a file of reports."""

    def new(self, *, ended: bool = False) -> Iterator[Report]:
        """Yield each report that is complete and was not yielded before; with `ended`, nothing
        more will be written. Raises InputError for a report that cannot be read."""


def reader(trial: CommandTrial, folder: Path) -> Reader:
    """The reader of a command's reports. What the file holds already is of an earlier attempt."""
    if isinstance(trial.reports, CsvReports):
        return _Rows(folder / trial.reports.csv, trial.reports, trial.first_epoch)
    is_file = isinstance(trial.reports, LineReports)
    name = trial.reports.jsonl if isinstance(trial.reports, LineReports) else LOG
    return _Lines(folder / name, trial.first_epoch, strict=is_file)


class _Lines:
    """JSON lines. In `strict` files each line must be one; among output, others are passed over."""

    def __init__(self, path: Path, first_epoch: int, *, strict: bool) -> None:
        self._path = path
        self._first_epoch = first_epoch
        self._strict = strict
        self._at = path.stat().st_size if path.is_file() else 0

    def new(self, *, ended: bool = False) -> Iterator[Report]:
        try:
            with open(self._path, "rb") as file:
                if self._at > file.seek(0, io.SEEK_END):
                    self._at = 0  # written anew
                file.seek(self._at)
                text = file.read()
        except FileNotFoundError:
            return
        whole = len(text) if ended else text.rfind(b"\n") + 1
        self._at += whole
        for line in text[:whole].decode(errors="replace").replace("\r", "\n").splitlines():
            tree = self._tree(line)
            if tree is not None:
                yield _epoch(tree.pop(EPOCH), self._first_epoch), tree

    def _tree(self, line: str) -> dict[str, Any] | None:
        line = line.strip()
        try:
            tree = json.loads(line) if line.startswith("{") or self._strict else None
        except ValueError as error:
            if not self._strict or not line:
                return None
            raise InputError(f"not a line of JSON: {line!r:.100}", file=self._path) from error
        if isinstance(tree, dict) and EPOCH in tree:
            return tree
        if self._strict and not (isinstance(tree, dict) and KEY in tree):
            raise InputError(
                f"a report must have the key {EPOCH!r}: {line!r:.100}", file=self._path
            )
        return None


class _Rows:
    """A CSV file, which many trainers write anew at each epoch."""

    def __init__(self, path: Path, columns: CsvReports, first_epoch: int) -> None:
        self._path = path
        self._columns = columns
        self._first_epoch = first_epoch
        self._known = self._text() if path.is_file() else ""
        self._last = 0

    def _text(self) -> str:
        return self._path.read_bytes().decode("utf-8-sig", errors="replace")

    def new(self, *, ended: bool = False) -> Iterator[Report]:
        if not self._path.is_file() or (text := self._text()) == self._known:
            return
        self._known = ""
        whole = text if ended else text[: text.rfind("\n") + 1]
        rows = csv.DictReader(io.StringIO(whole), skipinitialspace=True)
        names = [name.strip() for name in rows.fieldnames or ()]
        rows.fieldnames = names
        wanted = {EPOCH: self._columns.epoch, **self._columns.columns}
        for metric, column in wanted.items():
            if names and column not in names:
                key = "trial/reports" + ("/epoch" if metric == EPOCH else f"/columns/{metric}")
                raise InputError.unknown("column", column, names, file=self._path, key=key)
        for row in rows:
            epoch = _epoch(_value(row[self._columns.epoch]), self._first_epoch)
            if epoch > self._last:
                self._last = epoch
                found = {key: _value(row[name]) for key, name in self._columns.columns.items()}
                yield epoch, {key: value for key, value in found.items() if value is not None}


def _epoch(value: Any, first: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"an epoch must be a whole number, got {value!r}")
    return value + 1 - first


def _value(text: str | None) -> Any:
    """The number in a cell; None where it is empty, the text where it is none."""
    text = (text or "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        return text
