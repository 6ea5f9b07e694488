"""Work that is done one item ahead of whoever asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetched(make: Callable[[T], R], items: Iterable[T], *, ahead: bool = True) -> Iterator[R]:
    """make(item) of each item in turn, the next one made in a thread while the caller is at work
    with one, or without `ahead` as `map` does. What `make` raises is raised here in its turn, and
    ends it."""
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
