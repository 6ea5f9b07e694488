"""A map that computes one item ahead of its consumer in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetched(make: Callable[[T], R], items: Iterable[T], *, ahead: bool = True) -> Iterator[R]:
    """Yield make(item) for each item, computing the next one in a thread while the caller works.

    Without `ahead` it is `map`. An exception of `make` is raised in its turn and ends the
    iteration.
    """
    if not ahead:
        yield from map(make, items)
        return
    pending: Future[R] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        for item in items:
            following = thread.submit(make, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
