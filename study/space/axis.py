"""The range of one leaf as the unit interval: where a value lies in it, which value lies there."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from study.space.grammar import Leaf

MOST_LISTED = 1000  # a range of more steps is taken for one without


@dataclass(frozen=True)
class Axis:
    """Position 0 is the low end of a leaf's range, 1 the high one; a log range is even in log.

    Choices that are numbers are a range too, even in log if all are positive. `points`: the
    positions of all values in ascending order, `listed` these values; both are empty in a range
    without steps.
    """

    leaf: Leaf
    low: float
    high: float
    log: bool
    points: tuple[float, ...] = ()
    listed: tuple[Any, ...] = ()

    def position(self, number: float) -> float:
        """Where a number of a config lies; one outside the range below 0 or above 1, by 1 at
        most."""
        inner = 1 - number if self.leaf.to_one else number
        if self.low == self.high:
            return 0.0
        if self.log:
            inner = max(inner, self.low**2 / self.high)
            place = math.log(inner / self.low) / math.log(self.high / self.low)
        else:
            place = (inner - self.low) / (self.high - self.low)
        return min(max(place, -1.0), 2.0)

    def value(self, position: float) -> Any:
        """The value of a config there: in a range with steps, the nearest one."""
        if self.points:
            above = bisect_left(self.points, position)
            near = range(max(0, above - 1), min(above + 1, len(self.points)))
            return self.listed[min(near, key=lambda index: abs(self.points[index] - position))]
        if position in (0.0, 1.0):  # exactly the end, whose digits are not rounded
            return self.leaf.ends[(position == 1.0) != self.leaf.to_one]
        if self.log:
            number = self.low * (self.high / self.low) ** position
        else:
            number = self.low + position * (self.high - self.low)
        number = min(max(number, self.low), self.high)
        whole = isinstance(self.leaf.distribution, IntDistribution)
        return self.leaf.from_sampler(round(number) if whole else number)


def axis_of(leaf: Leaf) -> Axis | None:
    """The axis of a leaf; None for choices that are no numbers."""
    match leaf.distribution:
        case CategoricalDistribution(choices=choices):
            numbers = [c for c in choices if isinstance(c, (int, float)) and c not in (True, False)]
            if len(numbers) < len(choices):
                return None
            low, high, log = min(numbers), max(numbers), min(numbers) > 0
        case (
            FloatDistribution(low=low, high=high, log=log)
            | IntDistribution(low=low, high=high, log=log)
        ):
            pass
        case _:
            raise AssertionError(f"no such range: {leaf.distribution}")
    axis = Axis(leaf, low, high, log)
    if (leaf.num_values or math.inf) > MOST_LISTED:
        return axis
    listed = tuple(sorted(leaf.grid or (), key=axis.position))
    return Axis(leaf, low, high, log, tuple(map(axis.position, listed)), listed)
