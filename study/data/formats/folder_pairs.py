"""Tables that say which label belongs to which image, where their names do not."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from unicodedata import normalize

from study.core.errors import InputError
from study.data.formats.folder_classes import SPLIT_OF
from study.data.scan import files_below

_SEPARATORS = (",", ";", "\t", "|")
_LABEL = re.compile(r"label|mask|annot|gt|truth|seg|target", re.IGNORECASE)
Rows = list[list[str]]


class Tables:
    """Finds the files below a root that tables name by their paths, or by the ends of these."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, list[Path]] = {}
        for file in files_below(root):
            self._files.setdefault(normalize("NFC", file.name), []).append(file)

    def pairs(self, table: Path) -> tuple[list[tuple[Path, Path | None]], int]:
        """The images that a table names, each with its label, and how many rows name neither.

        Raises:
            InputError: for a table that cannot be read, and where two columns of images and labels
                cannot be told.
        """
        rows = _rows(table)
        found = [[self._find(cell) for cell in row] for row in rows]
        hits = Counter(at for row in found for at, file in enumerate(row) if file is not None)
        columns = sorted(at for at, count in hits.items() if 2 * count >= len(rows) - 1)
        head = [normalize("NFC", cell) for cell in rows[0]] if rows and not any(found[0]) else []
        called = [at for at in columns if at < len(head) and _LABEL.search(head[at])]
        if len(columns) > 2 and len(called) == 1:
            columns = [min(at for at in columns if at not in called), *called]
        if len(columns) != 2:
            message = f"a table must name files in two columns, got {len(columns)}"
            hint = "an image and its label in each row, as paths below the data root"
            raise InputError(message, hint=hint, file=table)
        image, label = sorted(columns, key=lambda at: (at in called, at))
        cells = [
            tuple(row[at] if at < len(row) else None for at in (image, label))
            for row in (found[1:] if head else found)
        ]
        named = [(one, other) for one, other in cells if one is not None]
        return named, len(cells) - len(named)

    def _find(self, cell: str) -> Path | None:
        """The file whose path agrees with the longest end of a cell; None if there is no one."""
        parts = normalize("NFC", cell).strip().replace("\\", "/").split("/")
        there = self._files.get(parts[-1], [])
        for length in range(len(parts), 0, -1):
            end = tuple(parts[-length:])
            fit = [
                one
                for one in there
                if tuple(normalize("NFC", str(one.relative_to(self._root))).split("/"))[-length:]
                == end
            ]
            if fit:
                return fit[0] if len(fit) == 1 else None
        return None


def _rows(table: Path) -> Rows:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        message = f"cannot read the table ({type(error).__name__})"
        raise InputError(message, file=table) from error
    lines = [line for line in text.splitlines() if line.strip()]
    if table.suffix.lower() == ".jsonl":
        return [*_objects(lines, table)]
    return cells(lines, _SEPARATORS if table.suffix.lower() == ".csv" else (*_SEPARATORS, " "))


def cells(lines: Iterable[str], separators: Sequence[str] = _SEPARATORS) -> Rows:
    """The rows of a table, by the first of the separators that is in all lines, else by commas."""
    lines = [line for line in lines if line.strip()]
    between = next((one for one in separators if all(one in line for line in lines)), ",")
    limit = csv.field_size_limit(2**31 - 1)  # codes of large masks pass its 131,072 characters
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=between)]
    finally:
        csv.field_size_limit(limit)


def json_rows(text: str) -> Rows:
    """The rows of a JSON list of names or of mappings; of such lists by split, as in
    {"train": ["a", "b"], "test": ["c"]}, each with its split first. Raises ValueError."""
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    lists = tree if isinstance(tree, dict) else {"": tree}
    rows = []
    for split, entries in lists.items():
        if not isinstance(entries, list) or (split and split.lower() not in SPLIT_OF):
            continue
        for one in entries:
            values = [*one.values()] if isinstance(one, dict) else one
            values = values if isinstance(values, list) else [values]
            rows.append([*filter(None, [split]), *(str(value).strip() for value in values)])
    return rows


def _objects(lines: Sequence[str], table: Path) -> Iterator[list[str]]:
    """The values of JSON objects, one a line, by the keys of the first, which come first."""
    keys: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            one = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError("the line is not JSON", file=table, line=number) from error
        if not isinstance(one, dict):
            raise InputError("the line must be a mapping", file=table, line=number)
        if not keys:
            keys = [*one]
            yield keys
        yield [str(one.get(key, "")) for key in keys]
