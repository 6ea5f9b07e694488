"""The driver's end of the process that writes to MLflow.

That process follows the ledger file; nothing is sent to it. Closing its stdin (or the death of the
driver, which closes it too) tells it to send the rest and leave.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from study.ledger import LEDGER

LOG = "tracking.log"
SENT = "sent"


class Sidecar:
    """A running follower. `sent` is the number of ledger lines that have reached MLflow."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.sent = 0
        self._folder = folder
        self._process = process
        self._stdin: IO[str] = process.stdin
        self._stdout: IO[str] = process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True, name="tracking-reader")
        self._reader.start()

    def _read(self) -> None:
        for line in self._stdout:
            word, _, number = line.partition(" ")
            if word == SENT:
                self.sent = int(number)
        self._stdout.close()

    def close(self, timeout: float = 60.0) -> int:
        """Let it send the rest, at most `timeout` seconds; the number of lines that are unsent.

        0 means that everything, files included, is in MLflow. What is unsent is not lost: it is
        in the ledger.
        """
        if not self._stdin.closed:
            self._stdin.close()
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join(1.0)
        path = self._folder / LEDGER
        num_lines = path.read_bytes().count(b"\n") if path.exists() else 0
        return 0 if code == 0 else max(1, num_lines - self.sent)


def start(folder: Path, tracking_uri: str) -> Sidecar:
    """Start to follow the ledger in `folder`, from its first line. Returns at once.

    The process is in a session of its own, so that Ctrl-C reaches the driver alone. What it has
    to say goes to ``tracking.log`` in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with open(folder / LOG, "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "study.tracking.follow", str(folder), tracking_uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
    return Sidecar(folder, process)
