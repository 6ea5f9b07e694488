from __future__ import annotations

import math

import pytest

from study.search.reference import reference_params
from study.space.search_space import load_space

LR = "optimizer/lr_scale"


@pytest.mark.parametrize("count", [3, 4, 7])
def test_each_part_of_the_range_is_tried_once(count):
    space = load_space("joint")
    values = [reference_params(space, rank, count, 0)[LR] for rank in range(count)]
    parts = sorted(int(count * math.log(value / 0.25) / math.log(16)) for value in values)
    assert parts == list(range(count))


def test_choices_are_tried_equally_often():
    space = load_space("baselines")
    values = [reference_params(space, rank, 3, 5)[LR] for rank in range(3)]
    assert sorted(values) == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("leaf", "count"),
    [
        ({"float": {"low": 0.5, "high": 2.0, "step": 0.5}}, 4),
        ({"float": {"low": 0.5, "high": 0.5}}, 2),
        ({"float": {"low": 0.5, "high": 3.0}}, 5),
        ({"int": {"low": 1, "high": 5}}, 5),
        ({"int": {"low": 1, "high": 64, "log": True}}, 3),
        ({"float": {"low": 0.5, "high": 0.99, "log": "to_one"}}, 3),
    ],
)
def test_every_kind_of_range_gives_points_of_the_space(leaf, count):
    space = load_space({"optimizer": {"lr_scale": leaf}})
    for rank in range(count):
        assert space.reference.point(reference_params(space, rank, count, 1)) is not None


def test_the_points_depend_on_the_seed():
    space = load_space("joint")
    assert reference_params(space, 0, 3, 0) != reference_params(space, 0, 3, 1)


def test_a_rank_beyond_the_count_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 3\), got 3"):
        reference_params(load_space("joint"), 3, 3, 0)
