"""Connects to a cluster in the background, while the driver checks other things."""

from __future__ import annotations

import threading
from collections.abc import Callable

from study.engine import cluster
from study.engine.nodes import Installed, NodeCheck


class Connection:
    """Joins or starts the cluster that `cluster.where` finds; a context manager that leaves it.

    `begin` connects in a background thread. This thread stays until the end of the block, because
    Ray's processes die with the thread that has started them. So where a new Ray does not start in
    time, its thread ends and takes along what it has started; another one tries once more, longer.

    address: HOST:PORT, "auto", "local", or None for RAY_ADDRESS or a cluster on this machine.
    say: shows the line that it begins. nodes: the check of a cluster that it joins.
    """

    def __init__(self, address: str | None, say: Callable[[str], None] = lambda line: None) -> None:
        self._address = address
        self._say = say
        self.nodes = NodeCheck()
        self._thread: threading.Thread | None = None
        self._is_decided = threading.Event()
        self._is_left = False
        self._is_over = threading.Event()
        self._words = ""
        self._here: Installed | None = None
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Start to connect, and return at once. Raises InputError for a bad address."""
        there, words = cluster.where(self._address)
        self._say(f"{'starting' if there is None else 'joining'} {words} ...")
        import ray  # noqa: F401  # here: modules are not imported in two threads at once

        self._here = None if there is None else self.nodes.find()
        self._try(None)

    def _try(self, before: threading.Thread | None) -> None:
        self._thread = threading.Thread(
            target=self._hold, args=(before,), daemon=True, name="connection"
        )
        self._thread.start()

    def wait(self) -> str:
        """Wait for the connection; return the cluster in words. Raises InputError without an
        answer."""
        if self._thread is None:
            self.begin()
        self._is_decided.wait()
        if self._error is not None:
            raise self._error
        return self._words

    def _hold(self, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        try:
            self._words = cluster.connect(self._address, patient=before is not None)
            if self._here is not None:
                self.nodes.begin(self._here)
                self.nodes.wait()
        except cluster.NotStarted as error:
            if before is None and not self._is_left:
                self._try(threading.current_thread())
                return
            self._error = error
        except BaseException as error:
            self._error = error
        self._is_decided.set()
        self._is_over.wait()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        self._is_left = True
        self._is_decided.wait()
        self.nodes.close()
        if self._error is None:
            cluster.disconnect()
        self._is_over.set()
