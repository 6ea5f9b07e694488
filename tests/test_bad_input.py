"""One file per mistake in tests/bad_input/. Its first line holds the error that it must give, its
name's first word says what reads it. A new case is a new file; `python -m
tests.bad_input.regenerate` writes the first lines. (test_run_command.py runs `run_*.yaml`.)"""

from __future__ import annotations

import re

import pytest
from bad_input.regenerate import CASES, FILES, error_of_file, expected

LONGEST = 300


@pytest.mark.parametrize("name", FILES)
def test_bad_input_is_one_line_with_file_and_key(name: str) -> None:
    assert error_of_file(name) == expected(name)


@pytest.mark.parametrize("name", FILES)
def test_the_error_names_its_file(name: str) -> None:
    assert expected(name).startswith(f"{name}:")


@pytest.mark.parametrize("name", CASES)
def test_an_error_line_keeps_the_house_rules(name: str) -> None:
    assert broken_rules(expected(name)) == []


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("lr must be > 0, got 0", "starts with a file or a key"),
        ("a.yaml:1: lr: `0 < lr` must hold, but got 0", "has no ', but '"),
        ("a.yaml:1: lr: a number must stand here", "has no 'must stand'"),
        ("a.yaml:1: lr:  lr must be > 0, got 0", "has no double space"),
        ("a.yaml:1: lr: lr must be > 0, got 0.", "ends without a full stop"),
        ("a.yaml:1: lr: " + "x" * LONGEST, f"has at most {LONGEST} characters"),
    ],
)
def test_a_broken_rule_is_found(line: str, rule: str) -> None:
    assert broken_rules(line) == [rule]


def broken_rules(line: str) -> list[str]:
    """The house rules for error lines that a line breaks."""
    place = r"(\*?[\w./-]+(:\d+)?|--[a-z-]+|[A-Z]+|search space|task): |no study named "
    rules = {
        "starts with a file or a key": re.match(place, line) is not None,
        "has no ', but '": ", but " not in line,
        "has no 'must stand'": "must stand" not in line,
        "has no double space": "  " not in line,
        "ends without a full stop": not line.endswith("."),
        f"has at most {LONGEST} characters": len(line) <= LONGEST,
    }
    return [rule for rule, kept in rules.items() if not kept]
