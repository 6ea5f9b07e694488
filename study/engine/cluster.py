"""Finds the Ray cluster that a study runs on, and how many trials it holds at once."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from study.core import telemetry
from study.core.console import CLUSTER_GONE
from study.core.errors import InputError
from study.engine.ray_internals import (
    AUTH_MODE,
    AUTH_TOKEN,
    AUTOSCALER_CONFIG,
    DRIVER_ENVIRONMENT,
    TOKEN_MODE,
    WORKER_ENVIRONMENT,
    Node,
    address_of_ray_start,
    nodes_up,
    patient_start,
    refuses,
    token_shown,
)

ADDRESS_TIMEOUT = 10.0
GPU_DEVICE, CPU_DEVICE = "gpu", "cpu"
LATE_START_SECONDS = 60  # for each process of a new Ray, where the first try took too long


class NotStarted(OSError):
    """A new Ray on this machine did not start. What it has started of itself ends with the thread
    that has tried."""

    def __init__(self, error: Exception) -> None:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        text = "Ray does not start on this machine, which may be overloaded"
        super().__init__(CLUSTER_GONE, f"{text}: {reason[:200]}")


@dataclass(frozen=True)
class Resources:
    """What one trial gets, and how many trials run at once.

    cluster: in words. cpus_per_trial and gpus_per_trial: may be fractions. slots:
    trials at once. most: the limit that the user has set. promise: whether the user has said that
    the cluster will hold `most`, which Ray cannot tell. held: how many the nodes hold now. ranks:
    processes that share a trial's batches.
    """

    cluster: str
    cpus_per_trial: float
    gpus_per_trial: float
    slots: int
    most: int | None = None
    promise: bool = False
    held: int | None = None
    ranks: int = 1

    def slots_on(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Trials at once, once the cluster has these nodes."""
        if self.promise and self.most is not None:
            return self.most
        held = sum(_held(node, self.cpus_per_trial, self.gpus_per_trial) for node in nodes)
        return held if self.most is None else min(held, self.most)

    @property
    def num_threads(self) -> int:
        """CPU threads of each rank of a trial."""
        return max(1, int(self.cpus_per_trial / self.ranks))

    @property
    def text(self) -> str:
        """The resources in words, for the first line of a study."""
        each = f"{self.cpus_per_trial:g} CPU"
        if self.gpus_per_trial:
            each += f" and {self.gpus_per_trial:g} GPU"
        ranks = f", in {self.ranks} ranks" if self.ranks > 1 else ""
        trials = "1 trial at a time" if self.slots == 1 else f"{self.slots} trials at once"
        if self.held is not None and self.held < self.slots:
            trials += f" (its nodes hold {self.held} now)"
        return f"{self.cluster}: {trials}, {each} each{ranks}"


def asked_for(address: str | None) -> str | None:
    """The address that the flag or the environment names; None for a cluster on this machine."""
    asked = address or os.environ.get("RAY_ADDRESS")
    return None if asked in (None, "", "local") else asked


def this_machine() -> Mapping[str, float]:
    """CPUs and GPUs of this machine, without asking Ray."""
    import torch

    return {"CPU": len(os.sched_getaffinity(0)), "GPU": torch.cuda.device_count()}


def show_token(token: Path = AUTH_TOKEN) -> None:
    """Make Ray show the token in this file, if there is one. A head that `ray start` has started
    where it lies asks for it; a cluster that asks for none takes it without harm."""
    if token.expanduser().is_file():
        os.environ.setdefault(AUTH_MODE, TOKEN_MODE)


def host_and_port(address: str, key: str) -> tuple[str, int]:
    """Split HOST:PORT. Raises InputError, with the flag `key`, for anything else."""
    if "@" in address:
        raise InputError("the address contains credentials; Ray takes none there", key=key)
    host, _, port = address.rpartition(":")
    try:
        host.encode("idna")
        named = bool(host) and "/" not in host
    except UnicodeError:
        named = False
    if not (named and port.isascii() and port.isdigit() and len(port) <= 5):
        raise InputError(f"the address must be HOST:PORT, got {address!r}", key=key)
    return host.strip("[]"), int(port)


