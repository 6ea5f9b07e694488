"""Early stopping by asynchronous successive halving (Li et al., MLSys 2020, arXiv 1810.05934).

The stopping variant, on several objectives: at a rung a trial goes on while it is among the best
1 / reduction_factor of the rung by any objective.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def rung_epochs(first: float, reduction_factor: int, max_epochs: int) -> list[int]:
    """The epochs at which trials are judged: the share `first` of the schedule, rounded up, then
    `reduction_factor` times later each, all before the last epoch.

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


def decide(
    before: Sequence[Mapping[str, float]],
    value: Mapping[str, float],
    *,
    reduction_factor: int,
) -> Decision:
    """Judge one trial at a rung.

    A rung stops nobody before it holds 2 * reduction_factor values, this one included. After that
    the best max(1, floor(size / reduction_factor)) by any objective go on; ties go on. A value
    that is not finite stops the trial, however empty the rung is.

    Args:
        before: the objectives of the trials that reached the rung earlier; larger is better, a
            value that is not finite is the worst.
        value: this trial's, with the same keys.
        reduction_factor: one in so many goes on.
    """
    size = len(before) + 1
    ranks = {
        objective: 1 + sum(_score(other[objective]) > _score(mine) for other in before)
        for objective, mine in value.items()
    }
    for objective, mine in value.items():
        if not math.isfinite(mine):
            return Decision(False, f"{objective} is not finite", ranks, size)
    places = _places(size, reduction_factor)
    if not places:
        reason = f"{size} of the {2 * reduction_factor} values that a rung needs to judge"
        return Decision(True, reason, ranks, size)
    best = min(ranks, key=lambda objective: ranks[objective])
    keep = ranks[best] <= places
    standing = ", ".join(f"{objective} {rank}" for objective, rank in ranks.items())
    if keep:
        return Decision(
            True, f"{best} is {ranks[best]} of {size}, best {places} go on", ranks, size
        )
    return Decision(False, f"{standing} of {size}, best {places} go on", ranks, size)


def bars(before: Sequence[Mapping[str, float]], *, reduction_factor: int) -> dict[str, float]:
    """What takes the next trial on: one of these values of an objective; {} where it goes on
    anyway."""
    places = _places(len(before) + 1, reduction_factor)
    if not places:
        return {}
    scores = {key: sorted(_score(value[key]) for value in before) for key in before[0]}
    return {key: ranked[-places] for key, ranked in scores.items()}


def _places(size: int, reduction_factor: int) -> int:
    """How many of a rung's values go on by one objective; 0 where it stops nobody yet."""
    return size // reduction_factor if size >= 2 * reduction_factor else 0


def _score(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
