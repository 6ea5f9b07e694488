from __future__ import annotations

import copy
import math
import pickle
import tracemalloc
from collections.abc import Callable, Mapping

from study.ledger.interning import ConfigInterner, MetricRow


def test_numbers_are_a_mapping_like_the_dict_they_were_made_of() -> None:
    values = {"val/miou": 0.1 + 0.2, "lr": 1e-300, "worst": -math.inf}
    numbers = MetricRow(values)
    assert numbers == values and values == numbers
    assert list(numbers.items()) == list(values.items())
    assert numbers.get("none") is None and "none" not in numbers and "lr" in numbers
    assert numbers != MetricRow({**values, "lr": 0.0})
    assert math.isnan(MetricRow({"x": math.nan})["x"])
    assert copy.deepcopy(numbers) == pickle.loads(pickle.dumps(numbers)) == numbers
    assert repr(numbers) == repr(values)


def test_equal_keys_in_another_order_are_kept_in_that_order() -> None:
    one, other = MetricRow({"a": 1.0, "b": 2.0}), MetricRow({"b": 2.0, "a": 1.0})
    assert one == other
    assert (list(one), list(other)) == (["a", "b"], ["b", "a"])


def memory_of(make: Callable[[dict[str, float]], Mapping[str, float]]) -> int:
    """Bytes that a hundred rows of fifty numbers hold; threads of other tests may add theirs."""
    return min(_held(make) for _ in range(5))


def _held(make: Callable[[dict[str, float]], Mapping[str, float]]) -> int:
    keys = [f"val/iou/{number}" for number in range(50)]
    tracemalloc.start()
    rows = [make({key: row + 0.5 for key in keys}) for row in range(100)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows[7][keys[0]] == 7.5
    return held


def test_rows_of_numbers_take_a_third_of_the_memory_of_dicts() -> None:
    assert memory_of(MetricRow) < memory_of(dict) / 3


def test_a_tree_shares_what_the_last_one_had_and_is_equal_to_its_original() -> None:
    trees = ConfigInterner()
    first = {"task": {"lr": 0.1, "data": {"size": [1, 2]}}, "loss": {"kind": "mean"}, "seed": 0}
    second = copy.deepcopy({**first, "loss": {"kind": "max"}})
    kept = [trees.shared(tree, "config") for tree in (first, second)]
    assert kept == [first, second]
    assert kept[1]["task"] is kept[0]["task"]
    assert kept[1]["loss"] is not kept[0]["loss"]


def test_trees_that_are_equal_and_not_written_alike_stay_apart() -> None:
    trees = ConfigInterner()
    kept = [trees.shared({"loss": {"mix": mix}}, "config") for mix in (1, 1.0, True)]
    assert [type(tree["loss"]["mix"]) for tree in kept] == [int, float, bool]
