"""Specs of the form package.module:function."""

from __future__ import annotations

import re
import sys

import pytest

from study.core.errors import InputError
from study.core.factories import call_factory, load_factory

MODULE = """
import math
class Net:
    @staticmethod
    def build(width=1):
        return width
def broken(width):
    raise RuntimeError("no weights")
value = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    (tmp_path / "my_factories.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("import a_module_that_is_nowhere\n")
    return tmp_path


def test_a_module_in_the_working_directory_is_found(here):
    assert load_factory("my_factories:Net.build")(width=7) == 7


def test_an_installed_module_is_found():
    assert load_factory("os.path:join")("a", "b")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("my_factories", "must have the form package.module:function"),
        ("my_factories:", "must have the form"),
        (":build", "must have the form"),
        ("my_factories:build it", "must have the form"),
        ("my_factorys:build", "no module named 'my_factorys'; install it or put it into"),
        ("my_factories.deep:build", "no module named 'my_factories.deep'; install"),
        ("my_broken:build", "importing my_broken raised ModuleNotFoundError"),
        ("my_factories:Net.make", "no 'make' in 'my_factories:Net.make'"),
        ("my_factories:value", "must be callable, got an object of type int"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_key(here, spec, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        load_factory(spec, key="model/factory")
    assert str(caught.value).startswith("model/factory: ")
    assert "\n" not in str(caught.value)


def test_what_a_factory_raises_names_the_factory(here):
    with pytest.raises(InputError, match=r"my_factories:broken\(width\).*RuntimeError: no weights"):
        call_factory("my_factories:broken", {"width": 2}, key="data/factory")
