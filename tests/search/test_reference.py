from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_driver import Driver, curve

from study.analysis.tuning import Tried
from study.core.names import REFERENCE
from study.ledger.records import TrialRecord
from study.search.reference import next_position, reference_params
from study.space.search_space import SearchSpace, load_space
from study.storage.studies import load

LR = "optimizer/lr_scale"
OWN = {LR: 1.0}


def tuned(
    space: SearchSpace, count: int, value: Callable[[float], float], own: float | None = 1.0
) -> list[Tried]:
    """What is tried if each point is known before the next is placed."""
    tried = [] if own is None else [Tried({LR: own}, value(own))]
    for rank in range(count):
        scale = reference_params(space, tried, rank, count)[LR]
        tried.append(Tried({LR: scale}, value(scale)))
    return tried


@dataclass
class Line:
    """Points on [0, 1], some of whose values are not known yet."""

    points: tuple[float, ...] = ()
    known: dict[float, float] = field(default_factory=dict)
    running: dict[float, float] = field(default_factory=dict)

    def place(self, left: int, value: float) -> None:
        tried = [*self.known.items(), *((place, None) for place in self.running)]
        place = next_position(tried, left, self.points)
        assert 0 <= place <= 1
        assert not self.points or place in self.points
        all_tried = set(self.points) <= {*self.known, *self.running} if self.points else False
        assert all_tried or place not in {*self.known, *self.running}
        if place not in self.known:
            self.running[place] = value

    def end(self, num: int) -> None:
        for place in list(self.running)[:num]:
            self.known[place] = self.running.pop(place)

    def best_is_on_an_inner_edge(self) -> bool:
        best = max(self.known, key=self.known.__getitem__)
        is_edge = best in (min(self.known), max(self.known))
        return self.known[best] > -math.inf and is_edge and 0 < best < 1


VALUES = st.one_of(st.floats(0, 1), st.just(-math.inf))
GRIDS = st.integers(1, 9).map(lambda n: tuple(i / n for i in range(n + 1)))


@given(st.data())
def test_the_best_is_never_on_an_inner_edge_of_what_was_tried(data: st.DataObject) -> None:
    """Whatever the values, however many trials run at once, in a range with steps or without."""
    line = Line(data.draw(st.one_of(st.just(()), GRIDS)))
    own = data.draw(st.one_of(st.none(), st.floats(-1, 2)))
    count = data.draw(st.integers(3 if own is None else 2, 8))
    if own is not None:
        line.running[own] = data.draw(VALUES)
    at_once = data.draw(st.integers(1, 4))
    for left in range(count, 0, -1):
        surplus = len(line.running) - at_once + 1
        line.end(data.draw(st.integers(max(surplus, 0), max(surplus, len(line.running)))))
        line.place(left, data.draw(VALUES))
    line.end(len(line.running))
    assert not line.best_is_on_an_inner_edge()


@given(best=st.floats(-2, 2), own=st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]))
def test_four_points_come_within_half_an_octave_of_a_peak(best: float, own: float) -> None:
    tried = tuned(load_space("joint"), 4, lambda lr: -((math.log2(lr) - best) ** 2), own)
    assert min(abs(math.log2(one.settings[LR]) - best) for one in tried) <= 0.51


def test_points_go_outwards_by_octaves_until_the_best_lies_between_two_others() -> None:
    def rates(best: float) -> list[float]:
        tried = tuned(load_space("joint"), 4, lambda lr: -abs(math.log2(lr / best)))
        return [one.settings[LR] for one in tried]

    assert rates(1.0) == [1, 2, 0.5, 0.707107, 1.41421]
    assert rates(8.0) == [1, 2, 4, 2.82843, 3.36359]
    assert rates(0.1) == [1, 2, 0.5, 0.25, 0.353553]


def test_all_that_run_at_once_are_spread_from_the_ends_inwards() -> None:
    space = load_space("joint")
    tried = [Tried(OWN, None)]
    for rank in range(4):
        tried.append(Tried(reference_params(space, tried, rank, 4), None))
    assert [one.settings[LR] for one in tried] == [1, 4, 0.25, 0.5, 2]


def test_a_rate_that_diverged_is_no_best() -> None:
    tried = tuned(load_space("joint"), 4, lambda lr: -math.inf if lr >= 1 else lr)
    rates = [one.settings[LR] for one in tried]
    best = max(rate for rate in rates if rate < 1)
    assert min(rates) < best < 1


