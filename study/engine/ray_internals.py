"""What the engine takes from Ray beyond its documented interface: each private name, matched text
and undocumented variable once.

All of it was seen in Ray 2.60, the only version that is allowed for this reason. Another may lack
some of it: then the test of that piece in `tests/engine/test_ray_internals.py` fails. The functions
import Ray themselves, because Ray reads its environment on import and `cluster` must set it before.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial

AUTH_TOKEN = Path("~/.ray/auth_token")
"""Where `ray start` finds the token of a cluster (Ray 2.60: `AuthenticationTokenLoader`)."""

AUTH_MODE, TOKEN_MODE = "RAY_AUTH_MODE", "token"
"""The variable that makes a client show the token, and its value. Ray 2.60 turns the mode on in
`ray start --head` where the token exists, and never in a client."""

AUTH_TOKEN_HERE, AUTH_TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""Variables with a token and with the path of one, which come before that file (Ray 2.60)."""

TOKEN_REFUSED = b"InvalidAuthToken"
"""In the answer of a head that asks for a token, to who shows none or another (Ray 2.60: its
`authentication/` in C++)."""

HEAD_CALL = b"/ray.rpc.NodeInfoGcsService/GetClusterId"
"""The first call of every client to a head (Ray 2.60: `GcsClient::FetchClusterId`)."""

AUTOSCALER_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's YAML on the head (Ray 2.60: in its `autoscaler`)."""

WORKER_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "MALLOC_ARENA_MAX": "1",  # a trial is a thread, whose own arena would not keep freed memory
}
"""For every process of a study: Tune 2.60 would start trials in folders of their own, which breaks
relative paths."""

DRIVER_ENVIRONMENT = {
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_TUNE_CALLBACKS": "study.engine.tune_adapter.SilentProgress",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it drops the running epochs; study.core.signals does not
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # or Tune tries again past the scheduler
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""For the driver alone: Tune 2.60 writes no files and prints nothing. Ray spells INSUFFICENT so."""

TUNE_LOGGER = "ray.tune"
"""The logger above those of all of Tune's modules (Ray 2.60)."""

LOW_ON_MEMORY = "low on memory"
"""Ray's words where its memory monitor has ended a process (Ray 2.60: the raylet's
`worker(s) were killed due to the node running low on memory`)."""

MEMORY_IN_USE = re.compile(r"was ([\d.]+GB) used / ([\d.]+GB)")
"""What of the node's memory was in use, and how much there is, in the same text (Ray 2.60)."""

PROCESS_CRASHED = "Worker exit type: SYSTEM_ERROR"
"""In the text of an actor whose process has died without a word; a list of all the causes that Ray
can think of follows (Ray 2.60)."""

NODE_ID_LABEL = "ray.io/node-id"
"""A label that each node has: its id (Ray 2.60: `_raylet.RAY_NODE_ID_KEY`)."""

TRIAL_ENDED = SystemExit
"""What `tune.report` raises in a trial that Tune has ended (Ray 2.60: `sys.exit(0)` in
`_TrainSession._report_training_result`). The trial's function has to end by it, too."""

HEAD_STARTED, TRIAL_TITLE = "Ray runtime started", "ImplicitFunc"
"""For tests: what `ray start` prints once it has started, and what the title of a trial's process
has (Ray 2.60: `scripts.py`, and the class that `wrap_function` makes)."""

WAITING_STATES = ("PENDING", "RESCHEDULING")
"""States of a placement group that no node holds (Ray 2.60: `PlacementGroupTableData`)."""


def token_shown(token: Path = AUTH_TOKEN) -> str:
    """The token that Ray shows to a cluster; empty where it shows none."""
    if os.environ.get(AUTH_MODE) != TOKEN_MODE:
        return ""
    file = Path(os.environ.get(AUTH_TOKEN_PATH) or token).expanduser()
    found = os.environ.get(AUTH_TOKEN_HERE) or (file.read_text() if file.is_file() else "")
    return found.strip()


def refuses(head: tuple[str, int], token: str, timeout: float) -> bool:
    """Whether the head at this host and port asks for another token than this, or for one at all.

    A client of Ray's own would try for 20 seconds, and print as many lines. So this sends the first
    of its calls by hand: one request of HTTP/2 (RFC 9113) with plain headers (RFC 7541). Raises
    OSError without an answer.
    """

    def text(value: bytes) -> bytes:
        if len(value) < 127:
            return bytes([len(value)]) + value
        high, low = divmod(len(value) - 127, 128)
        return bytes([127, low | 128, high]) + value

    def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
        header = len(content).to_bytes(3, "big") + bytes([kind, flags])
        return header + stream.to_bytes(4, "big") + content

    headers = {
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        **({b"authorization": f"Bearer {token}".encode()} if token else {}),
    }
    post_over_http = b"\x83\x86"
    block = post_over_http + b"\x04" + text(HEAD_CALL) + b"\x01" + text(head[0].encode("idna"))
    block += b"".join(b"\0" + text(name) + text(value) for name, value in headers.items())
    call = frame(4, 0, 0, b"") + frame(1, 4, 1, block) + frame(0, 1, 1, bytes(5))
    answer = b""
    with socket.create_connection(head, timeout=timeout) as there:
        there.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + call)
        while b"grpc-status" not in answer and (part := there.recv(1 << 16)):
            answer += part
    return TOKEN_REFUSED in answer