def check_answers(address: str, key: str) -> None:
    """Raise InputError unless something listens at HOST:PORT; Ray itself would wait for minutes."""
    try:
        socket.create_connection(host_and_port(address, key), timeout=ADDRESS_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster answers at {address}: {error}", key=key) from error


def check_token(address: str, key: str) -> None:
    """Raise InputError if the cluster at HOST:PORT asks for a token that Ray does not show."""
    token, mode = token_shown(), os.environ.get(AUTH_MODE, "")
    try:
        is_refused = refuses(host_and_port(address, key), token, ADDRESS_TIMEOUT)
    except (OSError, OverflowError):
        return  # Ray says what is wrong
    if token and is_refused:
        trouble = "refuses the token of this machine"
    elif is_refused and mode not in ("", TOKEN_MODE):
        trouble = f"asks for a token, which {AUTH_MODE}={mode} keeps back"
        raise InputError(
            f"the Ray cluster at {address} {trouble}", hint=f"unset {AUTH_MODE}", key=key
        )
    elif is_refused:
        trouble = "asks for a token, and this machine has none"
    elif mode == TOKEN_MODE and not token:
        trouble = f"is to be shown a token ({AUTH_MODE}={mode}), and this machine has none"
    else:
        return
    hint = f"copy {AUTH_TOKEN} from the cluster's head"
    raise InputError(f"the Ray cluster at {address} {trouble}", hint=hint, key=key)


def where(address: str | None) -> tuple[str | None, str]:
    """Find the cluster without starting or joining it.

    It is the one at `address`, else at RAY_ADDRESS, else one that `ray start` left running on this
    machine, else a new one of this process.

    Returns:
        The address, None for a new cluster, and the cluster in words.
    """
    if "ray" not in sys.modules:  # Ray reads the mode once, when it is imported
        show_token()
    telemetry.turn_off()
    os.environ.update(DRIVER_ENVIRONMENT | WORKER_ENVIRONMENT)
    asked = asked_for(address)
    if asked is None:
        private = "local" in (address, os.environ.get("RAY_ADDRESS"))
        there = None if private else address_of_ray_start()
        if there is None:
            return None, "a new Ray on this machine"
        return there, f"the Ray cluster running here ({there})"
    there = address_of_ray_start() if asked == "auto" else asked
    if there is None:
        hint = "start one with `ray start --head`"
        raise InputError("no Ray cluster runs on this machine", hint=hint, key=_key(address))
    if there == asked:
        host_and_port(there, _key(address))
    return there, f"the Ray cluster at {there}"


def _key(address: str | None) -> str:
    return "--address" if address else "RAY_ADDRESS"


def connect(address: str | None, *, patient: bool = False) -> str:
    """Connect to the cluster that `where` finds, and return it in words.

    Raises NotStarted where a new one does not start in time; Ray's own limits hold for it, or
    longer ones with `patient`.
    """
    there, words = where(address)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if there is None:
        try:
            with patient_start(LATE_START_SECONDS) if patient else nullcontext():
                ray.init(address="local", include_dashboard=False, **quiet)
        except Exception as error:  # Ray raises RuntimeError and bare Exception
            disconnect()
            raise NotStarted(error) from error
        return words
    key = _key(address)
    if asked_for(address) == there:
        check_answers(there, key)
    check_token(there, key)
    worker = {"env_vars": {**WORKER_ENVIRONMENT, **telemetry.OFF}}
    try:
        ray.init(address=there, runtime_env=worker, **quiet)
    except (ConnectionError, RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"no Ray cluster answers at {there}: {reason}", key=key) from error
    return words


def disconnect() -> None:
    """Leave the cluster; a Ray that `connect` started ends."""
    import ray

    ray.shutdown()


def nodes(
    unfit: Mapping[str, str], autoscaler_config: Path = AUTOSCALER_CONFIG
) -> list[Mapping[str, float]]:
    """The resources of each node that is up, and of each that the cluster may still add.

    Args:
        unfit: why nodes get no trial, by their ids.
        autoscaler_config: the cluster's YAML, if it has an autoscaler.

    Raises:
        InputError: where no node is left.
    """
    up = nodes_up()
    fit = [node for node in up if node.id not in unfit]
    more = growth([node.resources for node in up], autoscaler_config)
    if unfit and not more and not any(node.holds_trials for node in fit):
        raise InputError(
            f"no node of the Ray cluster can train: node {'; node '.join(unfit.values())}"
        )
    return [node.resources for node in fit] + more


def nodes_with(fit: Sequence[Node]) -> list[Mapping[str, float]]:
    """The resources of these nodes, which are fit for trials, and of those that the cluster may
    still add."""
    return [node.resources for node in fit] + growth([node.resources for node in nodes_up()])


def is_limited(autoscaler_config: Path = AUTOSCALER_CONFIG) -> bool:
    """Whether it is known how far the cluster grows. It is of one that `ray up` has made, on its
    head. KubeRay and machines that run `ray start` tell nobody."""
    return autoscaler_config.expanduser().is_file()


def growth(
    up: Sequence[Mapping[str, float]], autoscaler_config: Path = AUTOSCALER_CONFIG
) -> list[Mapping[str, float]]:
    """Nodes that the autoscaler may add: of each type up to its max_workers, max_workers in all."""
    autoscaler_config = autoscaler_config.expanduser()
    if not autoscaler_config.is_file():
        return []
    config = yaml.safe_load(autoscaler_config.read_text(encoding="utf-8"))
    total = int(config.get("max_workers", 2)) - (len(up) - 1)
    possible: list[Mapping[str, float]] = []
    for name, node_type in config.get("available_node_types", {}).items():
        if name == config.get("head_node_type"):
            continue
        count = int(node_type.get("max_workers", config.get("max_workers", 2)))
        possible += [node_type.get("resources", {})] * count
    possible.sort(key=lambda resources: -resources.get("GPU", 0))
    return possible[: max(0, total)]


def fit(
    cluster: str,
    up: Sequence[Mapping[str, float]],
    *,
    gpus_per_trial: float | None = None,
    cpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    device: str | None = None,
    ranks: int | None = None,
    grows: bool = False,
) -> Resources:
    """How many trials the nodes hold at once.

    Args:
        cluster: in words.
        up: the resources of each node.
        gpus_per_trial: default one GPU for each rank if any node has one, else none; see `device`.
        cpus_per_trial: default one CPU for each rank; for trials with GPUs an equal part of a
            node's CPUs, of the GPU node that has the fewest for each trial.
        max_concurrent: at most so many trials at once; where the cluster `grows`, exactly so many.
        device: "gpu" for trials on GPUs, whether there are any yet, "cpu" for none.
        ranks: processes of a trial; default one for each whole GPU of it.
        grows: whether the cluster may have more nodes later, and nobody can tell how many.

    Raises:
        InputError: where no node holds a trial, or Ray cannot count the numbers.
    """
    with_gpu = [node for node in up if node.get("GPU", 0) > 0]
    promise = grows and max_concurrent is not None
    asked_ranks, of_ranks = ranks, float(ranks or 1)
    gpus = of_ranks * bool(with_gpu) if gpus_per_trial is None else gpus_per_trial
    if device is not None:
        gpus = (gpus_per_trial or of_ranks) if device == GPU_DEVICE else 0.0
    ranks = ranks or max(1, int(gpus))
    if cpus_per_trial is None:
        each = [node.get("CPU", 1) / max(1.0, node["GPU"] / gpus) for node in with_gpu if gpus]
        cpus = float(max(ranks, int(min(each)))) if each else float(ranks)
    else:
        cpus = cpus_per_trial
    if not cpus and not gpus:
        raise InputError(
            "cpus-per-trial must be > 0 for a trial without a GPU, got 0",
            key="--cpus-per-trial",
        )
    resources = Resources(cluster, cpus, gpus, 0, max_concurrent, promise, ranks=ranks)
    held = sum(_held(node, cpus, gpus) for node in up)
    slots = resources.slots_on(up)
    if promise and device is None and gpus_per_trial is None and not gpus and held < slots:
        raise InputError(
            f"the nodes hold {held} of {slots} trials now, and none has a GPU yet",
            hint="say where trials train, with --device gpu or --device cpu",
            key="--max-concurrent",
        )
    if slots == 0:
        nodes = [{"GPU": node.get("GPU", 0), "CPU": node.get("CPU", 0)} for node in up]
        largest = max(nodes, key=lambda node: (node["GPU"], node["CPU"]))
        reasons = {
            "--ranks": asked_ranks is not None
            and gpus_per_trial is None
            and cpus_per_trial is None,
            "--device": gpus and device == GPU_DEVICE and not gpus_per_trial,
            "--gpus-per-trial": gpus,
            "--cpus-per-trial": True,
        }
        raise InputError(
            f"no node has {cpus:g} CPUs and {gpus:g} GPUs for a trial; "
            f"the largest has {largest['CPU']:g} CPUs and {largest['GPU']:g} GPUs",
            hint="where the cluster will grow, say to how many trials: --max-concurrent N"
            if grows
            else "",
            key=next(key for key, is_why in reasons.items() if is_why),
        )
    return replace(resources, slots=slots, held=held)


def _held(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    by_cpu = math.inf if cpus == 0 else node.get("CPU", 0) / cpus
    if gpus == 0:
        return int(by_cpu)
    whole = int(node.get("GPU", 0))
    by_gpu = whole * int(1 / gpus + 1e-9) if gpus < 1 else whole // gpus
    return int(min(by_cpu, by_gpu))
