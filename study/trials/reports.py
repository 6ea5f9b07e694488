"""Reads the reports of a command as it writes them: JSON lines or a CSV file."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol

from study.config.own_training import CommandTrial, CsvReports, LineReports
from study.core.errors import InputError
from study.core.names import TEST, VAL
from study.losses.digest import KEY
from study.trials.supervise import LOG

EPOCH, NEWLINE = "epoch", "\n"
DELIMITERS = ",;\t"
LONGEST = 2**20  # bytes that are kept while they wait for the end of their line
MOST = 20  # objects that are looked at in a line
OBJECT = re.compile(r'\{\s*"')
SPLITS = tuple(f"{split}/" for split in ("train", VAL, TEST))
DECODER = json.JSONDecoder()
Report = tuple[int, dict[str, float]]


class Reader(Protocol):
    """Reads what is new in a file of reports."""

    def new(self, *, ended: bool = False) -> Iterator[Report]:
        """Yield each report that is complete and was not yielded before; with `ended`, nothing
        more will be written. Raises InputError for a report that cannot be read."""

    def hint(self) -> str:
        """What may be the matter where epochs are missing; "" if nothing is known."""


def reader(trial: CommandTrial, folder: Path) -> Reader:
    """The reader of a command's reports. What the file holds already is of an earlier attempt."""
    if isinstance(trial.reports, CsvReports):
        return _Rows(folder / trial.reports.csv, trial.reports, trial.first_epoch)
    is_file = isinstance(trial.reports, LineReports)
    name = trial.reports.jsonl if isinstance(trial.reports, LineReports) else LOG
    return _Lines(folder / name, trial.first_epoch, strict=is_file)


class _Lines:
    """JSON lines. In `strict` files each line must be one. Among output, others are passed over,
    and what stands beside a report in its line: a progress bar, or the head of a log."""

    def __init__(self, path: Path, first_epoch: int, *, strict: bool) -> None:
        self._path = path
        self._first_epoch = first_epoch
        self._strict = strict
        self._has_found = False
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
        whole = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        if ended or (not whole and len(text) > LONGEST):
            whole = len(text)
        self._at += whole
        for line in text[:whole].decode(errors="replace").replace("\r", "\n").split("\n"):
            for tree in self._trees(line) if self._strict else _among(line):
                epoch = _epoch(tree.pop(EPOCH), self._first_epoch)
                if epoch == 0 and self._first_epoch == 1:
                    hint = "where epochs are counted from 0, add first_epoch: 0"
                    raise InputError("an epoch must be a whole number from 1, got 0", hint=hint)
                self._has_found = True
                yield epoch, tree

    def hint(self) -> str:
        if self._strict:
            return "" if self._path.is_file() else _absent(self._path)
        example = 'a report is a line of output such as {"epoch": 1, "val/miou": 0.41}'
        return "" if self._has_found else example

    def _trees(self, line: str) -> list[dict[str, Any]]:
        line = line.strip()
        try:
            tree = json.loads(line)
        except (ValueError, RecursionError):
            tree = None
        if isinstance(tree, dict) and EPOCH in tree:
            return [tree]
        if not line or (isinstance(tree, dict) and KEY in tree):
            return []
        what = "not a line of JSON" if tree is None else f"a report must have the key {EPOCH!r}"
        raise InputError(f"{what}: {line!r:.100}", file=self._path)


def _among(line: str) -> Iterator[dict[str, Any]]:
    """The reports in a line of output. What has more behind it, such as a progress bar or the end
    of a colour, is one if it names a metric of a split."""
    if f'"{EPOCH}"' not in line:
        return
    at = 0
    for start in itertools.islice(OBJECT.finditer(line), MOST):
        if start.start() < at:
            continue  # within the one before
        try:
            tree, at = DECODER.raw_decode(line, start.start())
        except (ValueError, RecursionError):
            continue
        is_last = not line[at:].strip()
        if EPOCH in tree and (is_last or any(key.startswith(SPLITS) for key in tree)):
            yield tree


