from __future__ import annotations

import os

import pytest
import yaml

from study.config.shipped import shipped
from study.core.errors import InputError
from study.core.yaml_file import parse_yaml, read_yaml

TEXT = """\
# a comment
loss:
  recall:
    choice:
      off: null
      ema: {ema_momentum: 0.9}
  weights: [1, 2,
    3]
study:
  objectives:
    - val/miou
    - val/macc
"""


def refused(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "f.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key_path_has_its_line():
    lines = parse_yaml(TEXT).lines
    assert lines == {
        "loss": 2,
        "loss/recall": 3,
        "loss/recall/choice": 4,
        "loss/recall/choice/off": 5,
        "loss/recall/choice/ema": 6,
        "loss/recall/choice/ema/ema_momentum": 6,
        "loss/weights": 7,
        "loss/weights/0": 7,
        "loss/weights/1": 7,
        "loss/weights/2": 8,
        "study": 9,
        "study/objectives": 10,
        "study/objectives/0": 11,
        "study/objectives/1": 12,
    }


def test_the_data_are_those_of_safe_load():
    text = "{a: 1, b: [1.5, .inf, 1.0e-3, text], c: {d: null, 3: true}, e: '2020-01-02', f: 1_000}"
    assert parse_yaml(text).data == yaml.safe_load(text)
    for path in shipped("tasks").values():
        assert read_yaml(path).data == yaml.safe_load(path.read_text())


def test_on_and_off_are_words_as_keys_and_truth_values_as_values():
    assert parse_yaml("{off: 1, on: 2, yes: 3, value: off}").data == {
        "off": 1,
        "on": 2,
        "yes": 3,
        "value": False,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\nb: {c: 1,\n  c: 2}",
            "f.yaml:3: b/c: duplicate key (first defined on line 2)",
        ),
        ("a: 1\n'a': 2", "f.yaml:2: a: duplicate key (first defined on line 1)"),
        ("a: &x 1\nb: *x", "f.yaml:2: invalid YAML: aliases are not allowed"),
        ("a: &x [*x]", "f.yaml:1: invalid YAML: aliases are not allowed"),
        ("a:\n  <<: {b: 1}", "f.yaml:2: a: a key must be plain text, got '<<'"),
        ("? [1]\n: 2", "f.yaml:1: a key must be plain text, got a sequence"),
        ("~: 2", "f.yaml:1: a key must be plain text, got '~'"),
        ("a: 1\nb: [1", "f.yaml:2: invalid YAML: while parsing a flow sequence"),
        ("a: 1\n\tb: 2", "f.yaml:2: invalid YAML: "),
        ("a: 1\n---\nb: 2", "f.yaml:2: invalid YAML: expected a single document"),
        ("a: 1\nb: \x00", "f.yaml:2: invalid YAML: special characters"),
        ("a: !!python/object:os.system {}", "f.yaml:1: invalid YAML: the type !!python/object:os"),
        (
            "b: 1\na: 2001-99-99",
            "f.yaml:2: invalid YAML: a date is not allowed, got '2001-99-99'; write it in quotes",
        ),
        ("b: 1\na: !!timestamp foo", "f.yaml:2: invalid YAML: a date is not allowed, got 'foo'"),
        ("b: 1\na: !!set {x}", "f.yaml:2: invalid YAML: the type !!set is not allowed"),
        ("b: 1\na: !!omap [x: 1]", "f.yaml:2: invalid YAML: the type !!omap is not allowed"),
        ("b: 1\na: !!binary aGk=", "f.yaml:2: invalid YAML: the type !!binary is not allowed"),
        ("b: 1\n!!binary aGk=: 1", "f.yaml:2: invalid YAML: the type !!binary is not allowed"),
        ("b: 1\n2001-01-01: 1", "f.yaml:2: invalid YAML: a date is not allowed"),
        ("b: 1\na: !foo 3", "f.yaml:2: invalid YAML: the type !foo is not allowed"),
        ("b: 1\na: =", "f.yaml:2: invalid YAML: the type !!value is not allowed"),
        ("b: 1\na: !!int abc", "f.yaml:2: invalid YAML: invalid int 'abc'"),
        ("b: 1\na: !!map [1]", "f.yaml:2: invalid YAML: "),
        ("b: 1\na: !!str {c: 1}", "f.yaml:2: invalid YAML: "),
        ("b: 1\na: " + 9000 * "9", "f.yaml:2: invalid YAML: invalid int"),
        ("b: 1\na: {1: 2, 0x1: 3}", "f.yaml:2: invalid YAML: two keys are equal"),
        ("b: 1\na: &x {<<: *x}", "f.yaml:2: invalid YAML: aliases are not allowed"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "f.yaml:2: invalid YAML: aliases"),
        ("a: !!bool foo", "f.yaml:1: invalid YAML: invalid bool 'foo'"),
        (
            "a: !!int ''",
            "f.yaml:1: invalid YAML: invalid int ''",
        ),
        ("a: !!float ''", "f.yaml:1: invalid YAML: invalid float ''"),
        ("", "f.yaml: the file is empty; it must hold a mapping"),
        ("# nothing", "f.yaml: the file is empty; it must hold a mapping"),
        ("\n- a", "f.yaml:2: the file must hold a mapping, got a list"),
        ("just text", "f.yaml:1: the file must hold a mapping, got 'just text'"),
        ("a:\n  " + "[" * 5000, "f.yaml:2: invalid YAML: nested deeper than 64 levels"),
        ("a:\n  " + "{b: " * 70 + "}" * 70, "f.yaml:2: invalid YAML: nested deeper than 64 levels"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(text, message):
    assert refused(text).startswith(message)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.yaml: file not found"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot read the file: Is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    with pytest.raises(InputError, match="cannot read the file: Too many levels"):
        read_yaml(tmp_path / "loop.yaml")


def test_what_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match=r"pipe.yaml: not a regular file"):
        read_yaml(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match="/dev/zero: not a regular file"):
        read_yaml("/dev/zero")
    with open(tmp_path / "large.yaml", "wb") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match=r"large.yaml: the file must be at most 16 MiB, got 1024"):
        read_yaml(tmp_path / "large.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"b: 1\na: \xff\xfe", "f.yaml:2: the file is not UTF-8 text"),
        ("b: 1\na: 2".encode("utf-16"), "f.yaml:1: the file is not UTF-8 text"),
        ("b: 1\na: 2".encode("utf-16-le"), "f.yaml:1: invalid YAML: special characters"),
    ],
)
def test_other_encodings_are_refused_with_the_line(tmp_path, text, says):
    (tmp_path / "f.yaml").write_bytes(text)
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / "f.yaml")
    assert says in str(caught.value)


def test_a_byte_order_mark_and_other_line_ends_are_taken(tmp_path):
    (tmp_path / "f.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: {c: d}\r\n")
    assert read_yaml(tmp_path / "f.yaml").data == {"a": 1, "b": {"c": "d"}}
