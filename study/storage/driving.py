"""The driver's hold on a study: its lock, its open ledger, its upload to the bucket."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study.ledger.journal import Ledger
from study.storage.s3.bucket import S3Prefix, StorageUnavailable
from study.storage.s3.lease import Driver, Lease
from study.storage.s3.shipper import SHIPPING, Shipper, Shipping
from study.storage.session_lock import SessionLock
from study.storage.studies import Storage


@dataclass
class Driving:
    """The open ledger, the lock of its study, and the shipper."""

    ledger: Ledger
    lock: SessionLock
    _said: str = ""
    _shipper: Shipper | None = None

    def tell(self, say: Callable[[str], None]) -> None:
        """Pass on what taking the study said, and later messages of the shipper."""
        if self._said:
            say(self._said)
        if self._shipper is not None:
            self._shipper.say = say

    def ship(self, timeout: float) -> str:
        """Ship the rest, for at most `timeout` seconds; return in words what has not arrived, or
        "".

        Nothing is shipped afterwards.
        """
        shipper, self._shipper = self._shipper, None
        return "" if shipper is None else shipper.close(timeout)

    def close(self) -> None:
        """Release the study for another driver."""
        self.ship(timeout=1.0)
        _close(self.ledger, self.lock)


def drive(
    storage: Storage,
    folder: Path,
    *,
    driver: Driver | None = None,
    shipping: Shipping = SHIPPING,
) -> Driving:
    """Take hold of the study in a folder of the storage, with what another driver wrote meanwhile.

    driver: who takes it, by default this process. shipping: how it is shipped to a bucket.

    Raises InputError if another driver works on it, and if the bucket does not answer.
    """
    prefix = storage.prefix_of(folder)
    if prefix is None:
        return Driving(*_open(folder))
    try:
        lease = Lease(prefix, driver)
        said = lease.take()
        storage.fetch(folder)
        ledger, lock = _open(folder)
        try:
            shipper = Shipper(
                folder,
                prefix,
                lease,
                lambda reason: _end(ledger, prefix, reason),
                shipping=shipping,
            )
        except BaseException:
            _close(ledger, lock)
            raise
    except StorageUnavailable as error:
        raise error.as_input_error() from error
    shipper.start()
    return Driving(ledger, lock, said, shipper)


def _open(folder: Path) -> tuple[Ledger, SessionLock]:
    """Lock the study in a folder, then open its ledger."""
    lock = SessionLock(folder)
    try:
        return Ledger(folder), lock
    except BaseException:
        lock.close()
        raise


def _close(ledger: Ledger, lock: SessionLock) -> None:
    try:
        ledger.close()
    finally:
        lock.close()


def _end(ledger: Ledger, prefix: S3Prefix, reason: str) -> None:
    """Refuse further ledger lines, which ends the study here."""
    ledger.failure = OSError(errno.ESTALE, f"{reason}: it ends here", prefix.where)
