"""Uploads a study to the bucket every five seconds, in a thread of the driver.

Each round uploads first the files that have changed since the last round, then the ledger lines
that existed before them, as the next segment: the bucket never holds a line without the evidence
that it refers to. No trial waits for it. A slow or absent bucket costs rounds and nothing else; the
next round catches up.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from study.core.names import CHECKPOINTS, WEIGHTS
from study.ledger.journal import LEDGER
from study.storage.s3.bucket import AT_ONCE, Conflict, S3Prefix, StorageUnavailable
from study.storage.s3.lease import Lease, TakenOver
from study.storage.s3.mirror import files, is_same
from study.storage.s3.segments import MAX_BYTES, Segment, segments, write_segment

NOT_SHIPPED = ("ray", CHECKPOINTS, WEIGHTS)
Stamp = tuple[int, int]


@dataclass(frozen=True)
class Shipping:
    """How a study is shipped: seconds between two rounds, and between two tries at its end, while
    there is time; bytes of a segment of the ledger at most."""

    seconds: float = 5.0
    again: float = 1.0
    segment_bytes: int = MAX_BYTES


SHIPPING = Shipping()


class Shipper:
    """Ships the study in `folder` to `prefix`, from `start` to `close`.

    lost: called in the shipper's thread with the reason when another driver has taken the study
    over; nothing is shipped after that.
    """

    def __init__(
        self,
        folder: Path,
        prefix: S3Prefix,
        lease: Lease,
        lost: Callable[[str], None],
        *,
        shipping: Shipping = SHIPPING,
    ) -> None:
        self._folder = folder
        self._prefix = prefix
        self._lease = lease
        self._lost = lost
        self._shipping = shipping
        found = segments(prefix)
        self._next = len(found)
        self._offset = found[-1].end if found else 0
        self._files = FileShipper(folder, prefix)
        self.say: Callable[[str], None] = lambda text: (
            None
        )  # told when the bucket goes away and returns
        self._trouble = ""
        self._is_lost = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="shipper")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout: float) -> str:
        """Ship the rest, for at most `timeout` seconds, and release the lease; return in words
        what could not be shipped, or ""."""
        self._closing.set()
        self._thread.join(timeout)
        lines = self._unshipped_lines()
        if not self._thread.is_alive() and not self._trouble and not lines:
            return ""
        reason = self._trouble or "it is slow"
        return f"{lines} ledger lines, and what follows from them, have not arrived: {reason}"

    def _unshipped_lines(self) -> int:
        with open(self._folder / LEDGER, "rb") as file:
            file.seek(self._offset)
            return sum(line.endswith(b"\n") for line in file)

    def _loop(self) -> None:
        while not self._closing.wait(self._shipping.seconds):
            self._round()
        while not self._round() and not self._is_lost:
            time.sleep(self._shipping.again)
        if not self._is_lost:
            with contextlib.suppress(StorageUnavailable):
                self._lease.give_back()

    def _round(self) -> bool:
        """Ship once; return whether everything is in the bucket."""
        if self._is_lost:
            return False
        try:
            self._lease.renew()
            end = (self._folder / LEDGER).stat().st_size
            self._files.ship()
            while self._ship_segment(end):
                pass
        except (StorageUnavailable, OSError) as error:
            if not self._trouble:
                self.say(f"{error}; the study goes on; the rest follows once it answers")
            self._trouble = str(error)
            return False
        except TakenOver as error:
            self._trouble = str(error)
            self._is_lost = True
            self._lost(str(error))
            return False
        if self._trouble:
            self.say(f"{self._prefix.where}: everything is shipped again")
        self._trouble = ""
        return True

    def _ship_segment(self, end: int) -> bool:
        """Ship the next whole lines before byte `end`; return whether there were any."""
        with open(self._folder / LEDGER, "rb") as file:
            file.seek(self._offset)
            limit = self._shipping.segment_bytes
            data = file.read(min(limit, end - self._offset))
            if len(data) == limit and b"\n" not in data:
                data += file.readline()
        data = data[: data.rfind(b"\n") + 1]
        if not data:
            return False
        segment = Segment(self._next, self._offset, len(data))
        try:
            write_segment(self._prefix, segment, data)
        except Conflict:
            segment = self._shipped_before(segment)
        self._next, self._offset = segment.number + 1, segment.end
        return True

    def _shipped_before(self, segment: Segment) -> Segment:
        """The existing segment, which is ours if the response to its upload was lost."""
        there = self._prefix.get(segment.key)
        with open(self._folder / LEDGER, "rb") as file:
            file.seek(segment.start)
            if there is None or file.read(len(there.data)) != there.data:
                raise TakenOver("another driver has shipped the study's next lines")
        return Segment(segment.number, segment.start, len(there.data))


class FileShipper:
    """Ships the files of a folder that have changed since the last round."""

    def __init__(self, folder: Path, prefix: S3Prefix) -> None:
        self._folder = folder
        self._prefix = prefix
        self._shipped: dict[str, Stamp | None] | None = None

    def ship(self) -> None:
        """Update the bucket's files from the folder's, and delete those that are gone here."""
        here = dict(self._here())
        if self._shipped is None:
            self._shipped = self._there(here)
        gone = [key for key in self._shipped if key not in here]
        changed = [key for key, stamp in here.items() if self._shipped.get(key) != stamp]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for key in pool.map(self._put, changed):
                self._shipped[key] = here[key]
        self._prefix.delete(gone)
        for key in gone:
            del self._shipped[key]

    def _put(self, key: str) -> str:
        with contextlib.suppress(FileNotFoundError), open(self._folder / key, "rb") as file:
            self._prefix.put(key, file)
        return key

    def _there(self, here: Mapping[str, Stamp]) -> dict[str, Stamp | None]:
        """The bucket's files; those that equal the local ones with the local stamp."""
        return {
            item.key: here[item.key] if is_same(self._folder / item.key, item) else None
            for item in files(self._prefix)
        }

    def _here(self) -> Iterator[tuple[str, Stamp]]:
        for root, folders, names in os.walk(self._folder):
            folders[:] = [name for name in folders if name not in NOT_SHIPPED]
            for name in names:
                if name == LEDGER or name.startswith(".") or name.endswith(("lock", ".log")):
                    continue
                path = Path(root) / name
                with contextlib.suppress(OSError):
                    stat = path.stat()
                    yield (
                        path.relative_to(self._folder).as_posix(),
                        (stat.st_mtime_ns, stat.st_size),
                    )
