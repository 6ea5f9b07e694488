from __future__ import annotations

import math
import struct
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from study.core.yaml_text import as_yaml


def again(value: Any) -> Any:
    return yaml.safe_load(as_yaml({"x": value}))["x"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-05, "1.0e-05"),
        (1e22, "1.0e+22"),
        (1.5e-07, "1.5e-07"),
        (0.1 + 0.2, "0.30000000000000004"),
        (math.inf, ".inf"),
        (-math.inf, "-.inf"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
    ],
)
def test_a_float_is_read_again_as_the_same_float(value: float, text: str) -> None:
    assert as_yaml({"x": value}) == f"x: {text}\n"
    assert type(again(value)) is float
    assert struct.pack("d", again(value)) == struct.pack("d", value)


@pytest.mark.slow
@given(st.floats(allow_nan=False))
def test_every_float_survives(value: float) -> None:
    assert struct.pack("d", again(value)) == struct.pack("d", value)


def test_nan_survives() -> None:
    assert math.isnan(again(math.nan))


@pytest.mark.parametrize(
    "value", ["off", "1e-3", "3.10", "null", "", "a: b", ".inf", "Straße", "12"]
)
def test_text_stays_text(value: str) -> None:
    assert again(value) == value


def test_trees_keep_their_order_and_lists_their_line() -> None:
    tree = {"b": {"z": [1, 2.5, None], "a": {}}, "a": (True, "x"), "rows": [{"k": 1}]}
    text = as_yaml(tree)
    assert text == "b:\n  z: [1, 2.5, null]\n  a: {}\na: [true, x]\nrows:\n- k: 1\n"
    assert yaml.safe_load(text)["b"]["z"] == [1, 2.5, None]


def test_a_value_used_twice_is_written_twice() -> None:
    shared = {"k": [1]}
    assert as_yaml({"a": shared, "b": shared}) == "a:\n  k: [1]\nb:\n  k: [1]\n"
