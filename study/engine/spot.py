"""The spot market's two minutes: on a notice of AWS a node takes no more work and is left in time.

``python -m study.engine.spot --address HEAD:6379`` runs beside a worker's raylet and asks the
instance's metadata service (IMDSv2) every five seconds whether the instance will be taken away. On
the notice it drains the node: Ray starts nothing there any more, and to lose it is no failure. Its
trials leave with their next checkpoint (`leave_if_drained`) and go on elsewhere; what is still
under way when the machine goes is one epoch at most.

The notice is certain, unlike the recommendation to rebalance, which is not listened to: nodes that
are only at risk would be given up, too, and replaced from the same market.
"""

from __future__ import annotations

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

from study.core.console import Parser, exit_code
from study.core.telemetry import turn_off
from study.engine.cluster import host_and_port, show_token

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
    """An instance's metadata service, version 2: every question shows a token of the session."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token: str | None = None
        # No proxy: it would ask its own machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> str | None:
        """The text under a path; None where nothing is. Raises OSError without an answer."""
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
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return str(answer.read(1 << 16).decode("utf-8", "replace"))
        except http.client.HTTPException as error:
            raise OSError(f"the metadata service sent no valid HTTP answer: {error!r}") from error


def seconds_left(notice: str, now: float) -> float | None:
    """Until the instance goes, at least 0; two minutes where the notice does not say when. None
    where it is none: an instance may also be told to hibernate, which Ray does not survive either.
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
    """Drain the nodes of the cluster that run on this machine; how many there are. Raises OSError
    where the cluster does not answer."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
    from ray.exceptions import RayError

    deadline_ms = int((time.time() + seconds) * 1000)
    try:
        client = GcsClient(address=address)
        nodes = [
            node.hex()
            for node, info in client.get_all_node_info(timeout=CLUSTER_TIMEOUT).items()
            if info.node_manager_address == node_ip and info.state == GcsNodeInfo.ALIVE
        ]
        for node in nodes:
            client.drain_node(
                node, DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), "spot", deadline_ms
            )
    except RayError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return len(nodes)


class Drained(Exception):
    """The node of this process is to be left."""


_next_look = 0.0


def leave_if_drained() -> None:
    """Raise Drained in a trial's process whose node is drained. Asks the cluster at most once in
    LOOK_SECONDS, which takes about a millisecond."""
    global _next_look  # noqa: PLW0603
    import ray

    if time.monotonic() < _next_look or not ray.is_initialized():
        return
    _next_look = time.monotonic() + LOOK_SECONDS
    from ray._private.state import state

    if ray.get_runtime_context().get_node_id() in state.get_draining_nodes():
        raise Drained


def was_on_drained_node(actor_id: str) -> bool:
    """Whether the actor, which may be dead, was on a node when that was drained."""
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

    found = state._connect_and_get_accessor().get_actor_info(ray.ActorID.from_hex(actor_id))
    return found is not None and bool(ActorTableData.FromString(found).preempted)


def watch(
    metadata: Metadata,
    leave: Callable[[float], int],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask until there is no metadata service, which is found out at the start alone.

    leave: called with the seconds that are left at every poll from the notice on, for a raylet may
        start again; returns how many nodes it has drained.
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


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog="python -m study.engine.spot",
        description="Drain this machine's node once AWS says that the machine will be taken away.",
    )
    p.add_argument(
        "--address", required=True, metavar="HOST:PORT", help="address of the cluster's head"
    )
    p.add_argument(
        "--node-ip-address", metavar="IP", help="the IP address that `ray start` got, if any"
    )
    return p


def _command(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    host_and_port(arguments.address, "--address")
    turn_off()
    show_token()
    from ray.util import get_node_ip_address

    node_ip = arguments.node_ip_address or get_node_ip_address()
    metadata = Metadata(os.environ.get(ENDPOINT) or DEFAULT_ENDPOINT)
    watch(metadata, partial(drain, arguments.address, node_ip))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until the machine is gone. Exit code 0 where there is nothing to watch for; 2 on bad
    input; 130 on Ctrl-C."""
    return exit_code(lambda: _command(argv))


if __name__ == "__main__":
    sys.exit(main())
