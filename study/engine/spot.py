"""Drains a node when AWS announces that it takes the spot instance away in two minutes.

``python -m study.engine.spot --address HEAD:6379`` runs beside a worker's raylet. Every five
seconds it asks the instance's metadata service (IMDSv2) whether the instance will be taken away. If
so, it drains the node: Ray starts nothing there any more, and losing the node is no failure. Its
trials leave with their next checkpoint (`leave_if_drained`) and continue elsewhere, so at most one
epoch is lost.

The notice is certain. The recommendation to rebalance is not, so it is ignored: nodes that are only
at risk would be given up, too, and replaced from the same market.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial

from study.core.console import Parser, run_command
from study.engine.cluster import host_and_port, show_token
from study.engine.ray_internals import drain_nodes, own_node_is_draining

ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"  # as AWS's own clients call it
DEFAULT_ENDPOINT = "http://169.254.169.254"
TOKEN_PATH, TOKEN_SECONDS = "/latest/api/token", 21600
NOTICE_PATH = "/latest/meta-data/spot/instance-action"
TIMEOUT, CLUSTER_TIMEOUT = 2.0, 10.0
POLL_SECONDS = 5.0
ABSENT_AFTER = 6  # polls in a row, of a service that has never answered
NOTICE_SECONDS = 120.0
LOOK_SECONDS = 1.0


class Metadata:
    """An instance's metadata service, version 2: every request shows a token of the session."""

    def __init__(self, endpoint: str, *, timeout: float = TIMEOUT) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._timeout = timeout
        self._token: str | None = None
        # No proxy: a proxy would ask the service of its own machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> str | None:
        """The text under a path; None if there is none. Raises OSError without an answer."""
        for _ in range(2):
            self._token = self._token or self._new_token()
            try:
                return self._ask(path, {"X-aws-ec2-metadata-token": self._token})
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 401:
                    raise
                self._token = None  # it has expired
        raise OSError("the metadata service refuses the token that it just issued")

    def _new_token(self) -> str:
        life = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
        return self._ask(TOKEN_PATH, life, method="PUT")

    def _ask(self, path: str, headers: dict[str, str], method: str = "GET") -> str:
        request = urllib.request.Request(self._endpoint + path, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return str(answer.read(1 << 16).decode("utf-8", "replace"))
        except http.client.HTTPException as error:
            raise OSError(f"the metadata service sent no valid HTTP answer: {error!r}") from error


def seconds_left(notice: str, now: float) -> float | None:
    """Seconds until the instance goes, at least 0; two minutes if the notice does not say when.

    None for a text that is no notice. A notice to hibernate counts too: Ray does not survive that.

    Args:
        notice: the service's answer.
        now: seconds of the Unix clock.
    """
    try:
        content = json.loads(notice)
    except ValueError:
        return None
    if not isinstance(content, dict) or "action" not in content:
        return None
    try:
        when = datetime.datetime.fromisoformat(str(content.get("time")))
    except ValueError:
        return NOTICE_SECONDS
    when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return max(0.0, when.timestamp() - now)


def drain(address: str, node_ip: str, seconds: float) -> int:
    """Drain the nodes of the cluster that run on this machine; return how many there are.

    Raises OSError if the cluster does not answer.

    Args:
        address: HOST:PORT of the head.
        node_ip: of this machine, as the cluster knows it.
        seconds: until the machine goes.
    """
    deadline_ms = int((time.time() + seconds) * 1000)
    return drain_nodes(address, node_ip, deadline_ms=deadline_ms, timeout=CLUSTER_TIMEOUT)


class Drained(BaseException):
    """The node of this process is drained: the process must leave it."""


_next_look = 0.0


def leave_if_drained() -> None:
    """Raise Drained if the node of this process is drained. Asks the cluster at most once in
    LOOK_SECONDS, which takes about a millisecond."""
    global _next_look  # noqa: PLW0603
    import ray

    if time.monotonic() < _next_look or not ray.is_initialized():
        return
    _next_look = time.monotonic() + LOOK_SECONDS
    if own_node_is_draining():
        raise Drained


def watch(
    metadata: Metadata,
    leave: Callable[[float], int],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Poll the service for ever, or return at the start if there is none.

    Args:
        metadata: the service.
        leave: called at every poll from the notice on, because a raylet may start again, with the
            seconds that are left; returns how many nodes it has drained.
        sleep: waits for so many seconds.
    """
    unanswered, has_answered = 0, False
    while has_answered or unanswered < ABSENT_AFTER:
        try:
            notice = metadata.get(NOTICE_PATH)
        except OSError as error:
            unanswered += 1
            if not has_answered and unanswered == ABSENT_AFTER:
                _say(f"no instance metadata here, nothing to watch for: {error}")
        else:
            has_answered = True
            left = None if notice is None else seconds_left(notice, time.time())
            if left is not None:
                _leave(leave, left)
        sleep(POLL_SECONDS)


def _leave(leave: Callable[[float], int], left: float) -> None:
    try:
        count = leave(left)
    except OSError as error:
        _say(f"the instance goes in {left:.0f} s; its node was not drained: {error}")
    else:
        if count:
            _say(f"the instance goes in {left:.0f} s: its node is drained")


def _say(line: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, which is 0 if there is nothing to watch for."""
    parser = Parser(
        "engine.spot", "Drain this machine's Ray node once AWS announces that it takes it away."
    )
    parser.add_argument(
        "--address", required=True, metavar="HOST:PORT", help="address of the cluster's head"
    )
    parser.add_argument(
        "--node-ip-address", metavar="IP", help="this node's address, if `ray start` was given one"
    )
    return run_command(parser, _watch, argv)


def _watch(arguments: argparse.Namespace) -> None:
    host_and_port(arguments.address, "--address")
    show_token()
    from ray.util import get_node_ip_address

    node_ip = arguments.node_ip_address or get_node_ip_address()
    metadata = Metadata(os.environ.get(ENDPOINT) or DEFAULT_ENDPOINT)
    watch(metadata, partial(drain, arguments.address, node_ip))


if __name__ == "__main__":
    sys.exit(main())
