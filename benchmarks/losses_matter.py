"""Does the choice of loss matter on a task? Trains a few and prints the table of docs/log.md.

    python -m benchmarks.losses_matter [TASK] [--data-root DIR] [--seeds 0 1 2]

Every loss has the task's own settings and one CPU thread; the tail is the four rarest classes, as
far as the split has any of their pixels.
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from study.config.task import TaskConfig, TrialConfig, load_task
from study.core.names import TEST, VAL
from study.data import SegmentationData, open_data
from study.training.trainer import set_up_process, train

LOSSES: dict[str, dict[str, Any]] = {
    "cross entropy": {},
    "inverse frequency": {"class_weights": {"scheme": "inverse_frequency"}},
    "inverse frequency ^ 0.5": {"class_weights": {"scheme": "inverse_frequency", "exponent": 0.5}},
    "recall": {"recall": {"ema_momentum": 0.0}},
    "recall, normalizer weight": {"recall": {"ema_momentum": 0.0}, "normalizer": "weight"},
}
METRICS = ("miou", "macc", "mprec", "acc")
TAIL = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", nargs="?", default="synthetic")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    set_up_process(1)
    task = load_task(options.task).config
    data = open_data(task.data, data_root=options.data_root)
    counts = data.train.class_counts.sum(axis=0)
    tail = [data.class_names[c] for c in np.argsort(counts)[:TAIL]]
    print(f"tail: {', '.join(tail)}\n")
    print("| loss | split | mIoU | macc | mprec | acc | tail recall | s per epoch |")
    print("|---|---|---|---|---|---|---|---|")
    for name, loss in LOSSES.items():
        results = [_result(task, loss, seed, data) for seed in options.seeds]
        for split in (VAL, TEST):
            rows = [
                [*(m[f"{split}/{key}"] for key in METRICS), _recall(m, split, tail)]
                for m in results
            ]
            cells = [_cell([100 * value for value in column]) for column in zip(*rows, strict=True)]
            seconds = statistics.median(m["time/epoch_s"] for m in results)
            print(f"| {name} | {split} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)


def _result(
    task: TaskConfig, loss: dict[str, Any], seed: int, data: SegmentationData
) -> dict[str, float]:
    """The last epoch's metrics, with the time of the median epoch."""
    config = TrialConfig.model_validate({"task": task, "loss": loss, "seed": seed})
    reports = list(train(config, data=data, device="cpu", evaluate_test=True))
    seconds = statistics.median(report.metrics["time/epoch_s"] for report in reports)
    return {**reports[-1].metrics, "time/epoch_s": seconds}


def _recall(metrics: dict[str, float], split: str, names: list[str]) -> float:
    keys = [f"{split}/recall/{name}" for name in names]
    return statistics.fmean([metrics[key] for key in keys if key in metrics] or [math.nan])


def _cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
