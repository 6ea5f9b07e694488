"""What the data path and the loop cost a training, and what a second trial on a machine costs.

    python -m benchmarks.data [TASK] [--data-root DIR] [--rounds 9] [--threads 1]

Prints ratios of epochs that are interleaved, so that all see the same machine. On a CPU an epoch
is taken as its steps, each at the best or the median of all steps of its kind, by the time that the
process was given; on a GPU, where steps overlap, as a whole.

    data path   an epoch of ours / the same on batches that are in memory already   target 1.05
    loop        ours on batches in memory / a bare PyTorch loop on them             target 1.03
    whole       an epoch of ours, data path and all / the bare loop
    deterministic   an epoch of ours with `deterministic: true` / without

All of them train the task's model on as many batches of the same size with cross entropy. The bare
loop has the same optimiser, schedule, precision and memory format, and nothing else. Then, in
fresh processes: the time to open the data that another process has cached, against an epoch, and
the memory of a process of its own after an epoch, on the task's training images and on four times
as many.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from study.config.task import SyntheticData, TaskConfig, TrialConfig, load_task
from study.data import SegmentationData, open_data
from study.training.batches import Batches
from study.training.environment import resolve_device, set_up_process
from study.training.models import build_model
from study.training.optim import build_optimizer, lr_factor, set_lr
from study.training.trainer import _Training

TARGETS = {"data path": 1.05, "loop": 1.03}
Batch = tuple[Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", nargs="?", default="synthetic")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_up_process(options.threads)
    task = load_task(options.task).config
    data = open_data(task.data, data_root=options.data_root)
    device = resolve_device()
    epochs = _epochs(task, data, device, options.rounds)
    steps = len(_batches(task, data, device))
    print(f"{options.task} on {device}, {options.threads} thread(s), {steps} steps an epoch\n")
    print("| time | best | median | target |\n|---|---|---|---|")
    pairs = {
        "data path": ("ours", "in memory"),
        "loop": ("in memory", "bare"),
        "loop, plain AdamW": ("in memory", "bare, plain AdamW"),
        "whole": ("ours", "bare"),
        "deterministic": ("ours, deterministic", "ours"),
    }
    for name, (one, other) in pairs.items():
        best, median = (
            _seconds(epochs[one], pick) / _seconds(epochs[other], pick)
            for pick in (min, statistics.median)
        )
        print(f"| {name} | {best:.3f} | {median:.3f} | {TARGETS.get(name, '')} |")
    _second_trial(task, options.data_root, _seconds(epochs["ours"], min))


def _seconds(epochs: list[list[float]], pick: Callable[[list[float]], float]) -> float:
    """Seconds of an epoch whose steps, and whose last step with what ends an epoch, are typical."""
    steps = [step for epoch in epochs for step in epoch[:-1]]
    last = pick([epoch[-1] for epoch in epochs])
    return last + (len(epochs[0]) - 1) * pick(steps) if steps else last


def _epochs(
    task: TaskConfig, data: SegmentationData, device: torch.device, rounds: int
) -> dict[str, list[list[float]]]:
    """Seconds of each step of each epoch of each kind; on a GPU of the whole epoch."""
    config = TrialConfig(task=task)
    batches = _batches(task, data, device)
    on_cpu = device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter  # others' load moves it less
    marks: list[float] = []

    def mark() -> None:
        if on_cpu or not marks:
            marks.append(clock())

    only = TrialConfig(task=task.model_copy(update={"deterministic": True}))
    ours, repeats, in_memory = (_Training(each, data, device) for each in (config, only, config))
    for training, given in ((ours, None), (repeats, None), (in_memory, batches)):
        training.batches = _Marked(data, device, training.batches.precision, mark, given)
    runs = {
        "ours": _ours(ours),
        "ours, deterministic": _ours(repeats),
        "in memory": _ours(in_memory),
        "bare": _bare(config, data, device, batches, mark),
        "bare, plain AdamW": _bare(config, data, device, batches, mark, plain=True),
    }
    times: dict[str, list[list[float]]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            marks.clear()
            start = clock()
            next(run)
            if round_:
                bounds = [start, *marks[1:], clock()]
                times[name].append([e - s for s, e in itertools.pairwise(bounds)])
    return times


def _ours(training: _Training) -> Iterator[None]:
    while True:
        training.epoch = training.step = 0
        training.train_epoch()
        yield


class _Marked(Batches):
    """Calls `mark` whenever a batch is asked for; hands out those that are given."""

    def __init__(
        self,
        data: SegmentationData,
        device: torch.device,
        precision: str,
        mark: Callable[[], None],
        batches: list[Batch] | None = None,
    ) -> None:
        super().__init__(data, device, precision)
        self._mark = mark
        self._batches = batches

    def train(self, *what: Any) -> Iterator[Batch]:
        batches = super().train(*what) if self._batches is None else iter(self._batches)
        while True:
            self._mark()
            batch = next(batches, None)
            if batch is None:
                return
            yield batch


def _batches(task: TaskConfig, data: SegmentationData, device: torch.device) -> list[Batch]:
    """An epoch's batches, augmented and normalised."""
    training = _Training(TrialConfig(task=task), data, device)
    steps = range(training.order.steps_per_pass)
    draws = [(training.order.indices(step), torch.Generator().manual_seed(step)) for step in steps]
    return list(training.batches.train(data.train, draws, task.augment))


