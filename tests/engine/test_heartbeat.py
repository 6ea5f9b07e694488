"""A study whose cluster is gone says so and ends; one whose cluster is slow goes on."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from study.engine.heartbeat import NODE_GONE, SILENT, SILENT_SECONDS, ClusterLost, Heartbeat


class Cluster:
    """A cluster whose answers are given, on a clock that a test moves."""

    def __init__(self) -> None:
        self.alive: bool | None = True
        self.now = 0.0
        self.heartbeat = Heartbeat(self.is_alive, lambda _: None, clock=lambda: self.now)

    def is_alive(self) -> bool:
        if self.alive is None:
            raise TimeoutError
        return self.alive

    def look(self, alive: bool | None, now: float) -> None:
        self.alive, self.now = alive, now
        self.heartbeat.look()


def test_a_silence_that_ends_in_time_is_no_end() -> None:
    cluster = Cluster()
    for beat in range(1, 5):
        cluster.look(None, beat * SILENT_SECONDS - 1)
        cluster.look(True, beat * SILENT_SECONDS)
        cluster.heartbeat.check()


@pytest.mark.parametrize(
    ("answers", "words"),
    [([True, False], NODE_GONE), ([True, None, None], SILENT), ([None, None], SILENT)],
)
def test_a_dead_node_and_a_long_silence_are_the_end(answers: list[Any], words: str) -> None:
    cluster = Cluster()
    for count, alive in enumerate(answers, 1):
        cluster.heartbeat.check()
        cluster.look(alive, count * 0.75 * SILENT_SECONDS)
    with pytest.raises(ClusterLost, match=words):
        cluster.heartbeat.check()


@pytest.mark.parametrize("stuck", [True, False])
def test_a_main_thread_that_is_stuck_in_ray_is_ended(stuck: bool) -> None:
    ended: list[str] = []
    told = Event()

    def end(reason: str) -> None:
        ended.append(reason)
        told.set()

    with Heartbeat(lambda: False, end, every=0.01, grace=0.2 if stuck else 60.0) as beat:
        if stuck:
            assert told.wait(60)
        else:
            with pytest.raises(ClusterLost):
                while True:
                    beat.check()
    beat.join()
    assert ended == ([NODE_GONE] if stuck else [])
