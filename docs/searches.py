"""The tables and the picture of docs/search.md, from the simulated searches below docs/regrets/.

    python -m docs.searches   # draws docs/search.png; `python -m docs.numbers` writes the tables

The searches are made by

    python -m benchmarks.search --first-seed 1000 \\
        --methods model random full-length stock hyperband \\
        --at 8 16 24 32 40 48 56 64 --csv docs/regrets/families.csv
    python -m benchmarks.search --first-seed 1000 --families recorded --seeds 40 \\
        --methods model random full-length stock --at 8 16 24 32 40 48 56 64 \\
        --csv docs/regrets/recorded.csv
    python -m benchmarks.search --first-seed 1000 --seeds 8 --methods model random --workers 2 \\
        --at 32 64 --csv docs/regrets/workers2.csv    # so for 16 and 64 workers
    python -m benchmarks.search --first-seed 2000 --seeds 8 --methods model random \\
        --families crossing joint noisy wide options \\
        --at 64 128 200 --csv docs/regrets/long.csv
    python -m benchmarks.search --first-seed 1000 --seeds 6 --methods warm misled model \\
        --at 8 16 24 32 --csv docs/regrets/warm.csv
    python -m benchmarks.search --first-seed 1000 --seeds 8 --families smooth wide options \\
        --methods right wrong model --at 8 16 24 --csv docs/regrets/priors.csv

and those of other packages, docs/regrets/peers.csv, as benchmarks/search.py says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.search import HYPERBAND, RIGHT, STOCK, WRONG, Searches, read
from study.search.sampler import MODEL, RANDOM

HERE = Path(__file__).with_name("regrets")
PICTURE = Path(__file__).with_name("search.png")
FULL_LENGTH, WARM, MISLED = "full-length", "warm", "misled"
NAMES = {
    MODEL: "the model",
    RANDOM: "random, with early stopping",
    FULL_LENGTH: "random, without",
    STOCK: "Optuna's default with Ray's ASHA",
}
COLOURS = {MODEL: "#0b7285", RANDOM: "#e08e0b", FULL_LENGTH: "#888888", STOCK: "#7a5230"}
PEERS = {
    "syne-asha": "Syne Tune 0.16, ASHA",
    "syne-bohb": "Syne Tune 0.16, BOHB",
    "smac": "SMAC3 2.4.1",
    "dehb": "DEHB 0.1.2",
    "neps": "NePS 0.17",
}
LAST = 64  # trainings
DPI = 150
Table = Iterator[Sequence[str]]


@dataclass(frozen=True)
class Recorded:
    """The searches of each measurement."""

    families: Searches
    table: Searches
    workers: Searches
    long: Searches
    warm: Searches
    priors: Searches
    peers: Searches

    @cached_property
    def names(self) -> list[str]:
        """The families, in their order."""
        return list(dict.fromkeys(one.family for one in self.families))


def recorded() -> Recorded:
    """Read the files."""

    def found(*names: str) -> Searches:
        return Searches(one for name in names for one in read(HERE / f"{name}.csv"))

    return Recorded(
        found("families"),
        found("recorded"),
        found("workers2", "workers16", "workers64"),
        found("long"),
        found("warm"),
        found("priors"),
        found("peers"),
    )


def methods(searches: Searches, at: Sequence[int] = (16, 24, 32, 64)) -> Table:
    """The model's regret and what it gains over each other method that has searched these."""
    others = [name for name in (RANDOM, FULL_LENGTH, STOCK, HYPERBAND) if _have(searches, name)]
    names = {**NAMES, HYPERBAND: "Optuna's default with Hyperband (one objective)"}
    yield ["after trainings", "the model's regret", *(f"less {names[name]}" for name in others)]
    for trainings in at:
        differences = (str(searches.less(name, trainings)) for name in others)
        yield [str(trainings), f"{searches.mean(MODEL, trainings):.2f}", *differences]


def families(found: Recorded, at: Sequence[int] = (16, 32, LAST)) -> Table:
    """What the model gains over random proposals on each family."""
    yield ["less random, after trainings", *map(str, at)]
    for family in found.names:
        own = Searches(one for one in found.families if one.family == family)
        yield [f"`{family}`", *(str(own.less(RANDOM, trainings)) for trainings in at)]


