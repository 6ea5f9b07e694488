"""Ctrl-C and SIGTERM while a study is at work: once to come to an end, twice to stop now."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """While it is entered, the first signal calls `end` and the second raises KeyboardInterrupt.

    Only the main thread can take signals; elsewhere nothing is done.

    end: asks for an end and returns at once; the result is what is said about it.
    say: shows a line. Called from a thread of its own, for a handler may run inside a print.
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
