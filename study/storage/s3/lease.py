"""The lease of a study in a bucket, ``driver.json``: one driver at a time.

It names the driver's process and is renewed every few seconds. A lease that has not been renewed
for a minute, by the bucket's clock, belongs to a lost driver and is taken over; so is the lease of
a process that was on this machine and is dead. A driver whose lease was taken over ends.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from study.core.errors import InputError
from study.storage.s3.bucket import Conflict, Content, S3Prefix

KEY = "driver.json"
STALE_SECONDS = 60.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Driver:
    """A process: its machine, the machine's boot, its id, and its start in ticks since the boot."""

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Driver:
        """The calling process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), pid, _started(pid))

    @property
    def is_dead(self) -> bool:
        """Whether the process was on this machine and has ended; False if unknown."""
        here = (self.host, self.boot) == (socket.gethostname(), _boot())
        return here and self.started != _started(self.pid)

    @property
    def words(self) -> str:
        """The process in words."""
        return f"process {self.pid} on {self.host}"


def _boot() -> str:
    return BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.is_file() else ""


def _started(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


class TakenOver(Exception):
    """Another driver has the study; the text names it."""


class Lease:
    """The right to drive the study at a prefix.

    driver: who holds it, by default this process. stale: seconds without a renewal after which
    another driver's lease is taken over.
    """

    def __init__(
        self, prefix: S3Prefix, driver: Driver | None = None, *, stale: float = STALE_SECONDS
    ) -> None:
        self._prefix = prefix
        self._me = driver or Driver.this()
        self._stale = stale
        self._etag = ""

    def take(self) -> str:
        """Acquire the lease; return in words whose it was, or "".

        Raises InputError if another driver is at work, or may be.
        """
        there = self._prefix.get(KEY)
        said = ""
        if there is not None and (driver := _driver(there)) != self._me:
            silent = there.age.total_seconds()
            if silent < self._stale and not driver.is_dead:
                raise self._occupied(driver, silent)
            said = f"takes over from {driver.words}, last heard of {silent:.0f} s ago"
        try:
            if there is None:
                self._etag = self._prefix.put(KEY, self._text(), new=True)
            else:
                self._etag = self._prefix.put(KEY, self._text(), replacing=there.etag)
        except Conflict:
            there = self._prefix.get(KEY)
            if there is None or (driver := _driver(there)) != self._me:
                raise self._occupied(None if there is None else driver, 0.0) from None
            self._etag = there.etag
        return said

    def renew(self) -> None:
        """Renew the lease. Raises TakenOver if another driver has it, StorageUnavailable if the
        bucket does not answer."""
        try:
            self._etag = self._prefix.put(KEY, self._text(), replacing=self._etag)
        except (Conflict, FileNotFoundError):
            there = self._prefix.get(KEY)
            if there is None:
                self._etag = self._prefix.put(KEY, self._text(), new=True)
            elif _driver(there) == self._me:  # the response to the last renewal was lost
                self._etag = there.etag
            else:
                raise TakenOver(f"{_driver(there).words} has taken the study over") from None

    def give_back(self) -> None:
        """Release the lease, so that another driver can begin at once."""
        self._prefix.delete([KEY])

    def _text(self) -> bytes:
        return json.dumps(asdict(self._me)).encode()

    def _occupied(self, driver: Driver | None, silent: float) -> InputError:
        who = "another driver" if driver is None else driver.words
        return InputError(
            f"{who} is working on this study, heard of {silent:.0f} s ago",
            hint=f"if it is lost, try again in {self._stale - silent:.0f} s",
            file=self._prefix.where,
        )


def _driver(content: Content) -> Driver:
    try:
        return Driver(**json.loads(content.data))
    except (ValueError, TypeError):
        return Driver("an unknown machine", "", 0, "")


def is_driven(prefix: S3Prefix, *, stale: float = STALE_SECONDS) -> bool:
    """Whether a driver that was heard of in the last `stale` seconds works on the study."""
    there = prefix.get(KEY)
    return there is not None and (there.age.total_seconds() < stale and not _driver(there).is_dead)
