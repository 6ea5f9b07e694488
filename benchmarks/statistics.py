"""How the comparison with tuned cross entropy holds on bad days: `python -m benchmarks.statistics`.

Made-up studies, of which every config but perhaps one equals the reference, go through the
project's own `compare`, as the primary column of an answer does. A study has two metrics with
independent noise. Printed, for each case, as shares of studies with 95 % intervals:

    error   a difference is claimed where there is none, in either metric (at most .05 wanted): as
            intervals move with the differences, one minus their joint coverage
    power   a true gain of 4 standard deviations of a seed, in mIoU of one config, is seen

In "adaptive seeds" up to 8 seeds are trained, as Stein's procedure asks for 2 standard deviations
of a seed to either side; it watches the config that is best after the first ones.

A seed adds the same to all configs, as initial weights and order of the data do: `--shared` is its
fraction of the variance over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import Pool

import numpy as np
import numpy.typing as npt

from benchmarks.false_gains import interval
from study.analysis.statistics import JOINT, Comparison, compare, stein_seeds

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
GAIN = 4.0  # standard deviations of a seed
WANTED, MOST = 2.0, 8  # half-width in standard deviations of a seed, seeds
GAINING, WILD, REFERENCE = 1, -1, 0  # rows of a study; the last config is the one that misbehaves


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.normal(size=shape)


def _scaled(row: int, factor: float) -> Draw:
    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        noise = rng.normal(size=shape)
        noise[row] *= factor
        return noise

    return draw


def _heavy(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.standard_t(3, size=shape) / np.sqrt(3)


def _collapsed(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    noise = rng.normal(size=shape)
    noise[WILD, rng.integers(shape[1])] -= 20
    return noise


CASES: Mapping[str, Draw] = {
    "equal spread": _normal,
    "3x on one config": _scaled(WILD, 3),
    "5x on one config": _scaled(WILD, 5),
    "3x on the reference": _scaled(REFERENCE, 3),
    "heavy tails (t, 3 df)": _heavy,
    "one collapsed seed": _collapsed,
}
ADAPTIVE = "adaptive seeds"


@dataclass(frozen=True)
class Cell:
    """One kind of made-up study: configs (the reference among them), seeds, case, seeds' share."""

    configs: int
    seeds: int
    case: str
    shared: float


def study(cell: Cell, seed: int) -> tuple[bool, bool]:
    """Whether a study claims a difference that is none, and whether one with equal noise sees the
    true gain."""
    rng = np.random.default_rng(seed)
    draw = CASES.get(cell.case, _normal)
    shape = (cell.configs, MOST if cell.case == ADAPTIVE else cell.seeds)
    miou, macc = (
        draw(rng, shape) * np.sqrt(1 - cell.shared)
        + rng.normal(size=shape[1]) * np.sqrt(cell.shared)
        for _ in range(2)
    )
    found = _judged(cell, miou, macc)
    error = any(_away(one) != 0 for of_metric in found for one in of_metric.values())
    miou[GAINING] += GAIN
    return error, _away(_judged(cell, miou, macc)[0][str(GAINING)]) > 0


def _judged(cell: Cell, *metrics: Floats) -> list[dict[str, Comparison]]:
    """The comparisons of each metric; the first one decides on the seeds, where they are open."""
    if cell.case != ADAPTIVE:
        return [_compared(values) for values in metrics]
    miou = metrics[0][:, : cell.seeds]
    others = [row for row in range(cell.configs) if row != REFERENCE]
    best = max(others, key=lambda row: float(miou[row].mean()))
    interval = _compared(miou)[str(best)].interval
    assert interval is not None
    half_width = (interval.high - interval.low) / 2
    count = stein_seeds(half_width, cell.seeds, wanted=WANTED, most=MOST)
    return [_compared(values[:, :count], first=range(cell.seeds)) for values in metrics]


def _compared(values: Floats, first: range | None = None) -> dict[str, Comparison]:
    seeds = [dict(enumerate(map(float, row))) for row in values]
    others = {str(row): of for row, of in enumerate(seeds) if row != REFERENCE}
    return compare(others, seeds[REFERENCE], confidence=JOINT, first=first)


def _away(one: Comparison) -> float:
    """By how much the interval misses 0, with the sign of the difference."""
    assert one.interval is not None
    return max(one.interval.low, 0.0) + min(one.interval.high, 0.0)


def rates(cell: Cell, studies: int) -> tuple[int, int]:
    """How many of the studies err, and how many see."""
    errors, seen = np.array([study(cell, seed) for seed in range(studies)]).sum(axis=0)
    return int(errors), int(seen)


def _job(job: tuple[Cell, int]) -> tuple[Cell, tuple[int, int]]:
    return job[0], rates(*job)


def main() -> None:
    """Print a row for each cell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--configs", type=int, nargs="+", default=[2, 4, 8, 12])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--shared", type=float, nargs="+", default=[0.0, 0.7], metavar="FRACTION")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    cells = [
        Cell(configs, seeds, case, shared)
        for case in (*CASES, ADAPTIVE)
        for configs in args.configs
        for seeds in args.seeds
        for shared in args.shared
    ]
    print("| case | configs | seeds | shared | error | power |\n|---|---|---|---|---|---|")
    with Pool(args.processes) as pool:
        for cell, counts in pool.imap(_job, [(cell, args.studies) for cell in cells]):
            shares = [f"{n / args.studies:.3f}" for n in counts]
            low, high = interval(counts[0], args.studies)
            shares[0] += f" [{low:.3f}, {high:.3f}]"
            row = (cell.case, cell.configs, cell.seeds, f"{cell.shared:g}", *shares)
            print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
