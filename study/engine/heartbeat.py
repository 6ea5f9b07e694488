"""Watches whether the cluster of a study is still there.

Without its cluster a driver would wait for ever, or Ray would end it after a minute without saying
how to continue the study.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LOOK_SECONDS, LOOK_TIMEOUT = 5.0, 5.0
SILENT_SECONDS = 20.0  # Ray ends the process after 60
GRACE_SECONDS = 10.0
NODE_GONE = "the Ray node that this study is driven from is gone"
SILENT = "the Ray cluster does not answer any more"


class ClusterLost(BaseException):
    """The cluster is gone. This is no Exception, because Tune would then try to clean up on it."""


class Heartbeat:
    """Asks every few seconds, in its own thread, whether the cluster is alive; a context manager.

    The main thread calls `check`, which raises if the cluster is gone. If the main thread is stuck
    in a call of Ray that does not return without a cluster, `end` is called.

    Args:
        is_alive: returns whether the driver's own node is alive; raises an Exception if the cluster
            does not answer.
        end: called with the reason; must end the process.
        every: seconds between two looks.
        grace: seconds that the main thread has to learn of the end by itself.
        clock: returns seconds.
    """

    def __init__(
        self,
        is_alive: Callable[[], bool],
        end: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        every: float = LOOK_SECONDS,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._is_alive = is_alive
        self._end = end
        self._clock = clock
        self._every, self._grace = every, grace
        self._heard = clock()
        self._gone = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True, name="heartbeat")

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()

    def join(self) -> None:
        """Wait until the thread has ended; call it after the block."""
        self._thread.join()

    def check(self) -> None:
        """Raise ClusterLost if the cluster is gone."""
        if self._gone:
            raise ClusterLost(self._gone)

    def look(self) -> None:
        """Ask once."""
        try:
            alive = self._is_alive()
        except Exception:  # whatever Ray raises for a cluster that it cannot reach
            if self._clock() - self._heard >= SILENT_SECONDS:
                self._gone = SILENT
        else:
            self._heard = self._clock()
            if not alive:
                self._gone = NODE_GONE

    def _look_again(self) -> None:
        while not self._gone and not self._closing.wait(self._every):
            self.look()
        if not self._closing.wait(self._grace):
            self._end(self._gone)