def _bare(
    config: TrialConfig,
    data: SegmentationData,
    device: torch.device,
    batches: list[Batch],
    mark: Callable[[], None],
    *,
    plain: bool = False,
) -> Iterator[float]:
    """What somebody writes who trains this model once: each `next` is an epoch."""
    task = config.task
    model = build_model(task.model, data.num_classes)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(task.optimizer, model)
    if plain:
        optimizer = torch.optim.AdamW(model.parameters(), lr=task.optimizer.lr)
        optimizer.param_groups[0]["peak_lr"] = task.optimizer.lr
    precision = Batches(data, device, _Training(config, data, device).batches.precision)
    num_steps = task.num_epochs * len(batches)
    model.train()
    while True:
        total = torch.zeros((), device=device)
        for step, (images, target) in enumerate(batches):
            mark()
            set_lr(optimizer, lr_factor(task.lr_schedule, step, num_steps))
            optimizer.zero_grad(set_to_none=True)
            with precision.autocast():
                logits = model(images)
            loss = functional.cross_entropy(logits, target, ignore_index=data.ignore_index)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        yield float(total)


# --- a second trial on a machine ------------------------------------------------------------------


def _second_trial(task: TaskConfig, root: Path | None, epoch_s: float) -> None:
    opened, memory = _in_fresh_process(_open_and_train, task, root)
    print(
        f"\nOpening cached data in a second process: {opened:.3f} s, {opened / epoch_s:.2f} of an"
    )
    print(f"epoch. Its own memory after an epoch: {memory / 2**20:.0f} MiB.")
    if not isinstance(task.data, SyntheticData):
        return
    more = task.data.model_copy(update={"num_train": 4 * task.data.num_train})
    larger = task.model_copy(update={"data": more})
    _in_fresh_process(_open_and_train, larger, root)
    _, grown = _in_fresh_process(_open_and_train, larger, root)
    images = 3 * task.data.num_train * int(np.prod(task.data.size)) * 4 / 2**20
    print(
        f"On four times the training images ({images:.0f} MiB more of pixels and labels): "
        f"{(grown - memory) / 2**20:+.0f} MiB."
    )


def _in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *arguments).result()


def _open_and_train(task: TaskConfig, root: Path | None) -> tuple[float, int]:
    """Seconds to open the data, and bytes of memory that no other process shares after a pass."""
    set_up_process(1)
    start = time.perf_counter()
    data = open_data(task.data, data_root=root)
    opened = time.perf_counter() - start
    training = _Training(TrialConfig(task=task), data, torch.device("cpu"))
    training.train_epoch()
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Private_Dirty:"):
            return opened, 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/smaps_rollup has no line Private_Dirty")


if __name__ == "__main__":
    main()