def test_a_value_that_comes_later_changes_the_next_point() -> None:
    space = load_space("joint")
    tried = [Tried(OWN, 0.5), Tried({LR: 2.0}, 0.6), Tried({LR: 4.0}, 0.4)]
    worse = [*tried[:2], Tried({LR: 4.0}, 0.7)]
    assert reference_params(space, tried, 3, 4) == reference_params(space, list(tried), 3, 4)
    assert reference_params(space, tried, 3, 4) == {LR: 1.41421}
    assert reference_params(space, worse, 3, 4) == {LR: 2.82843}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_choice_of_a_rate_is_tried_before_one_is_repeated(count: int) -> None:
    space = load_space("baselines")
    rates = [one.settings[LR] for one in tuned(space, count, lambda lr: -lr)]
    assert sorted(set(rates)) == [0.5, 1.0, 2.0]
    assert len(rates) == count + 1


def test_named_options_of_the_optimiser_take_turns_and_then_the_best_is_taken() -> None:
    options = {"low": {"lr_scale": 0.5}, "high": {"lr_scale": 2.0}}
    space = load_space({"optimizer": {"choice": options}})
    tried: list[Tried] = []
    values = {"low": 0.4, "high": 0.6}
    for rank in range(3):
        params = reference_params(space, tried, rank, 3)
        tried.append(Tried(params, values[params["optimizer"]]))
    assert [one.settings["optimizer"] for one in tried] == ["low", "high", "high"]


@pytest.mark.parametrize(
    ("leaf", "count"),
    [
        ({"float": {"low": 0.5, "high": 2.0, "step": 0.5}}, 6),
        ({"float": {"low": 0.5, "high": 0.5}}, 2),
        ({"float": {"low": 0.5, "high": 3.0}}, 5),
        ({"float": {"low": 1.5, "high": 3.0, "log": True}}, 5),
        ({"float": {"low": 0.123456789, "high": 1.23456789, "log": True}}, 5),
        ({"int": {"low": 1, "high": 5}}, 5),
        ({"int": {"low": 1, "high": 64, "log": True}}, 5),
        ({"int": {"low": 1, "high": 5000}}, 5),
        ({"float": {"low": 0.5, "high": 0.99, "log": "to_one"}}, 4),
        ({"choice": [4.0, 0.5, 8.0, 0.25]}, 3),
    ],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_every_kind_of_range_gives_points_of_the_space_and_its_ends(
    leaf: dict[str, object], count: int, sign: int
) -> None:
    space = load_space({"optimizer": {"lr_scale": leaf}})
    tried = tuned(space, count, lambda lr: sign * lr)
    for one in tried[1:]:
        assert space.reference.point(dict(one.settings)) is not None
    spec = next(iter(leaf.values()))
    ends = spec if isinstance(spec, list) else [spec["low"], spec["high"]]  # type: ignore[index]
    assert (max if sign > 0 else min)(ends) in [one.settings[LR] for one in tried]


@pytest.mark.parametrize(("rank", "count"), [(3, 3), (-1, 3)])
def test_a_rank_beyond_the_count_is_refused(rank: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"\[0, 3\), got"):
        reference_params(load_space("joint"), [], rank, count)


def references(folder: Path) -> Sequence[dict[str, object]]:
    return [trial.config["optimizer"] for trial in load(folder).of_stage(REFERENCE)]


def test_a_study_places_them_by_what_it_saw_also_where_it_was_interrupted(tmp_path: Path) -> None:
    def peaked(record: TrialRecord, epoch: int) -> dict[str, float]:
        if record.family != "ce":
            return curve(record, epoch)
        lost = abs(math.log2(record.config["optimizer"]["lr_scale"]) + 1.2) / 10
        return {"val/tuned/miou": 0.5 - lost, "val/tuned_macc/macc": 0.5 - lost}

    Driver(tmp_path / "whole", peaked).run()
    assert [one["lr_scale"] for one in references(tmp_path / "whole")] == [2, 0.5, 0.25, 0.353553]
    Driver(tmp_path / "killed", peaked).run(kill_after=70)
    before = references(tmp_path / "killed")
    assert 0 < len(before) < 4
    Driver(tmp_path / "killed", peaked).run()
    assert references(tmp_path / "killed") == references(tmp_path / "whole")