def address_of_ray_start() -> str | None:
    """The address of a cluster that `ray start` left running on this machine, or None.

    Ray's own address="auto" takes any Ray process it sees, also the private one of another study,
    which dies with that study. Ray 2.60: `services.find_bootstrap_address` reads the file that
    `ray start` writes, `services.find_gcs_addresses` looks through the running processes.
    """
    from ray._private import services

    address = services.find_bootstrap_address(None)
    return address if address in services.find_gcs_addresses() else None


HEAD_WAIT = "RAY_gcs_server_port_wait_time_s"
"""How many seconds `ray.init` waits for the head's process that it starts (Ray 2.60: 30)."""


@contextmanager
def patient_start(seconds: int) -> Iterator[None]:
    """Let `ray.init` wait for so long for each of the two processes of a new cluster.

    Ray 2.60: `Node` waits 30 s for the raylet, a number in its code; it asks `services.get_node`,
    which raises RuntimeError until the raylet is there.
    """
    from ray._private import services

    before, get_node = os.environ.get(HEAD_WAIT), services.get_node
    os.environ[HEAD_WAIT] = str(seconds)
    services.get_node = partial(_get_node_in_time, get_node, time.monotonic() + 2 * seconds)
    try:
        yield
    finally:
        services.get_node = get_node
        os.environ.pop(HEAD_WAIT)
        if before is not None:
            os.environ[HEAD_WAIT] = before


def _get_node_in_time(get_node: Any, deadline: float, *asked: Any) -> Any:
    while True:
        try:
            return get_node(*asked)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
        time.sleep(1)


@dataclass(frozen=True)
class Node:
    """A node of the cluster. id: hexadecimal. name: its IP and host name. resources: by Ray's
    names."""

    id: str
    name: str
    resources: Mapping[str, float]

    @property
    def holds_trials(self) -> bool:
        """Whether it has CPUs or GPUs at all."""
        return bool(self.resources.get("CPU") or self.resources.get("GPU"))


