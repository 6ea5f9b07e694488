"""Whether the cluster of a study is still there: without it a driver would wait for ever, or be
ended by Ray after a minute, without a word on how to go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

LOOK_SECONDS, LOOK_TIMEOUT = 5.0, 5.0
SILENT_SECONDS = 20.0  # Ray ends the process after 60
GRACE_SECONDS = 10.0
NODE_GONE = "the Ray node that this study is driven from is gone"
SILENT = "the Ray cluster does not answer any more"


class ClusterLost(BaseException):
    """The cluster is gone. No Exception: Tune would try to clean up on it."""


class Heartbeat:
    """Looks every few seconds, in a thread of its own; a context manager around a study's work.

    The main thread learns of the end by `check`. Often it cannot, for Ray's calls do not return
    without a cluster: then `end` is called, with the reason, and must end the process.

    is_alive: whether the driver's own node is alive; raises where the cluster does not answer.
    every: seconds between two looks. grace: seconds that the main thread has to learn of the end.
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
        self._thread = threading.Thread(target=self._look_again, daemon=True, name="pulse")

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()

    def join(self) -> None:
        """Wait for the thread's end, after the work's."""
        self._thread.join()

    def check(self) -> None:
        """Raise ClusterLost where the cluster is."""
        if self._gone:
            raise ClusterLost(self._gone)

    def look(self) -> None:
        """One look."""
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


def own_node_is_alive() -> bool:
    """What the cluster says of this process's node."""
    import ray
    from ray._private.worker import global_worker

    client: Any = global_worker.gcs_client  # type: ignore[attr-defined]
    node = ray.NodeID.from_hex(ray.get_runtime_context().get_node_id())
    return bool(client.check_alive([node], timeout=LOOK_TIMEOUT)[0])
