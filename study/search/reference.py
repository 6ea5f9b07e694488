"""The points at which cross entropy is tuned: as they are few, they are spread evenly."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from study.space.grammar import Leaf, assemble
from study.space.search_space import SearchSpace


def reference_params(space: SearchSpace, rank: int, count: int, seed: int) -> dict[str, Any]:
    """Point `rank` (from 0) of `count` over the optimiser's leaves: a Latin hypercube.

    Each leaf's range is cut into `count` parts of equal probability. Each part is used once, in an
    order and at a position within it that are drawn from the seed. So every leaf is covered evenly,
    and no point falls on the task's own setting, which a baseline has tried.
    """
    if not 0 <= rank < count:
        raise ValueError(f"rank must be in [0, {count}), got {rank}")
    params: dict[str, Any] = {}

    def pick(node: Any) -> Any:
        rng = np.random.default_rng([seed, zlib.crc32(node.path.encode()), count])
        quantiles = (rng.permutation(count) + rng.random(count)) / count
        value = _quantile(node.distribution, float(quantiles[rank]))
        return node.from_sampler(value) if isinstance(node, Leaf) else value

    assemble(space.reference.tree, pick, params, {})
    return params


def _quantile(distribution: BaseDistribution, quantile: float) -> Any:
    """The value below which the fraction `quantile` of the distribution lies."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[min(int(quantile * len(choices)), len(choices) - 1)]
        case IntDistribution(low=low, high=high, log=False, step=step):
            return low + step * min(
                int(quantile * ((high - low) // step + 1)), (high - low) // step
            )
        case IntDistribution(low=low, high=high):
            return round(math.exp(math.log(low) + quantile * math.log(high / low)))
        case FloatDistribution(low=low, high=high, log=True):
            return math.exp(math.log(low) + quantile * math.log(high / low))
        case FloatDistribution(low=low, high=high, step=float(step)):
            steps = round((high - low) / step)
            return low + step * min(int(quantile * (steps + 1)), steps)
        case FloatDistribution(low=low, high=high):
            return low + quantile * (high - low)
    raise AssertionError(f"no such range: {distribution}")