def workers(found: Recorded, at: Sequence[int] = (32, LAST)) -> Table:
    """What the model gains over random proposals with so many workers."""
    yield ["workers", *(f"less random, after {trainings}" for trainings in at)]
    numbers = sorted({one.workers for one in [*found.workers, *found.families]})
    for number in numbers:
        own = Searches(one for one in [*found.workers, *found.families] if one.workers == number)
        yield [str(number), *(str(own.less(RANDOM, trainings)) for trainings in at)]


def long(found: Recorded, at: Sequence[int] = (LAST, 128, 200)) -> Table:
    """Searches of up to 200 trainings."""
    yield ["after trainings", "the model's regret", "less random"]
    for trainings in at:
        mean, less = found.long.mean(MODEL, trainings), found.long.less(RANDOM, trainings)
        yield [str(trainings), f"{mean:.2f}", str(less)]


def told(searches: Searches, heads: Mapping[str, str], at: Sequence[int]) -> Table:
    """The model's mean regret when nothing is known beforehand, and when something is told."""
    yield ["after trainings", "regret without", *heads.values()]
    for trainings in at:
        means = (searches.mean(name, trainings) for name in (MODEL, *heads))
        yield [str(trainings), *(f"{mean:.2f}" for mean in means)]


def warm(found: Recorded, at: Sequence[int] = (8, 16, 24, 32)) -> Table:
    """After an earlier study of a problem alike, and after one of the reverse."""
    return told(found.warm, {WARM: "alike", MISLED: "reversed"}, at)


def priors(found: Recorded, at: Sequence[int] = (8, 16, 24)) -> Table:
    """With priors of a good config, and of a bad one."""
    return told(found.priors, {RIGHT: "right", WRONG: "wrong"}, at)


def peers(found: Recorded, at: Sequence[int] = (16, 32, LAST)) -> Table:
    """What the model gains over other packages, and on how many instances of a family."""
    yield ["the model less", *(f"after {trainings}" for trainings in at), "instances"]
    for method, name in PEERS.items():
        seeds = {one.seed for one in found.peers if one.method == method}
        less = (str(found.peers.less(method, trainings)) for trainings in at)
        yield [name, *less, str(len(seeds))]


def speed_ups(found: Recorded) -> dict[str, float]:
    """By family: 64 over the trainings after which the model has the mean regret that random
    proposals have after 64, between two measured numbers in proportion; 1 where it never has."""
    speed = {}
    for family in found.names:
        own = Searches(one for one in found.families if one.family == family)
        numbers = sorted(own[0].regrets)
        aim = own.mean(RANDOM, LAST)
        means = np.array([own.mean(MODEL, number) for number in numbers])
        least = np.minimum.accumulate(means)  # what it has had already
        at = np.interp(-aim, -least, numbers) if least[-1] <= aim else LAST
        speed[family] = LAST / float(at)
    return speed


def speed_up(found: Recorded) -> str:
    """The median over families."""
    return f"{np.median(list(speed_ups(found).values())):.1f}"


def _have(searches: Searches, method: str) -> bool:
    return any(one.method == method for one in searches)


def picture(found: Recorded) -> Figure:
    """Mean regret by trainings, on the families and on the recorded table."""
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    panels: tuple[Axes, Axes] = figure.subplots(1, 2, sharey=True)
    shown = {"made-up curves": found.families, "trained networks": found.table}
    for axes, (title, searches) in zip(panels, shown.items(), strict=True):
        numbers = sorted(searches[0].regrets)
        for method, name in NAMES.items():
            means = [searches.mean(method, number) for number in numbers]
            axes.plot(numbers, means, "o-", color=COLOURS[method], label=name, ms=3.5)
        axes.set_title(title)
        axes.set_xlabel("trainings")
        axes.set_xticks(numbers[1::2])
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("mean regret")
    panels[0].set_ylim(bottom=0)
    panels[0].legend(frameon=False, fontsize=9)
    return figure


def main() -> None:
    """Draw the picture."""
    picture(recorded()).savefig(PICTURE, dpi=DPI, metadata={"Software": None})
    print(f"written: {PICTURE}")


if __name__ == "__main__":
    main()
