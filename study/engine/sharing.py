"""Measures on a node of the cluster how many trials share a GPU there (`scheduler.sharing`).

It is a task of Ray with a whole GPU. The trainings that are measured are its children and end with
it; it is ended when it takes too long, and when the driver is interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from study.config.task import TaskConfig
from study.engine.nodes import NodeCheck
from study.engine.ray_internals import last_line, nodes_up, on_node
from study.scheduler.sharing import MOST, Room, Share, find_share, unmeasured
from study.training.sharing import Reading, measure

LIMIT = 300.0  # seconds of a measurement
START = 60.0  # for its process to start
NODE_START = 900.0  # for a node with a GPU that is yet to join
LOOK = 1.0


def room_of(
    with_gpu: Sequence[Mapping[str, float]],
    *,
    cpus_per_trial: float | None,
    max_concurrent: int | None,
    grows: bool,
) -> Room:
    """What the trials of a GPU have beside it, on the node where that is least.

    with_gpu: the resources of each node that has one. max_concurrent counts where it is known how
    many GPUs there are, which is not so of a cluster that `grows`: trials are to share a GPU only
    once each has some.
    """
    by_cpu = math.inf
    if cpus_per_trial != 0:
        by_cpu = _cpus_of_gpu(with_gpu) / (cpus_per_trial or 1)
    count = sum(int(node["GPU"]) for node in with_gpu)
    most = None if grows or max_concurrent is None else math.ceil(max_concurrent / count)
    return Room(int(min(by_cpu, MOST + 1)), most)


def _cpus_of_gpu(with_gpu: Sequence[Mapping[str, float]]) -> float:
    """The CPUs of a node for each of its GPUs, where they are fewest."""
    return min(node.get("CPU", 0) / max(1.0, node["GPU"]) for node in with_gpu)


def share_on_node(
    task: TaskConfig,
    with_gpu: Sequence[Mapping[str, float]],
    nodes: NodeCheck,
    *,
    cpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    grows: bool = False,
    limit: float = LIMIT,
    device: str = "cuda",
) -> Share:
    """Measure on a node that is fit and has a GPU, or on the first that joins; decide.

    Args:
        task: what trials train.
        with_gpu: the resources of each node with a GPU, those too that are yet to join.
        nodes: tells which nodes are fit.
        cpus_per_trial, max_concurrent: as the user has given them.
        grows: whether nobody can tell how many nodes there will be.
        limit: seconds of the measurement.
        device: where it trains there.
    """
    import ray

    fit = nodes.fit
    there = sorted(
        (node.resources.get("CPU", 0) / node.resources["GPU"], node.name, node.id)
        for node in (nodes_up() if fit is None else fit.values())
        if node.resources.get("GPU", 0) >= 1
    )
    room = room_of(
        with_gpu, cpus_per_trial=cpus_per_trial, max_concurrent=max_concurrent, grows=grows
    )
    cpus = _cpus_of_gpu(with_gpu)

    def find() -> Share:
        return found_here(task, room, cpus, cpus_per_trial, limit, device)

    answer = on_node(there[0][-1] if there else None, find, gpus=1)
    until = time.monotonic() + limit + (START if there else NODE_START)
    done: list[Any] = []
    try:
        while not done and time.monotonic() < until:
            done, _ = ray.wait([answer], timeout=LOOK)
        if done:
            found: Share = ray.get(answer)
            return found
        return unmeasured("no GPU has answered in time")
    except ray.exceptions.RayError as error:
        return unmeasured(f"its process fails: {last_line(error)}")
    finally:
        if not done:
            ray.cancel(answer, force=True)


def found_here(
    task: TaskConfig,
    room: Room,
    cpus: float,
    cpus_per_trial: float | None,
    seconds: float,
    device: str,
) -> Share:
    """Measure on this machine, and decide. cpus: of a GPU. seconds: after which it gives up."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return unmeasured("torch finds no GPU there")
    until = time.monotonic() + seconds
    steps: int | None = None

    def measured(trainings: int) -> Reading:
        nonlocal steps
        threads = cpus / trainings if cpus_per_trial is None else cpus_per_trial
        reading = measure(
            task,
            trainings,
            device=device,
            num_threads=max(1, int(threads)),
            until=until,
            steps=steps,
        )
        steps = reading.steps
        return reading

    return find_share(measured, room)
