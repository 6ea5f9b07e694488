"""The notice of the spot market: heard from a metadata service, obeyed by a cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from study.engine import spot
from study.engine.spot import NOTICE_PATH, Metadata, seconds_left, watch


class Service(ThreadingHTTPServer):
    """An instance's metadata service: version 2 alone, each token good for `uses` questions."""

    daemon_threads = True

    def __init__(self) -> None:
        self.notice: str | None = None
        self.uses = 1000
        self.silence: Event | None = None
        self.tokens: dict[str, int] = {}
        self.asked = 0
        super().__init__(("127.0.0.1", 0), Answer)
        Thread(target=self.serve_forever, args=[0.02], daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def give(self, seconds: float) -> None:
        """The notice that the instance goes in so many seconds."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        self.notice = json.dumps({"action": "terminate", "time": when})


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_PUT(self) -> None:
        if (
            self.path != spot.TOKEN_PATH
            or "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers
        ):
            return self._send(400)
        token = f"token{len(self.server.tokens)}"
        self.server.tokens[token] = self.server.uses
        self._send(200, token)

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.silence is not None:
            self.server.silence.wait()
        token = self.headers.get("X-aws-ec2-metadata-token", "")
        if self.server.tokens.get(token, 0) <= 0:
            return self._send(401)
        self.server.tokens[token] -= 1
        if self.path != NOTICE_PATH or self.server.notice is None:
            return self._send(404, "<html>not found</html>")
        self._send(200, self.server.notice)

    def _send(self, code: int, text: str = "") -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def service() -> Iterator[Service]:
    there = Service()
    yield there
    there.shutdown()
    there.server_close()


class Enough(Exception):
    """Ends a watch that would go on for ever."""


def polls(count: int, at: dict[int, Callable[[], object]] | None = None) -> Callable[[float], None]:
    """A sleep that takes no time, does something after some polls, and ends the watch after all."""
    done = 0

    def sleep(seconds: float) -> None:
        nonlocal done
        done += 1
        (at or {}).get(done, lambda: None)()
        if done == count:
            raise Enough

    return sleep


def watched(
    service: Service, count: int, at: dict[int, Callable[[], object]], timeout: float = 10.0
) -> list[float]:
    left: list[float] = []

    def leave(seconds: float) -> int:
        left.append(seconds)
        return 1

    with pytest.raises(Enough):
        watch(Metadata(service.endpoint, timeout=timeout), leave, sleep=polls(count, at))
    return left


def test_nothing_is_left_before_the_notice_and_every_poll_from_it_on(service: Service) -> None:
    left = watched(service, 5, {3: lambda: service.give(60)})
    assert len(left) == 2
    assert all(50 < seconds <= 60 for seconds in left)


def test_a_token_that_has_expired_is_renewed(service: Service) -> None:
    service.uses = 2
    assert len(watched(service, 6, {1: lambda: service.give(60)})) == 5
    assert len(service.tokens) == 3


@pytest.mark.slow
def test_a_service_that_is_silent_for_a_while_is_asked_again(service: Service) -> None:
    spoken = Event()

    def silence() -> None:
        service.silence = spoken

    def speak() -> None:
        spoken.set()
        service.give(60)

    polled = spot.ABSENT_AFTER + 4
    assert len(watched(service, polled, {1: silence, polled - 2: speak}, timeout=0.5)) == 2


def test_without_a_metadata_service_the_watch_ends_quietly(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.uses = 0
    watch(Metadata(service.endpoint), lambda _: 0, sleep=polls(100))
    service.shutdown()
    service.server_close()
    watch(Metadata(service.endpoint), lambda _: 0, sleep=polls(100))
    refused, absent = capsys.readouterr().out.splitlines()
    assert "no instance metadata here" in refused and "refuses" in refused
    assert "no instance metadata here" in absent and "Connection refused" in absent


def test_no_proxy_is_asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert Metadata(service.endpoint).get(NOTICE_PATH) is None


def test_a_cluster_that_does_not_answer_is_asked_again_at_the_next_poll(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = 0

    def leave(seconds: float) -> int:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise OSError("the head is away")
        return 1

    service.give(60)
    with pytest.raises(Enough):
        watch(Metadata(service.endpoint), leave, sleep=polls(2))
    first, second = capsys.readouterr().out.splitlines()
    assert "was not drained: the head is away" in first
    assert "its node is drained" in second


@pytest.mark.parametrize(
    ("notice", "left"),
    [
        ('{"action": "terminate", "time": "2026-11-21T12:02:00Z"}', 120.0),
        ('{"action": "stop", "time": "2026-11-21T12:00:30Z"}', 30.0),
        ('{"action": "hibernate", "time": "2026-11-21T12:00:30"}', 30.0),
        ('{"action": "terminate", "time": "2026-11-21T11:00:00Z"}', 0.0),
        ('{"action": "terminate", "time": "soon"}', spot.NOTICE_SECONDS),
        ('{"action": "terminate"}', spot.NOTICE_SECONDS),
        ("{}", None),
        ("[]", None),
        ("<html>", None),
        ("", None),
    ],
)
def test_a_notice_says_how_long_the_instance_has(notice: str, left: float | None) -> None:
    noon = 1795262400.0  # 2026-11-21T12:00:00Z
    assert seconds_left(notice, noon) == left
