"""Columns against the plain definition: a walk over all trials."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from optuna.trial import TrialState

from study.search.history import MAX_POINTS, MIN_RESULTS, WORST, History, Observation
from study.search.sampler import stratified
from study.space.search_space import SearchSpace, load_space

MIOU, MACC = "val/tuned/miou", "val/tuned_macc/macc"
Row = tuple[dict, list[float] | None]


@pytest.fixture(scope="module")
def joint() -> SearchSpace:
    return load_space("joint")


def plain(space: SearchSpace, history: Sequence[Observation]) -> list[Row] | None:
    """Params and values of the model's points, as the words of `history` have them."""
    known = [item for item in history if space.point(item.params) is not None]
    count = Counter(epoch for item in known for epoch in item.rungs)
    full = [epoch for epoch in count if count[epoch] >= MIN_RESULTS]
    if not full:
        return None
    rows: list[Row] = []
    for item in known:
        values = item.rungs.get(max(full))
        point = space.point(item.params)
        assert point is not None
        if values is not None:
            finite = [values[key] if math.isfinite(values[key]) else WORST for key in (MIOU, MACC)]
            rows.append((point[0], finite))
        elif item.failed:
            rows.append((point[0], [WORST, WORST]))
        elif item.running:
            rows.append((point[0], None))
    judged = [place for place, row in enumerate(rows) if row[1] is not None]
    if len(judged) <= MAX_POINTS:
        return rows
    kept = {place for place, row in enumerate(rows) if row[1] is None}
    room = len(kept) + MAX_POINTS
    for axis in (0, 1):
        order = sorted(judged, key=lambda place: (rows[place][1] or [])[axis], reverse=True)
        kept.update(order[: MAX_POINTS // 4])
    rest = [place for place in judged if place not in kept]
    even = np.linspace(0, len(rest) - 1, room - len(kept)).round().astype(int)
    kept.update(rest[index] for index in even)
    return [rows[place] for place in sorted(kept)]


def observation(space: SearchSpace, number: int, rng: random.Random, *, over: bool) -> Observation:
    params = stratified(space, seed=0, number=number)
    if number % 17 == 3:
        params = {**params, "optimizer/lr_scale": 100.0}  # outside of the space
    scores = [rng.choice([math.nan, -math.inf, 0.5, rng.random(), rng.random()]) for _ in range(6)]
    reached = rng.randrange(4) if over else rng.randrange(3)
    rungs = {
        epoch: {MIOU: scores[2 * i], MACC: scores[2 * i + 1]}
        for i, epoch in enumerate((3, 9, 8)[:reached])
    }
    return Observation(params, rungs, running=not over, failed=over and rng.random() < 0.2)


def rows(history: History) -> list[Row] | None:
    points = history.model_points()
    if points is None:
        return None
    found: list[Row] = []
    for point in points:
        runs = point.state == TrialState.RUNNING
        assert (point.datetime_complete is None) == runs
        found.append((point.params, None if runs else point.values))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", [10, 40, 200, 500])
def test_a_history_that_grows_gives_the_models_points(joint: SearchSpace, size: int) -> None:
    rng = random.Random(size)
    growing = History(joint)
    items: list[Observation] = []
    for number in range(size):
        for place in range(max(0, number - 5), number):  # those that ran have ended by now
            if items[place].running:
                over = rng.random() < 0.5
                later = observation(joint, place, rng, over=over)
                rungs = {**items[place].rungs, **later.rungs}
                items[place] = replace(later, rungs=rungs)
                growing.put(place, items[place])
        items.append(observation(joint, number, rng, over=False))
        growing.put(number, items[-1])
        if number % 16 == 0:
            assert rows(growing) == plain(joint, items)
    assert rows(growing) == rows(History(joint, items)) == plain(joint, items)
    assert size < 40 or rows(growing) is not None
