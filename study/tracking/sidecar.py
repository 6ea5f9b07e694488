"""The driver's end of the process that writes to MLflow.

That process follows the ledger file; nothing is sent to it. Closing its stdin (or the death of the
driver, which closes it too) tells it to send the rest and exit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from study.ledger.journal import LEDGER

LOG = "tracking.log"
UNSENT, NOTE = "unsent", "note"
STARTS = 4
PAUSE_SECONDS = 2.0


class Sidecar:
    """A running follower, restarted if it dies early; it continues in the same runs.

    pause: seconds before it is started again. say: shows a line to the user.
    """

    def __init__(
        self,
        folder: Path,
        tracking_uri: str,
        *,
        pause: float = PAUSE_SECONDS,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._folder = folder
        self._pause = pause
        self._say = say
        self._command = [sys.executable, "-m", "study.tracking.follow", str(folder), tracking_uri]
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._unsent: tuple[int, int] | None = None  # (unsent, lines in all)
        self._heard = time.monotonic()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="tracking-watcher")
        self._watcher.start()

    def _start(self) -> subprocess.Popen[str]:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        with open(self._folder / LOG, "a", encoding="utf-8") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                errors="replace",
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )

    def _watch(self) -> None:
        for start in range(1, STARTS + 1):
            self._listen(self._process)
            _end(self._process)
            self._closing.wait(self._pause)
            with self._starting:
                if start == STARTS or self._closing.is_set():
                    return
                self._process = self._start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                match line.split():
                    case [word, unsent, of] if word == UNSENT:
                        self._unsent = int(unsent), int(of)
                        self._heard = time.monotonic()
                    case [word, *_] if word == NOTE:
                        self._say(line.removeprefix(NOTE).strip())

    @property
    def unsent(self) -> int:
        """The number of ledger lines that are not in MLflow."""
        path = self._folder / LEDGER
        num_lines = path.read_bytes().count(b"\n") if path.exists() else 0
        unsent, of = self._unsent or (0, 0)
        return unsent + num_lines - of

    def close(self, timeout: float = 60.0) -> int:
        """Let it send the rest, until nothing arrives for `timeout` seconds; return the number of
        unsent lines.

        0 means that everything, files included, is in MLflow. Unsent lines are not lost: they are
        in the ledger.
        """
        with self._starting:
            self._closing.set()
        self._heard = time.monotonic()
        if self._process.poll() is not None:
            self._watcher.join()
            self._process = self._start()
            self._watcher = threading.Thread(target=self._listen, args=[self._process], daemon=True)
            self._watcher.start()
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        while process.poll() is None and time.monotonic() < self._heard + timeout:
            try:
                process.wait(max(0.0, self._heard + timeout - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
        if process.poll() is None:
            process.kill()
        code = process.wait()
        self._watcher.join(1.0)
        return 0 if code == 0 else max(1, self.unsent)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.wait()
    process.stdin.close()


def start(
    folder: Path, tracking_uri: str, say: Callable[[str], None] = lambda line: None
) -> Sidecar:
    """Start to follow the ledger in `folder`, from its first line. Returns at once.

    The process has its own session, so that Ctrl-C reaches only the driver. It logs to
    ``tracking.log`` in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return Sidecar(folder, tracking_uri, say=say)
