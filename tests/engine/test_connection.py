from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from refusals import AWAY, is_refused

from study.core.console import EXIT_OUTPUT_ERROR, exit_code
from study.core.errors import InputError
from study.engine import cluster
from study.engine.connection import Connection
from study.engine.ray_internals import HEAD_WAIT


@pytest.fixture
def calls(monkeypatch):
    """Stands for Ray: what was asked of it, and by which thread."""
    made = []

    def connect(address, *, patient):
        assert not patient
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


@pytest.mark.parametrize(
    ("there", "said"), [(None, "starting a cluster ..."), ("here:1", "joining a cluster ...")]
)
def test_what_is_begun_is_said_before_it_is_there(calls, monkeypatch, there, said):
    told, answers = [], threading.Event()
    monkeypatch.setattr(cluster, "where", lambda address: (there, "a cluster"))
    monkeypatch.setattr(cluster, "connect", lambda *_, **__: str(answers.wait(240)))
    with Connection(None, told.append) as connection:
        connection.nodes.find = lambda: None
        assert told == []
        connection.begin()
        assert told == [said]
        answers.set()
        connection.wait()
    assert told == [said]


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


class LateRay:
    """Stands for a Ray that does not start in time at its first `failures` tries."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.tries: list[tuple[bool, threading.Thread]] = []
        self.may_fail = threading.Event()
        self.may_fail.set()

    def connect(self, address: str | None, *, patient: bool) -> str:
        assert not [thread for _, thread in self.tries if thread.is_alive()]
        self.tries.append((patient, threading.current_thread()))
        if len(self.tries) <= self.failures:
            self.may_fail.wait(60)
            raise cluster.NotStarted(RuntimeError("Timed out\nby far"))
        return "a cluster"


def late_ray(monkeypatch: pytest.MonkeyPatch, failures: int) -> LateRay:
    late = LateRay(failures)
    monkeypatch.setattr(cluster, "where", lambda address: (None, "a cluster"))
    monkeypatch.setattr(cluster, "connect", late.connect)
    monkeypatch.setattr(cluster, "disconnect", lambda: None)
    return late


def test_a_ray_that_starts_late_has_more_time_at_a_second_try_in_a_thread_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = late_ray(monkeypatch, 1)
    with Connection(None) as connection:
        assert connection.wait() == "a cluster"
        assert [patient for patient, _ in late.tries] == [False, True]
        assert late.tries[1][1].is_alive()


def test_a_ray_that_does_not_start_at_a_second_try_either_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    late = late_ray(monkeypatch, 9)

    def command() -> None:
        with Connection(None) as connection:
            connection.wait()

    assert exit_code(command) == EXIT_OUTPUT_ERROR
    assert len(late.tries) == 2
    line = "error: Ray does not start on this machine, which may be overloaded: Timed out\n"
    assert capsys.readouterr() == ("", line)


def test_where_something_else_fails_meanwhile_there_is_no_second_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = late_ray(monkeypatch, 9)
    late.may_fail.clear()
    with pytest.raises(ZeroDivisionError), Connection(None) as connection:
        connection.begin()

        def fail_once_it_is_left() -> None:
            while not connection._is_left:
                time.sleep(0.01)
            late.may_fail.set()

        threading.Thread(target=fail_once_it_is_left).start()
        raise ZeroDivisionError
    assert len(late.tries) == 1


def started_here() -> list[str]:
    """The names of the processes that this one has started, but not of those that are dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().partition("(")[2].rsplit(")", 1)
        except FileNotFoundError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == threading.main_thread().native_id and state != "Z":
            found.append(name)
    return found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray waits for no moment for the head that it starts."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv(HEAD_WAIT, "0")
    yield
    ray.shutdown()


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("impatient")
def test_what_a_late_ray_has_started_is_gone_and_the_next_one_serves() -> None:
    import ray

    with Connection("local") as connection:
        assert connection.wait() == "a new Ray on this machine"
        assert ray.is_initialized()
        assert started_here().count("gcs_server") == 1
    assert not ray.is_initialized()


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("impatient")
def test_nothing_is_left_of_a_ray_that_never_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LATE_START_SECONDS", 0)
    with pytest.raises(OSError, match="Ray does not start"), Connection("local") as connection:
        connection.wait()
    end = time.monotonic() + 240
    while "gcs_server" in started_here() and time.monotonic() < end:
        time.sleep(0.1)
    assert "gcs_server" not in started_here()


@pytest.mark.ray
@pytest.mark.parametrize("name", [AWAY, "run_unreadable_image.yaml"])
def test_bad_input_that_is_found_while_ray_starts_is_no_different(
    name: str, tmp_path: Path
) -> None:
    is_refused(name, tmp_path)