def nodes_up() -> list[Node]:
    """Each node that is up. Ray 2.60: `ray.nodes()`, whose keys are not documented."""
    import ray

    return [
        Node(
            node["NodeID"],
            f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})",
            node["Resources"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def on_node(node: str | None, function: Callable[[], Any], *, gpus: int = 0) -> Any:
    """Run a function on the node with this id, or with None on any that has the GPUs, in a process
    of its own without CPU, and with so many GPUs. Returns Ray's reference to what it returns."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, num_gpus=gpus, max_calls=1)(function)
    if node is None:
        return task.remote()
    there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return task.options(scheduling_strategy=there).remote()


def not_on(nodes: Iterable[str]) -> dict[str, Any]:
    """Arguments of a PlacementGroupFactory with one bundle, for it to leave out the nodes with
    these ids. Ray 2.60: the label that each node has."""
    ids = ",".join(sorted(nodes))
    return {"bundle_label_selector": [{NODE_ID_LABEL: f"!in({ids})"}]} if ids else {}


def node_of(actor_id: str) -> str:
    """The id of the node of an actor, which may be dead; empty if it is not known. Ray 2.60: the
    field `node_id` of the actor's row in the cluster's table."""
    row = _actor_row(actor_id)
    return "" if row is None else str(row.node_id.hex())


def last_line(error: Exception) -> str:
    """What an error of Ray says; a traceback comes before it."""
    lines = str(error).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), type(error).__name__)


def own_node_is_alive(timeout: float) -> bool:
    """What the cluster says of this process's node within `timeout` seconds; raises where it does
    not answer. Ray 2.60: the driver's `global_worker.gcs_client.check_alive`."""
    import ray
    from ray._private.worker import global_worker

    client: Any = global_worker.gcs_client  # type: ignore[attr-defined]
    node = ray.NodeID.from_hex(ray.get_runtime_context().get_node_id())
    return bool(client.check_alive([node], timeout=timeout)[0])


def drain_nodes(address: str, node_ip: str, *, deadline_ms: int, timeout: float) -> int:
    """Drain the live nodes of a cluster that have this IP; how many there are.

    Raises OSError where the cluster does not answer within `timeout` seconds. Ray 2.60: what
    `ray drain-node` does, by `_raylet.GcsClient`; `deadline_ms` is of the Unix clock.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
    from ray.exceptions import RayError

    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    try:
        client = GcsClient(address=address)
        nodes = [
            node.hex()
            for node, info in client.get_all_node_info(timeout=timeout).items()
            if info.node_manager_address == node_ip and info.state == GcsNodeInfo.ALIVE
        ]
        for node in nodes:
            client.drain_node(node, reason, "spot", deadline_ms)
    except RayError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return len(nodes)


def own_node_is_draining() -> bool:
    """Whether the node of this process is being drained; takes about a millisecond. Ray 2.60:
    `state.get_draining_nodes`, by the hexadecimal id."""
    import ray
    from ray._private.state import state

    return ray.get_runtime_context().get_node_id() in state.get_draining_nodes()


def was_preempted(actor_id: str) -> bool:
    """Whether the actor, which may be dead, was on a node when that was drained.

    Ray 2.60: the field `preempted` of the actor's row in the cluster's table, which no public call
    shows.
    """
    row = _actor_row(actor_id)
    return row is not None and bool(row.preempted)


def _actor_row(actor_id: str) -> Any:
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]

    row = state.get_actor_info(ray.ActorID.from_hex(actor_id))
    return None if row is None else ActorTableData.FromString(row)


def is_short_of_room() -> bool:
    """Whether some placement group waits for a node that can hold it. Ray 2.60:
    `placement_group_table`, whose states are not documented."""
    from ray.util import placement_group_table

    states = {group["state"] for group in placement_group_table().values()}
    return not states.isdisjoint(WAITING_STATES)


def error_text(trial: TuneTrial) -> str:
    """What Tune has written of a trial's error; empty where there is nothing. Ray 2.60:
    `Trial.error_file`, a path or None."""
    path = trial.error_file
    return Path(path).read_text(encoding="utf-8").strip() if path and Path(path).is_file() else ""


def actor_error(trial: TuneTrial) -> Any:
    """The RayActorError that ended a trial's process, or None where it was another error. Ray 2.60:
    `Trial.pickled_error_file`, a path or None; `RayActorError.preempted` and `.actor_id`."""
    from ray import cloudpickle
    from ray.exceptions import RayActorError

    path = trial.pickled_error_file
    if path is None or not Path(path).is_file():
        return None
    error = cloudpickle.loads(Path(path).read_bytes())
    return error if isinstance(error, RayActorError) else None


def make_folder(trial: TuneTrial) -> None:
    """Make a trial's folder, which Tune looks for at the end of a trial that was never started,
    too. Ray 2.60: `Trial.init_local_path`."""
    trial.init_local_path()


def is_repeated(result: Mapping[str, Any]) -> bool:
    """Whether this is the last result once more: when a trial's function returns, Tune sends a copy
    with `done` (Ray 2.60: `tune.result.DONE`)."""
    return bool(result.get("done"))


def stop_trial(controller: Any, trial: TuneTrial) -> None:
    """End a trial, whether it runs or waits. Ray 2.60: `TuneController.stop_trial`."""
    controller.stop_trial(trial)


def trials_with_process(controller: Any) -> list[TuneTrial]:
    """Trials that have a process, which starts, gets ready for the trial or trains it. Ray 2.60:
    `TuneController._trial_to_actor`, and the actors of its manager that have their resources."""
    live = controller._actor_manager._live_actors_to_ray_actors_resources
    return [trial for trial, actor in controller._trial_to_actor.items() if actor in live]


def kill_process(controller: Any, trial: TuneTrial) -> None:
    """Kill a trial's process from outside: Tune then takes it as lost. Ray 2.60: the actor's
    handle is in `_live_actors_to_ray_actors_resources`; a process that is stopped or holds the
    interpreter's lock is killed after five seconds, and its resources are free only then."""
    import ray

    live = controller._actor_manager._live_actors_to_ray_actors_resources
    ray.kill(live[controller._trial_to_actor[trial]][0])


STILL_BUSY = "the process that it was to get did not end the trial before in time"


END_SECONDS = "TUNE_FUNCTION_THREAD_TIMEOUT_S"
"""The variable of a worker with the seconds that a training has to end after its trial, before its
process gets the next one (Ray 2.60: `FunctionTrainable.reset_config`)."""


def tell_of_busy_processes() -> None:
    """Let Tune say where a process could not get its next trial, as the one before did not end: by
    an error of STILL_BUSY. Ray 2.60 tells nobody (`TuneController._on_trial_reset`), and waits for
    that trial forever."""
    from ray.tune.execution.tune_controller import TuneController

    original = TuneController._on_trial_reset
    if original.__module__ == __name__:
        return

    def on_trial_reset(self: Any, trial: TuneTrial, success: bool) -> None:
        if success:
            original(self, trial, success)
        else:
            self._resetting_trials.remove(trial)
            self._process_trial_failure(trial, RuntimeError(STILL_BUSY))

    TuneController._on_trial_reset = on_trial_reset  # type: ignore[method-assign]


def stop_everything(controller: Any) -> None:
    """End what runs, in the middle of its epoch. Ray 2.60: `request_stop_experiment`."""
    controller.request_stop_experiment()


def silent_progress() -> type:
    """A callback in the place of Tune's own, which prints a line for a trial that ends without a
    result, at whatever verbosity. Ray 2.60: the first `TrialProgressCallback` is the only one, and
    prints by `_print`, as its reporters do. Where one is given to the tuner, Tune imports MLflow,
    to count which kind it is; those that the environment names are not counted."""
    from ray.tune.progress_reporter import TrialProgressCallback

    class Silence(TrialProgressCallback):
        def _print(self, msg: str) -> None:
            pass

    return Silence


NODE_KIND_TAG, WORKER_KIND = "ray-node-type", "worker"
"""The tag that tells a worker from the head, and its value (Ray 2.60: `ray.autoscaler.tags`)."""


def aws_provider() -> type:
    """Ray's provider for AWS, which `ray up` and the autoscaler launch nodes with. Ray 2.60:
    `ray.autoscaler._private.aws.node_provider`."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    return AWSNodeProvider


def launch_failure() -> Any:
    """What the provider raises where AWS has refused a launch; its `category` is AWS's code. Ray
    2.60: `NodeLaunchException`."""
    from ray.autoscaler.node_launch_exception import NodeLaunchException

    return NodeLaunchException
