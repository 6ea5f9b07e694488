"""A study in the hands of one driver: its ledger, open for writing, and shipped to its bucket."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study.ledger.journal import Ledger
from study.storage.s3.bucket import Bucket, Unreachable
from study.storage.s3.lease import Lease
from study.storage.s3.shipper import Shipper
from study.storage.studies import Storage


@dataclass
class Driving:
    """The open ledger, and who ships it."""

    ledger: Ledger
    _said: str = ""
    _shipper: Shipper | None = None

    def tell(self, say: Callable[[str], None]) -> None:
        """Say what there is to say, now and later."""
        if self._said:
            say(self._said)
        if self._shipper is not None:
            self._shipper.say = say

    def ship(self, timeout: float) -> str:
        """Ship the rest, for at most `timeout` seconds; in words what has not arrived, or empty.
        Nothing is shipped afterwards."""
        shipper, self._shipper = self._shipper, None
        return "" if shipper is None else shipper.close(timeout)

    def close(self) -> None:
        """Another driver may begin."""
        self.ship(timeout=1.0)
        self.ledger.close()


def drive(storage: Storage, folder: Path) -> Driving:
    """Take the study in a folder of the storage, and what another driver wrote of it in between.

    Raises InputError where another driver is at work on it, and where the bucket does not answer.
    """
    place = storage.place_of(folder)
    if place is None:
        return Driving(Ledger(folder))
    try:
        lease = Lease(place)
        said = lease.take()
        storage.fetch(folder)
        ledger = Ledger(folder)
        try:
            shipper = Shipper(folder, place, lease, lambda reason: _end(ledger, place, reason))
        except BaseException:
            ledger.close()
            raise
    except Unreachable as error:
        raise error.as_input_error() from error
    shipper.start()
    return Driving(ledger, said, shipper)


def _end(ledger: Ledger, place: Bucket, reason: str) -> None:
    """No further line is written, which ends the study here."""
    ledger.failure = OSError(errno.ESTALE, f"{reason}: it ends here", place.where)
