from __future__ import annotations

import threading

import pytest

from study.core.errors import InputError
from study.engine import cluster
from study.engine.connection import Connection


@pytest.fixture
def calls(monkeypatch):
    """Stands for Ray: what was asked of it, and by which thread."""
    made = []

    def connect(address):
        made.append(("connect", address, threading.current_thread()))
        if address == "away":
            raise InputError("no Ray cluster answers", key="--address")
        return "a cluster"

    monkeypatch.setattr(cluster, "where", lambda address: (None, "a cluster"))
    monkeypatch.setattr(cluster, "connect", connect)
    monkeypatch.setattr(cluster, "disconnect", lambda: made.append(("disconnect",)))
    return made


def test_the_cluster_is_joined_beside_what_is_done_and_left_at_the_end(calls):
    with Connection("here:1") as connection:
        connection.begin()
        assert connection.wait() == "a cluster"
        ((_, address, thread),) = calls
        assert address == "here:1"
        assert thread is not threading.current_thread()
        assert thread.is_alive()  # Ray's processes die with the thread that started them
    assert calls[1:] == [("disconnect",)]
    thread.join(60)
    assert not thread.is_alive()


def test_without_a_beginning_it_is_joined_when_it_is_needed(calls):
    with Connection(None) as connection:
        assert connection.wait() == "a cluster"
    assert [name for name, *_ in calls] == ["connect", "disconnect"]


def test_what_is_never_begun_is_never_left(calls):
    with Connection(None):
        pass
    assert calls == []


def test_a_cluster_that_is_away_is_said_where_it_is_waited_for(calls):
    with pytest.raises(InputError, match="no Ray cluster"), Connection("away") as connection:
        connection.begin()
        connection.wait()
    assert [name for name, *_ in calls] == ["connect"]


def test_what_fails_meanwhile_leaves_the_cluster_first(calls):
    with pytest.raises(ZeroDivisionError), Connection(None) as connection:
        connection.begin()
        raise ZeroDivisionError
    assert [name for name, *_ in calls] == ["connect", "disconnect"]