class _Rows:
    """A CSV file, which many trainers write anew at each epoch. Several rows of an epoch, as of its
    training and of its validation, are one report: once it has a value for each column, or another
    epoch follows. A metric of test may have no column: only a confirmation needs it."""

    def __init__(self, path: Path, columns: CsvReports, first_epoch: int) -> None:
        self._path = path
        self._columns = columns
        self._first_epoch = first_epoch
        self._known = self._text()  # of an earlier attempt
        self._last = 0
        self._starts_at_0 = False

    def hint(self) -> str:
        if not self._path.is_file():
            return _absent(self._path)
        where = "if the first epoch has the number 0 there, add first_epoch: 0"
        return where if self._starts_at_0 else ""

    def _text(self) -> str:
        try:
            return self._path.read_bytes().decode("utf-8-sig", errors="replace")
        except FileNotFoundError:
            return ""

    def new(self, *, ended: bool = False) -> Iterator[Report]:
        text = self._text()
        if not text.startswith(self._known):
            self._known = ""  # written anew
        whole = text if ended else text[: text.rfind("\n") + 1]
        if self._known:
            whole = f"{text.partition(NEWLINE)[0]}\n{whole[len(self._known) :]}"
        names, epochs = self._parsed(whole)
        columns = self._columns.columns
        for epoch, values in epochs.items():
            is_whole = ended or len(values) == len(columns) or epoch != max(epochs)
            self._starts_at_0 |= epoch == 0
            if epoch <= self._last or not is_whole:
                continue
            for metric, column in columns.items():
                if column not in names and not metric.startswith(f"{TEST}/"):
                    self._unknown(column, names, f"columns/{metric}")
            self._last = epoch
            yield epoch, values

    def _parsed(self, text: str) -> tuple[list[str], dict[int, dict[str, Any]]]:
        """The names of the columns, and the values of each epoch."""
        epochs: dict[int, dict[str, Any]] = {}
        rows = csv.reader(io.StringIO(text), delimiter=self._delimiter(text), skipinitialspace=True)
        try:
            names = [name.strip() for name in next(rows, ())]
            if names and self._columns.epoch not in names:
                self._unknown(self._columns.epoch, names, "epoch")
            for cells in rows:
                row = {name: _value(cell) for name, cell in zip(names, cells, strict=False)}
                if (epoch := row.get(self._columns.epoch)) in (None, self._columns.epoch):
                    continue  # of no epoch, or the head once more
                found = {key: row.get(name) for key, name in self._columns.columns.items()}
                values = epochs.setdefault(_epoch(epoch, self._first_epoch), {})
                values |= {key: value for key, value in found.items() if value is not None}
        except csv.Error as error:
            raise InputError(f"not a CSV file: {error}", file=self._path) from error
        return names, epochs

    def _delimiter(self, text: str) -> str:
        """What stands between the columns, by the head of the file."""
        head = text.partition(NEWLINE)[0]
        for one in DELIMITERS:
            if self._columns.epoch in [name.strip(' \t\r"') for name in head.split(one)]:
                return one
        return DELIMITERS[0]

    def _unknown(self, column: str, names: list[str], key: str) -> NoReturn:
        key = f"trial/reports/{key}"
        raise InputError.unknown("column", column, names, file=self._path, key=key)


def _absent(path: Path) -> str:
    return f"it did not write {path}: write it as {{folder}}/{path.name}"


def _epoch(value: Any, first: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"an epoch must be a whole number, got {value!r}")
    return value + 1 - first


def _value(text: str | None) -> Any:
    """The number in a cell, also of `43.2%`; None where it is empty, the text where it is none."""
    text = (text or "").strip()
    try:
        if text.endswith("%"):
            return float(text.removesuffix("%")) / 100
        return float(text) if text else None
    except ValueError:
        return text
