"""Early stopping by asynchronous successive halving (Li et al., MLSys 2020, arXiv 1810.05934).

The stopping variant, on several objectives: at a rung a trial goes on while it is among the best
1 / reduction_factor of the rung by any objective.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


def rung_epochs(first: float, reduction_factor: int, max_epochs: int) -> list[int]:
    """The epochs at which trials are judged: the fraction `first` of the schedule, rounded up, then
    each `reduction_factor` times later, all before the last epoch.

    >>> from study.search.asha import rung_epochs
    >>> rung_epochs(0.375, 3, 8), rung_epochs(0.1, 3, 60)
    ([3], [6, 18, 54])
    """
    epoch = max(1, math.ceil(first * max_epochs - 1e-9))
    rungs = []
    while epoch < max_epochs:
        rungs.append(epoch)
        epoch *= reduction_factor
    return rungs


@dataclass(frozen=True)
class Decision:
    """Whether a trial goes on. `ranks`: 1 is the best of the `size` values on the rung."""

    keep: bool
    reason: str
    ranks: dict[str, int]
    size: int


class Rung:
    """The values with which trials have reached a rung, sorted by objective, so that a decision
    takes no longer in a long study."""

    def __init__(self, reduction_factor: int) -> None:
        self._reduction_factor = reduction_factor
        self._ranked: dict[str, list[float]] = {}
        self.size = 0

    def add(self, value: Mapping[str, float]) -> None:
        """Add the values of one more trial; a value that is not finite is the worst."""
        self.size += 1
        for objective, score in value.items():
            insort(self._ranked.setdefault(objective, []), _score(score))

    def judge(self, value: Mapping[str, float]) -> Decision:
        """Judge one more trial, which is not added.

        A rung stops no trial before it holds 2 * reduction_factor values, this one included. After
        that the best max(1, floor(size / reduction_factor)) by any objective go on, and so do ties.
        A value that is not finite stops the trial, however few values the rung holds.
        """
        size = self.size + 1
        ranks = {}
        for objective, mine in value.items():
            ranked = self._ranked.get(objective, [])
            ranks[objective] = 1 + len(ranked) - bisect_right(ranked, _score(mine))
        for objective, mine in value.items():
            if not math.isfinite(mine):
                return Decision(False, f"{objective} is not finite", ranks, size)
        kept = _num_kept(size, self._reduction_factor)
        if not kept:
            needed = 2 * self._reduction_factor
            reason = f"{size} of the {needed} values that a rung needs to judge"
            return Decision(True, reason, ranks, size)
        best = min(ranks, key=lambda objective: ranks[objective])
        keep = ranks[best] <= kept
        standing = ", ".join(f"{objective} {rank}" for objective, rank in ranks.items())
        standing = f"{best} is {ranks[best]}" if keep else standing
        return Decision(keep, f"{standing} of {size}, best {kept} go on", ranks, size)


def decide(
    before: Iterable[Mapping[str, float]],
    value: Mapping[str, float],
    *,
    reduction_factor: int,
) -> Decision:
    """Judge one trial at a rung: `Rung.judge`.

    Args:
        before: the objectives of the trials that reached the rung earlier; larger is better.
        value: this trial's, with the same keys.
        reduction_factor: one in so many goes on.
    """
    rung = Rung(reduction_factor)
    for other in before:
        rung.add(other)
    return rung.judge(value)


def bars(before: Sequence[Mapping[str, float]], *, reduction_factor: int) -> dict[str, float]:
    """The value of each objective with which the next trial goes on; one of them is enough. Empty
    where it goes on in any case."""
    kept = _num_kept(len(before) + 1, reduction_factor)
    if not kept:
        return {}
    scores = {key: sorted(_score(value[key]) for value in before) for key in before[0]}
    return {key: ranked[-kept] for key, ranked in scores.items()}


def _num_kept(size: int, reduction_factor: int) -> int:
    """How many of a rung's trials go on by one objective; 0 where it stops none yet."""
    return size // reduction_factor if size >= 2 * reduction_factor else 0


def _score(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
