"""What the decision rules cost, and which definition of them ranks configs most alike across seeds.

    python -m benchmarks.decision_rules cost [--task TASK] [--data-root DIR] [--epochs N]
    python -m benchmarks.decision_rules ranking STUDY_FOLDER ...

cost: trains the task on one CPU thread and prints the CPU time that counting the rules takes, as a
percentage of the rest of an epoch with its evaluation. What it replaces, the count at the argmax
alone, is not taken off.

ranking: of the confirmed configs of finished studies, from the curves in their evidence. A
definition gives each training a number on val, as a search would see it; the table shows the mean
rank correlation (Spearman) of the configs between every two seeds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from study.analysis import evidence
from study.config.task import TrialConfig, load_task
from study.core.names import COMPLETED, CONFIRM, VAL
from study.data import open_data
from study.metrics.counts import metrics_from_counts
from study.metrics.curve import CurveCounter
from study.metrics.decision import ARGMAX
from study.session.prepare import with_root
from study.storage.studies import load
from study.training.environment import set_up_process
from study.training.trainer import train

Floats = NDArray[np.float64]
TOLERANCES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05)


def cost(ref: str, data_root: Path | None, epochs: int) -> None:
    """Print the cost of the rules in each of the first epochs."""
    set_up_process(1)
    task = with_root(load_task(ref).config, data_root)
    data = open_data(task.data)
    spent = [0.0]
    count = CurveCounter.count

    def timed(*args: Any) -> Any:
        start = time.process_time()
        found = count(*args)
        spent[0] += time.process_time() - start
        return found

    CurveCounter.count = timed  # type: ignore[method-assign, assignment]
    percentages = []
    begun = time.process_time()
    for report in itertools.islice(train(TrialConfig(task=task), data=data, device="cpu"), epochs):
        rest = time.process_time() - begun - spent[0]
        percentages.append(100 * spent[0] / rest)
        print(f"epoch {report.epoch}: {spent[0]:.3f} s over {rest:.2f} s", flush=True)
        spent[0], begun = 0.0, time.process_time()
    print(f"{ref}: {statistics.mean(percentages):.1f} %, at most {max(percentages):.1f} %")


def _curve(confusion: Any) -> tuple[Floats, Floats]:
    """Mean IoU and mean accuracy at each tau."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    total, decided = confusion.sum(2), confusion.sum(1)
    values = metrics_from_counts(np.stack([hits, decided - hits, total - hits], axis=1))
    return values["miou"], values["macc"]


def _macc_within(tolerance: float, miou: Floats, macc: Floats) -> float:
    return float(macc[miou >= miou.max() - tolerance].max())


DEFINITIONS: dict[str, Callable[[Floats, Floats], float]] = {
    "mIoU at argmax": lambda miou, macc: float(miou[ARGMAX]),
    "mIoU at its best tau": lambda miou, macc: float(miou.max()),
    "mean accuracy at argmax": lambda miou, macc: float(macc[ARGMAX]),
    **{
        f"mean accuracy within {100 * t:g} points of the best mIoU": partial(_macc_within, t)
        for t in TOLERANCES
    },
    "mean accuracy at its best tau": lambda miou, macc: float(macc.max()),
}


def ranking(folder: Path) -> None:
    """Print the table of a study."""
    state = load(folder)
    curves: dict[str, dict[int, tuple[Floats, Floats]]] = {}
    for trial in state.of_stage(CONFIRM):
        found = evidence.read(evidence.path_of(folder, trial.id))
        judged = trial.status == COMPLETED and trial.budget == 1
        if not judged or found is None or found.splits[VAL].curve is None:
            continue
        curves.setdefault(trial.source or "", {})[trial.seed] = _curve(found.splits[VAL].curve)
    seeds = sorted(set.intersection(*(set(of) for of in curves.values())))
    print(f"{folder.name}: {len(curves)} configs, {len(seeds)} seeds")
    for name, number in DEFINITIONS.items():
        rows = [[number(*of[seed]) for of in curves.values()] for seed in seeds]
        pairs = [spearmanr(a, b).statistic for a, b in itertools.combinations(rows, 2)]
        means = np.mean(rows, 0)
        noise = float(np.sqrt(np.mean(np.var(rows, axis=0, ddof=1))))
        print(
            f"  {np.mean(pairs):5.2f}  {name}: sd of configs {100 * np.std(means, ddof=1):.2f}, "
            f"of seeds {100 * noise:.2f} points"
        )


def main(argv: list[str]) -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    costs = parts.add_parser("cost")
    costs.add_argument("--task", default="synthetic")
    costs.add_argument("--data-root", type=Path)
    costs.add_argument("--epochs", type=int, default=8)
    parts.add_parser("ranking").add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args(argv)
    if options.part == "cost":
        cost(options.task, options.data_root, options.epochs)
    else:
        for folder in options.folders:
            ranking(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
