"""What part of a GPU a trial gets where the study is to find out: `--gpus-per-trial auto`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from study.config.own_training import OwnTrainingTask
from study.config.task import NamedTask, TaskConfig
from study.core.console import show
from study.core.errors import InputError
from study.session.options import Options, flag_of

if TYPE_CHECKING:
    from study.engine.cluster import Resources
    from study.engine.nodes import NodeCheck

FLAG = flag_of("gpus_per_trial")
SHARE_OF_BUDGET = 0.1  # of the session's time
ON_CPUS = f"{FLAG} auto: no node has a GPU, so trials train on CPUs"
AT_START = f"{FLAG} auto: how many trials share a GPU is measured when the study starts"


def refuse_own_training(options: Options, task: NamedTask) -> None:
    """Refuse to measure a training of the user's own.

    Raises:
        InputError: where that is asked for.
    """
    if options.finds_gpus and isinstance(task.config, OwnTrainingTask):
        message = "a training of your own cannot be measured before the study"
        raise InputError(message, hint="give a number of GPUs", key=FLAG)


def found_gpus(
    tasks: Sequence[NamedTask],
    options: Options,
    resources: Resources,
    room: Sequence[Mapping[str, float]],
    nodes: NodeCheck,
    *,
    grows: bool,
) -> float | None:
    """The GPUs of a trial, as measured on a node; None where it gets none, or without a task.
    Says in a line what was measured.

    Args:
        tasks: of the trials that are left to run.
        options: of the session.
        resources: of a trial with one GPU, or without.
        room: the resources of each node.
        nodes: tells which nodes are fit.
        grows: whether nobody can tell how many nodes there will be.
    """
    from study.engine.sharing import LIMIT, share_on_node

    if not tasks:
        return None
    if not resources.gpus_per_trial:
        show(ON_CPUS)
        return None
    with_gpu = [node for node in room if node.get("GPU", 0) > 0]
    if not with_gpu:
        show(f"{FLAG} auto: one trial has a GPU, as no node has one yet")
        return None
    limit = min(LIMIT, SHARE_OF_BUDGET * options.time_budget)
    show("measuring how many trials share a GPU ...", flush=True)
    shares = []
    for task in tasks:
        assert isinstance(task.config, TaskConfig)
        share = share_on_node(
            task.config,
            with_gpu,
            nodes,
            cpus_per_trial=options.cpus_per_trial,
            max_concurrent=options.max_concurrent,
            grows=grows,
            limit=limit,
        )
        of_task = f" on {task.name}" if len(tasks) > 1 else ""
        show(f"{FLAG} auto{of_task}: {share.text}", flush=True)
        shares.append(share)
    return max(share.gpus for share in shares)
