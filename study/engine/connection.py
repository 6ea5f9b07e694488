"""The way into a cluster, taken while something else is still being checked."""

from __future__ import annotations

import threading
from types import TracebackType

from study.engine import cluster


class Connection:
    """A cluster that is being joined, or a Ray that is being started, until the end of the block.

    Ray's processes die with the thread that started them, so that one stays.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._is_decided = threading.Event()
        self._is_over = threading.Event()
        self._words = ""
        self._error: BaseException | None = None

    def begin(self, address: str | None) -> None:
        """Join the cluster that `cluster.where` names, in the background. Raises InputError where
        there is none."""
        cluster.where(address)
        import ray  # noqa: F401  # here: modules are not imported in two threads at once

        self._thread = threading.Thread(
            target=self._hold, args=(address,), daemon=True, name="connection"
        )
        self._thread.start()

    def wait(self, address: str | None) -> str:
        """The cluster in words, once it is joined. Raises InputError where it does not answer."""
        if self._thread is None:
            self.begin(address)
        self._is_decided.wait()
        if self._error is not None:
            raise self._error
        return self._words

    def _hold(self, address: str | None) -> None:
        try:
            self._words = cluster.connect(address)
        except BaseException as error:
            self._error = error
        self._is_decided.set()
        self._is_over.wait()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        self._is_decided.wait()
        if self._error is None:
            cluster.disconnect()
        self._is_over.set()
