from __future__ import annotations

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
    text = "{a: 1, b: [1.5, .inf, 1.0e-3, text], c: {d: null, 3: true}, e: 2020-01-02}"
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
        ("a: !!python/object:os.system {}", "f.yaml:1: invalid YAML: could not"),
        (
            "a: 2001-99-99",
            "f.yaml:1: invalid YAML: invalid timestamp '2001-99-99' (month must be in 1..12)",
        ),
        (
            "b: 1\na: !!timestamp foo",
            "f.yaml:2: invalid YAML: invalid timestamp",
        ),
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
        ("[" * 5000, "f.yaml: invalid YAML: "),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_place(text, message):
    assert refused(text).startswith(message)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.yaml: file not found"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot read the file: Is a directory"):
        read_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(InputError, match=r"binary.yaml: the file is not UTF-8 text"):
        read_yaml(tmp_path / "binary.yaml")
