"""Specs of the form package.module:function."""

from __future__ import annotations

import argparse
import re
import sys

import pytest

from study.core.errors import InputError
from study.core.factories import call_factory, load_factory

MODULE = """
import argparse, sys, torch
class Net:
    @staticmethod
    def build(width=1):
        return width
def broken(width):
    raise RuntimeError("no weights")
def leaves(code=0):
    sys.exit(code)
def reads_the_command_line():
    argparse.ArgumentParser().parse_args(["--task", "t.yaml"])
def ends():
    next(iter(()))
def too_large():
    return torch.empty(2**60)
def stopped():
    raise KeyboardInterrupt
value = 3
"""


USAGE = """
import sys
def run():
    print("Usage: my_usage")
    print("ERROR: \\x1b[31mno data", file=sys.stderr)
    sys.exit(2)
def talks():
    print("loading")
    print("slowly", file=sys.stderr)
    return 1
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    (tmp_path / "my_factories.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("import a_module_that_is_nowhere\n")
    (tmp_path / "my_script.py").write_text("import sys\nsys.exit()\n")
    parser = "parser = argparse.ArgumentParser()\nparser.add_argument('--data', required=True)\n"
    (tmp_path / "my_command.py").write_text(f"import argparse\n{parser}parser.parse_args([])\n")
    click = "import click\n@click.command()\n@click.option('--data', required=True)\n"
    (tmp_path / "my_click.py").write_text(f"{click}def run(data):\n    pass\nrun([])\n")
    (tmp_path / "my_usage.py").write_text(USAGE)
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
        ("my_script:build", "my_script:build: importing my_script called sys.exit()"),
        (
            "my_command:build",
            "my_command:build: importing my_command parsed the command line, which is not its own: "
            "the following arguments are required: --data; give a factory its values as kwargs",
        ),
        (
            "my_click:run",
            "my_click:run: importing my_click called sys.exit(2); it said: Error: Missing option "
            "'--data'.",
        ),
        ("my_factories:Net.make", "no 'make' in 'my_factories:Net.make'"),
        ("my_factories:value", "must be callable, got an object of type int"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_key(here, capfd, spec, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        load_factory(spec, key="model/factory")
    assert str(caught.value).startswith("model/factory: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "no usage text"


def test_what_a_factory_raises_names_the_factory(here):
    with pytest.raises(InputError, match=r"my_factories:broken\(width\).*RuntimeError: no weights"):
        call_factory("my_factories:broken", {"width": 2}, key="data/factory")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("leaves", "my_factories:leaves() called sys.exit(0)"),
        ("ends", "my_factories:ends() raised StopIteration"),
        ("reads_the_command_line", "parsed the command line, which is not its own: unrecognized"),
    ],
)
def test_a_factory_that_ends_the_program_is_one_line(here, capfd, call, says):
    with pytest.raises(InputError, match=re.escape(says)):
        call_factory(f"my_factories:{call}", {})
    assert capfd.readouterr() == ("", "")


def test_the_usage_text_of_any_parser_is_the_end_of_the_line(here, capfd):
    says = "my_usage:run() called sys.exit(2); it said: ERROR: \\x1b[31mno data"
    with pytest.raises(InputError, match=re.escape(says)):
        call_factory("my_usage:run", {})
    assert capfd.readouterr() == ("", "")


def test_what_a_factory_that_works_says_is_shown(here, capfd):
    assert call_factory("my_usage:talks", {}) == 1
    assert capfd.readouterr() == ("loading\n", "slowly\n")


def test_what_a_factory_says_is_not_held_for_ever(here, capfd, monkeypatch):
    monkeypatch.setattr("study.core.factories.HELD_SECONDS", 0.0)
    with pytest.raises(InputError, match=r"called sys.exit\(2\)"):
        call_factory("my_usage:run", {})
    assert capfd.readouterr().out == "Usage: my_usage\n"


def test_an_own_parser_is_itself_again_afterwards(here, capfd):
    call_factory("my_factories:Net.build", {})
    with pytest.raises(SystemExit):
        argparse.ArgumentParser(prog="own").parse_args(["--no"])
    assert "usage: own" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("call", "raised"), [("too_large", RuntimeError), ("stopped", BaseException)]
)
def test_a_want_of_memory_and_ctrl_c_are_not_the_factorys(here, call, raised):
    with pytest.raises(raised) as caught:
        call_factory(f"my_factories:{call}", {})
    assert not isinstance(caught.value, InputError)
