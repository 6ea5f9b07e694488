"""The way into a cluster, taken while something else is still being checked."""

from __future__ import annotations

import threading

from study.engine import cluster


class Connection:
    """The cluster that `cluster.where` names at an address: joined, or started, in the background
    from `begin` on, left at the end of the block.

    Ray's processes die with the thread that started them, so that one stays.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        self._thread: threading.Thread | None = None
        self._is_decided = threading.Event()
        self._is_over = threading.Event()
        self._words = ""
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Returns at once. Raises InputError where no cluster is named."""
        cluster.where(self._address)
        import ray  # noqa: F401  # here: modules are not imported in two threads at once

        self._thread = threading.Thread(target=self._hold, daemon=True, name="connection")
        self._thread.start()

    def wait(self) -> str:
        """The cluster in words, once it is joined. Raises InputError where it does not answer."""
        if self._thread is None:
            self.begin()
        self._is_decided.wait()
        if self._error is not None:
            raise self._error
        return self._words

    def _hold(self) -> None:
        try:
            self._words = cluster.connect(self._address)
        except BaseException as error:
            self._error = error
        self._is_decided.set()
        self._is_over.wait()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        self._is_decided.wait()
        if self._error is None:
            cluster.disconnect()
        self._is_over.set()
