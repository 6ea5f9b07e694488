"""Keeps what a damaged ledger still proves: the lines before the damage, in a new file.

They are the whole ledger of an earlier moment of the study. A line after the damage is dropped,
also if it can be read: decisions in it may rest on what is lost.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from study.core.errors import InputError
from study.ledger.journal import LEDGER, Content
from study.ledger.records import decode

REPAIRED = "ledger.repaired-{}.jsonl"


@dataclass(frozen=True)
class Repair:
    """What became of a damaged ledger.

    path: of the new file. kept: number of its lines. reason: why the next line is refused.
    dropped: the number of lines from there on. kinds: how many of those are a trial's start, a
    report and so on, as far as they can be read.
    """

    path: Path
    kept: int
    reason: str
    dropped: int
    kinds: dict[str, int]


def repair(folder: Path) -> Repair | None:
    """Write the lines before the first damaged one to a new file; None if no line is damaged.

    Raises:
        InputError: the first line is damaged, so nothing can be kept.
    """
    path = folder / LEDGER
    content = Content()
    try:
        content.read(path)
    except InputError as error:
        reason = str(error.__cause__)
    else:
        return None
    if not content.num_lines:
        raise InputError(f"nothing of this ledger can be kept: {reason}", file=path, line=1)
    with open(path, "rb") as file:
        kept = file.read(content.size)
        lost = file.read().splitlines()
    kinds: Counter[str] = Counter()
    for line in lost:
        with contextlib.suppress(ValueError):
            kinds[decode(line.decode()).kind] += 1
    target = _written(folder, kept)
    return Repair(target, content.num_lines, reason, len(lost), dict(kinds))


def _written(folder: Path, kept: bytes) -> Path:
    count = 1
    while True:
        target = folder / REPAIRED.format(count)
        try:
            with open(target, "xb") as file:
                file.write(kept)
                os.fsync(file.fileno())
        except FileExistsError:
            count += 1
        else:
            return target
