"""The points at which cross entropy is tuned: each is placed by what the earlier ones showed.

Along a range, the best of what was tried is to lie between two worse ones, or at the range's own
end. An end of what was tried is *open* while it may be the best and the range goes on beyond it;
as many points as there are open ends are kept back, and go to the ends of the range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from optuna.distributions import CategoricalDistribution

from study.analysis.tuning import Tried
from study.space.axis import axis_of
from study.space.grammar import Choice, Leaf, assemble
from study.space.search_space import SearchSpace

STEP = 0.25  # of the range, outwards from an open end: an octave of two down to two up

Place = tuple[float, float | None]
"""Position in a range and value, as in `Tried`."""


def reference_params(
    space: SearchSpace, tried: Sequence[Tried], rank: int, count: int
) -> dict[str, Any]:
    """Point `rank` (from 0) of `count` over the optimiser's leaves, by what was `tried` before.

    Each leaf is placed by itself. Options and choices that are no numbers take turns first; then
    the best one so far is taken.
    """
    if not 0 <= rank < count:
        raise ValueError(f"rank must be in [0, {count}), got {rank}")
    params: dict[str, Any] = {}

    def pick(node: Leaf | Choice) -> Any:
        of_node = [one for one in tried if node.path in one.settings]
        axis = axis_of(node) if isinstance(node, Leaf) else None
        if axis is None:
            return _option(node, of_node)
        places = [(axis.position(one.settings[node.path]), one.value) for one in of_node]
        return axis.value(next_position(places, count - rank, axis.points))

    assemble(space.reference.tree, pick, params, {})
    return params


def _option(node: Leaf | Choice, tried: Sequence[Tried]) -> Any:
    assert isinstance(node.distribution, CategoricalDistribution)
    used = {one.settings[node.path] for one in tried}
    for option in node.distribution.choices:
        if option not in used:
            return option
    best = max(tried, key=lambda one: -math.inf if one.value is None else one.value)
    return best.settings[node.path]


def next_position(tried: Sequence[Place], left: int, points: Sequence[float] = ()) -> float:
    """Where in [0, 1] the next of the `left` points belongs.

    * Nothing tried: in the middle.
    * An end is open: outwards by a step; to the end of the range if no more points are left than
      ends are open, or if a trial is still without its value.
    * Else halfway in the wider gap beside the best. Where nothing has a value, in the widest; if
      that reaches to an end of the range, at the end.

    `points`: the positions that there are, if they can be listed; an untried one is taken, unless
    all are tried.
    """
    rated: dict[float, float] = {}
    for place, value in tried:
        if value is not None:
            rated[place] = max(value, rated.get(place, value))
    running = {place for place, value in tried if place not in rated}
    used = sorted({*rated, *running})
    best = max(rated, key=rated.__getitem__, default=None)
    if best is not None and rated[best] == -math.inf:
        best = None
    free = [point for point in points if point not in used] or points
    if not used:
        return _nearest(0.5, free)
    open_ends = []
    if used[-1] < 1 and (used[-1] == best or used[-1] in running):
        open_ends.append((used[-1], 1.0))
    if used[0] > 0 and (used[0] == best or used[0] in running):
        open_ends.append((used[0], 0.0))
    if open_ends:
        edge, end = max(open_ends, key=lambda pair: abs(pair[1] - pair[0]))
        if running or left <= len(open_ends):
            return end
        return _nearest(_step(edge, end), [p for p in free if (p - edge) * (end - edge) > 0])
    within = [place for place in used if 0 < place < 1]
    gaps = list(pairwise([0.0, *within, 1.0]))
    nearest = None if best is None else min(max(best, 0.0), 1.0)
    beside = [gap for gap in gaps if nearest in gap]
    gap = max(beside or gaps, key=lambda pair: _worth(pair, rated, nearest))
    untried = [end for end in (0.0, 1.0) if end not in used]
    for end in untried:
        if end in gap:
            return end
    in_gap = [point for point in free if gap[0] < point < gap[1]]
    enclosed = [point for point in free if used[0] < point < used[-1]]
    return _nearest(sum(gap) / 2, in_gap or enclosed or (untried if points else ()) or free)


def _worth(gap: tuple[float, float], rated: dict[float, float], best: float | None) -> Any:
    """Wider gaps come first, of equal ones the one whose far end is better, then the lower."""
    outer = gap[0] if gap[1] == best else gap[1]
    return round(gap[1] - gap[0], 4), rated.get(outer, -math.inf), -gap[0]


def _step(edge: float, end: float) -> float:
    room = end - edge
    step = end if abs(room) < 1.5 * STEP else edge + math.copysign(STEP, room)
    return min(max(step, 0.0), 1.0)


def _nearest(target: float, free: Sequence[float]) -> float:
    return min(free, key=lambda point: abs(point - target)) if free else target
