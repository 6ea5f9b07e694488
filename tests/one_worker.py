"""A search of one worker whose trials all come to a known value."""

from __future__ import annotations

from typing import Any

from study.search.history import History, Observation
from study.search.sampler import propose
from study.search.warm_start import Prior
from study.space.search_space import SearchSpace


def proposals(
    space: SearchSpace,
    value: Any,
    count: int,
    *,
    seed: int,
    earlier: dict[str, Any] | None = None,
) -> list[tuple[str, dict[str, Any]]]:
    """Who proposed what. value: of params. earlier: studies of a warm start."""
    history = History(space)
    prior = Prior.of(earlier, space, history.encoder)
    found = []
    for number in range(count):
        one = propose(space, history, seed=seed, number=number, prior=prior)
        history.put(number, Observation(one.params, {3: {"objective": value(one.params)}}))
        found.append((one.by, one.params))
    return found
