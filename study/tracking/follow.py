"""Follow a ledger file and write it to MLflow: ``python -m study.tracking.follow FOLDER URI``.

Ends when stdin does, after the rest is sent. Exit code 0 says that all of it was. Every line on
stdout, ``sent N``, says that the first N ledger lines are in MLflow.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from study.ledger import LEDGER
from study.records import Record, decode
from study.tracking.sidecar import SENT

LOCK = "tracking.lock"
DRAIN_SECONDS = 1.0
MIN_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 30.0
GRACE_SECONDS = 20.0  # without any success, after the driver's end


class Tail:
    """The whole lines of a growing file, each once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[Record]:
        """What came since the last call. A line without its newline waits for the next one."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield decode(line.decode())


@contextlib.contextmanager
def only_writer(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the folder's tracking lock; gives whether it is held (always, if `wait`)."""
    with open(folder / LOCK, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            yield False
        else:
            yield True


def follow(folder: Path, tracking_uri: str, closing: threading.Event, out: IO[str]) -> bool:
    """Write until `closing` is set, then the rest; whether all of it was written."""
    from study.tracking.store import Projection

    tail, projection = Tail(folder / LEDGER), Projection(folder, tracking_uri)
    sent, wait = 0, MIN_WAIT_SECONDS
    while True:
        over = closing.is_set()
        for record in tail.read():
            projection.take(record)
        try:
            if over:
                projection.finish()
            else:
                projection.push(live=True)
        except Exception as error:
            _log(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            if over and time.monotonic() - projection.last_success > GRACE_SECONDS:
                return False
            if over:
                time.sleep(MIN_WAIT_SECONDS)
            else:
                closing.wait(wait)
                wait = min(2 * wait, MAX_WAIT_SECONDS)
            continue
        if projection.num_lines > sent:
            sent = projection.num_lines
            with contextlib.suppress(BrokenPipeError):  # the driver may be dead
                print(SENT, sent, file=out, flush=True)
        if over:
            return True
        wait = MIN_WAIT_SECONDS
        closing.wait(DRAIN_SECONDS)


def _log(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)


def main() -> int:
    """Started by `study.tracking.start`."""
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
        done = follow(arguments.folder, arguments.tracking_uri, closing, sys.stdout)
    sys.stdout.flush()
    os._exit(0 if done else 1)  # mlflow's threads may wait for a server that is not there


if __name__ == "__main__":
    sys.exit(main())
