"""Downloads a study's ledger and files from the bucket to a working folder.

Skips what the folder holds already. A local ledger that continues the bucket's stays as it is: its
driver was lost before it shipped the last lines. A local ledger that contradicts the bucket's was
left by a driver whose study another machine took over: it is set aside.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from study.core.names import CHECKPOINTS, WEIGHTS
from study.ledger.journal import LEDGER
from study.storage.s3 import lease
from study.storage.s3 import segments as segmented
from study.storage.s3.bucket import AT_ONCE, Item, S3Prefix
from study.storage.s3.segments import Segment, read_segment, read_segments

LOCK = "mirror.lock"
SET_ASIDE = "ledger.set-aside-{}.jsonl"
NOT_FILES = (segmented.FOLDER, CHECKPOINTS, WEIGHTS)


def fetch_ledger(prefix: S3Prefix, found: list[Segment], folder: Path) -> Path | None:
    """Extend the ledger in `folder` to the segments; return the path of an old one set aside, or
    None.

    Raises InputError if a segment is missing or damaged, StorageUnavailable if the bucket does not
    answer. The previous files then remain.
    """
    path = folder / LEDGER
    with _locked(folder):
        have = path.stat().st_size if path.exists() else 0
        aside = None
        if have and not _agrees(prefix, found, path, have):
            aside, have = _free_name(folder), 0
        target = path if aside is None else path.with_suffix(".fetched")
        left = [segment for segment in found if segment.end > have]
        if left:
            with open(target, "ab" if aside is None else "wb") as file:
                for segment, data in zip(left, read_segments(prefix, left), strict=True):
                    file.write(data[max(0, have - segment.start) :])
        if aside is not None:
            os.replace(path, aside)
            os.replace(target, path)
        return aside


def fetch_files(prefix: S3Prefix, folder: Path) -> None:
    """Download the study's files beside its ledger that are missing here or differ."""
    with _locked(folder), ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(partial(_fetch_file, prefix, folder), files(prefix)))


def _fetch_file(prefix: S3Prefix, folder: Path, item: Item) -> None:
    path, modified = folder / item.key, item.modified.timestamp()
    if not path.resolve().is_relative_to(folder.resolve()) or is_same(path, item):
        return
    if path.exists() and path.stat().st_mtime >= modified:
        return
    if prefix.download(item.key, path):
        os.utime(path, (modified, modified))


def files(prefix: S3Prefix) -> Iterator[Item]:
    """Yield the objects that are files of the study's folder: no ledger, checkpoint,
    trial's weights or lease."""
    top, folders = prefix.top()
    for item in top:
        if item.key != lease.KEY and not item.key.startswith("."):
            yield item
    for name in folders:
        if name not in NOT_FILES:
            yield from prefix.items(f"{name}/")


def _agrees(prefix: S3Prefix, found: list[Segment], path: Path, have: int) -> bool:
    """Whether the ledger and the segments are equal as far as both go.

    One driver writes in order, so comparing the end is enough.
    """
    common = [segment for segment in found if segment.start < have]
    with open(path, "rb") as file:
        for segment in common[-2:]:
            file.seek(segment.start)
            here = file.read(segment.size)
            if not read_segment(prefix, segment).startswith(here):
                return False
    return True


def _free_name(folder: Path) -> Path:
    count = 1
    while (path := folder / SET_ASIDE.format(count)).exists():
        count += 1
    return path


def is_same(path: Path, item: Item) -> bool:
    """Whether the local file equals the object; False also if the bucket does not tell."""
    if not path.is_file() or path.stat().st_size != item.size:
        return False
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == item.etag


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
