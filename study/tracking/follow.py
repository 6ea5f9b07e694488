"""The process that follows a ledger file and writes it to MLflow.

Run as ``python -m study.tracking.follow FOLDER URI``. Ends after stdin closes and the rest is sent;
exit code 0 if all of it was. Every line ``unsent N M`` on stdout is a sign of life: of M ledger
lines N are not in MLflow yet. A line ``note TEXT`` is for the user.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from study.core.errors import InputError
from study.ledger.journal import LEDGER, read
from study.ledger.records import ReportRecord
from study.tracking.database import Replaced
from study.tracking.projection import Projection, in_a_line
from study.tracking.sidecar import NOTE, UNSENT

LOCK = "tracking.lock"
START_SECONDS = 20.0


@dataclass(frozen=True)
class Waits:
    """Waiting times in seconds.

    Attributes:
        look: between two looks at the ledger.
        failure: after a first failure.
        longest: after a failure, at most.
        grace: without success, before giving up once the driver has ended.
        sign: between two signs of life.
    """

    look: float = 1.0
    failure: float = 0.5
    longest: float = 30.0
    grace: float = 20.0
    sign: float = 1.0


PATIENCE = Waits()


@contextlib.contextmanager
def only_writer(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the folder's tracking lock; yields whether it is held (always, if `wait`)."""
    with open(folder / LOCK, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            yield False
        else:
            yield True


class Follower:
    """Writes a study to MLflow until it is told to end, then the rest.

    Retries an absent server as long as the driver lives, and `waits.grace` seconds longer. The
    ledger holds whatever the server missed.
    """

    def __init__(
        self,
        folder: Path,
        tracking_uri: str,
        *,
        waits: Waits | None = None,
        thorough: bool = False,
        out: IO[str] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.projection = Projection(
            folder,
            tracking_uri,
            thorough=thorough,
            on_success=self._show_life,
            on_replaced=self._take_replaced,
            say=say,
        )
        self._folder = folder
        self._uri = tracking_uri
        self._thorough = thorough
        self._say = say
        self._others: list[Path] = []  # studies that are to be written again, too
        self._waits = waits or PATIENCE
        self._out = out
        self._next_sign = 0.0
        self._logged = ""

    def run(self, closing: threading.Event) -> bool:
        """Run until `closing` is set and the rest is written; return whether all of it is.

        Raises InputError if the ledger cannot be read.
        """
        projection, wait = self.projection, self._waits.failure
        while True:
            over = closing.is_set()
            try:
                if over:
                    done = projection.finish()
                else:
                    projection.read()
                    done = projection.push(live=True)
            except InputError:
                raise
            except Exception as error:
                self._log(error)
                silent = time.monotonic() - projection.last_success
                if over and silent > self._waits.grace:
                    if self._out is not None and not projection.num_unsent:
                        self._say(f"MLflow stores no files: {in_a_line(error)}")
                    return False
                if over:
                    time.sleep(self._waits.failure)
                else:
                    closing.wait(wait)
                    wait = min(2 * wait, self._waits.longest)
                continue
            wait = self._waits.failure
            if done and self._others:
                self._write_others(closing)
            if over and done:
                self._show_life(now=True)
                return not projection.refused
            if done:
                self._show_life()
                closing.wait(self._waits.look)

    def _take_replaced(self, replaced: Replaced) -> None:
        self._say(replaced.line)
        if replaced.lost:
            self._others = sorted(
                path.parent
                for path in self._folder.parent.glob(f"*/{LEDGER}")
                if path.parent != self._folder
            )

    def _write_others(self, closing: threading.Event) -> None:
        """Write the other studies that a ruined database held into the new one, unless their own
        followers do, until the driver ends."""
        missing = []
        for folder in self._others:
            other = Projection(folder, self._uri, on_success=self._show_life)
            try:
                other.read()
                if other.tracking_uri != self._uri:
                    continue
                if closing.is_set() and not self._thorough:
                    missing.append(folder.name)
                    continue
                with only_writer(folder, wait=False) as free:
                    while free and not other.finish():
                        pass
            except Exception as error:
                self._log(error)
                missing.append(folder.name)
        self._others = []
        if missing:
            self._say(f"not in the new database yet, study.track writes them: {', '.join(missing)}")

    def _show_life(self, *, now: bool = False) -> None:
        if self._out is None or (time.monotonic() < self._next_sign and not now):
            return
        self._next_sign = time.monotonic() + self._waits.sign
        with contextlib.suppress(BrokenPipeError):  # the driver may be dead
            unsent, lines = self.projection.num_unsent, self.projection.num_lines
            print(UNSENT, unsent, lines, file=self._out, flush=True)

    def _log(self, error: Exception) -> None:
        """Log each error once, however often it repeats in a row."""
        text = in_a_line(error)
        if text != self._logged:
            self._logged = text
            print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)


def await_a_report(folder: Path, closing: threading.Event, timeout: float = START_SECONDS) -> None:
    """Wait until the first epoch of the study is over: importing MLflow takes seconds of a core,
    which the processes of the first trials need."""
    path = folder / LEDGER
    until = time.monotonic() + timeout
    while time.monotonic() < until and not closing.wait(PATIENCE.look / 4):
        if path.is_file() and any(isinstance(record, ReportRecord) for record in read(path)):
            return


def main() -> int:
    """Run the process that `study.tracking.sidecar.start` starts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tracking_uri")
    arguments = parser.parse_args()
    os.nice(5)
    closing = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        closing.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    with only_writer(arguments.folder, wait=True):
        follower = Follower(
            arguments.folder,
            arguments.tracking_uri,
            out=sys.stdout,
            say=lambda line: print(NOTE, line, flush=True),
        )
        try:
            await_a_report(arguments.folder, closing)
            done = follower.run(closing)
        except InputError as error:
            print(in_a_line(error), file=sys.stderr)
            done = False
    sys.stdout.flush()
    os._exit(0 if done else 1)  # mlflow's threads may wait for a server that is not there


if __name__ == "__main__":
    sys.exit(main())
