"""One of several trainings that share a device, to be measured: `python -m study.training.sharer`.

It reads its order as a line of JSON from standard input, which closes with the process that
measures, and says what it finds on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from study.config.budget import StepBudget
from study.config.task import TaskConfig, TrialConfig, TrialOptimizer
from study.data import SegmentationData, Split, open_data
from study.losses.config import LossConfig
from study.training.batches import TrainOrder
from study.training.child import begun
from study.training.environment import resolve_device, set_up_process
from study.training.ranks import GPU_MEMORY, MEMORY, error_text
from study.training.sharing import EPOCH, ERROR, LOSS, WARM, NotMeasured
from study.training.trainer import train

WARM_EPOCHS, WARM_STEPS = 2, 4
MOST_STEPS, EPOCHS = 1000, 10**5
EVALUATED = 2  # batches of val
CONTEXT = 2**29  # bytes: what a process takes at least beside what torch counts
LR_SCALE = 1e-6  # steps of the usual cost, which do not diverge


def main() -> int:
    """Train until the process that measures ends this one."""
    order, out = begun()
    try:
        for kind, said in _run(order):
            print(kind, json.dumps(said), file=out, flush=True)
    except BaseException as error:
        print(ERROR, json.dumps(_told(error)), file=out, flush=True)
    os._exit(1)


def _told(error: BaseException) -> dict[str, str]:
    """Why it fails, in a line."""
    told = error_text(error)
    text = " ".join(told["text"].split())[:200]
    words = {GPU_MEMORY: "out of GPU memory", MEMORY: "out of memory"}
    return {"text": words.get(told["kind"], text)}


def _run(order: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    set_up_process(order["num_threads"])
    device = resolve_device(order["device"])
    if device.type == "cuda" and order["fraction"] < 1:
        torch.cuda.set_per_process_memory_fraction(order["fraction"])
    task = TaskConfig.model_validate(order["task"])
    data = open_data(task.data, begun=True)
    yield from trained(task, data, device, epoch_s=order["epoch_s"], steps=order["steps"])


def trained(
    task: TaskConfig,
    data: SegmentationData,
    device: torch.device,
    *,
    epoch_s: float,
    steps: int | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Train without end: first what a training takes on the device, then the end of each epoch.

    Args:
        task: what is trained.
        data: the task's.
        device: where.
        epoch_s: how long an epoch is to take.
        steps: of an epoch; default as many as take so long.
    """
    data = replace(data, val=_first(data.val, EVALUATED * 2 * task.batch_size))
    config = _config(task, WARM_STEPS * WARM_EPOCHS, WARM_EPOCHS)
    rate = 0.0
    for report in train(config, data=data, device=str(device)):
        rate = report.metrics["time/images_per_s"]
    if steps is None:
        of_task = TrainOrder(len(data.train.images), task.batch_size, 0).steps_per_pass
        if isinstance(task.budget, StepBudget):
            of_task = max(1, task.budget.steps // task.budget.reports)
        steps = max(1, min(int(epoch_s * rate / task.batch_size), of_task, MOST_STEPS))
    yield WARM, {**memory(device), "steps": steps}
    config = _config(task, steps * EPOCHS, EPOCHS)
    order = TrainOrder(len(data.train.images), task.batch_size, config.seed)
    images = 0
    for report in train(config, data=data, device=str(device)):
        seen = range((report.epoch - 1) * steps, report.epoch * steps)
        images += sum(map(order.size, seen))
        yield EPOCH, {"at": time.monotonic(), "images": images}


def _config(task: TaskConfig, steps: int, epochs: int) -> TrialConfig:
    """A trial of the task with a demanding loss, evaluated after its last epoch alone."""
    changed = task.model_copy(
        update={
            "budget": StepBudget(steps=steps, reports=epochs),
            "evaluation": task.evaluation.model_copy(update={"every": EPOCHS + 1}),
        }
    )
    return TrialConfig(
        task=changed,
        loss=LossConfig.model_validate(LOSS),
        optimizer=TrialOptimizer(lr_scale=LR_SCALE),
        seed=0,
    )


def _first(split: Split, count: int) -> Split:
    part = slice(count)
    return Split(
        images=split.images[part],
        labels=split.labels[part],
        names=split.names[part],
        groups=split.groups[part],
        class_counts=split.class_counts[part],
    )


def memory(device: torch.device) -> dict[str, int]:
    """Bytes: the peak of this process on the device, what it takes there beside that, and what the
    device has."""
    if device.type != "cuda":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return {"memory": _resident_peak(), "context": 0, "total": total}
    free, total = torch.cuda.mem_get_info(device)
    beside = total - free - torch.cuda.memory_reserved(device)
    peak = torch.cuda.max_memory_reserved(device)
    return {"memory": peak, "context": max(beside, CONTEXT), "total": total}


def _resident_peak() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise NotMeasured("this system does not say how much memory a process takes")


if __name__ == "__main__":
    sys.exit(main())
