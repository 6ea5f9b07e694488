"""Ctrl-C and SIGTERM during a study: the first ends it in order, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """A context in which the first signal calls `end` and the second raises KeyboardInterrupt.

    Only the main thread can handle signals; in other threads the context does nothing.

    end: requests the end and returns at once; returns the text that tells the user.
    say: shows a line. Runs in its own thread, because a handler may interrupt a print.
    """

    def __init__(self, end: Callable[[], str], say: Callable[[str], None]) -> None:
        self._end = end
        self._say = say
        self._before: dict[signal.Signals, object] = {}
        self.count = 0

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._caught) for number in CAUGHT}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        threading.Thread(target=self._say, args=(self._end(),), daemon=True).start()
