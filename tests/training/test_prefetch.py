"""Work that is done one item ahead."""

from __future__ import annotations

import threading

import pytest

from study.training.prefetch import prefetched


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("prefetch")]


def test_the_next_item_is_made_in_a_thread_while_one_is_worked_on() -> None:
    made: list[tuple[int, bool]] = []
    second = threading.Event()

    def make(item: int) -> int:
        made.append((item, threading.current_thread() is threading.main_thread()))
        if item == 1:
            second.set()
        return 10 * item

    results = prefetched(make, range(4))
    assert not made, "nothing is done before it is asked for"
    assert next(results) == 0
    assert second.wait(60), "the second is made without being asked for"
    assert [item for item, _ in made] == [0, 1], "and the third is not"
    assert list(results) == [10, 20, 30]
    assert made == [(item, False) for item in range(4)]
    assert not threads()


def test_an_error_is_raised_in_its_turn_and_leaves_no_thread() -> None:
    results = prefetched(lambda item: 1 // item, [1, 1, 0, 1])
    assert next(results) == 1
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not threads()
    assert list(results) == []


def test_who_stops_asking_leaves_no_thread() -> None:
    results = prefetched(str, range(10))
    assert next(results) == "0"
    results.close()  # type: ignore[attr-defined]
    assert not threads()


def test_without_items_there_is_nothing() -> None:
    assert list(prefetched(str, [])) == []
